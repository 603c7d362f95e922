package protocol

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The golden files are the contract in examples; clients in other languages are
// tested with them too. testdata/server and testdata/client hold messages exactly
// as this package encodes them, one a file, with a line break behind; testdata/http
// the bodies of HTTP; testdata/future messages of later versions, which receivers
// must live with. In testdata/lenient and testdata/bad stand requests as others may
// send them, and beside each, as .want, what it means or how it is refused.
var update = flag.Bool("update", false, "write the golden files anew")

func ptr[T any](v T) *T { return &v }

const cursor = "Zk3vQ0aX1c"

var serverMessages = map[string]Message{
	"welcome": &Welcome{
		V: Version, Room: "lesson-7", Session: "c2Vzc2lvbi1vbmUtMQ",
		You: You{ID: "u42", Name: "さくら", Role: RoleViewer, Can: []string{CanComment}},
		Now: 1767225600123, BeatMS: 30000, Limits: Limits{Text: 200, PerS: 1, Burst: 5},
	},
	"welcome_recovered": &Welcome{
		V: Version, Room: "r", Session: "c2Vzc2lvbi1vbmUtMQ",
		You: You{ID: "host", Name: "Ms. O'Neil <host>", Role: RoleBroadcaster, Can: []string{CanComment, CanSet}},
		Now: 1767225600123, Recovered: true, BeatMS: 30000, Limits: Limits{Text: 200, PerS: 100, Burst: 200},
	},
	"welcome_watch_only": &Welcome{
		V: Version, Room: "r", Session: "c2Vzc2lvbi1vbmUtMQ", You: You{ID: "g-1f3", Role: RoleViewer},
		Now: 1767225600123, BeatMS: 30000, Limits: Limits{Text: 200, PerS: 0.5, Burst: 1},
	},
	"welcome_token": &Welcome{
		V: Version, Room: "lesson-7", Session: "c2Vzc2lvbi1vbmUtMQ",
		You: You{ID: "u42", Name: "さくら", Role: RoleViewer, Can: []string{CanComment}, Ends: 1767229200000},
		Now: 1767225600123, BeatMS: 30000, Limits: Limits{Text: 200, PerS: 1, Burst: 5}, Watch: WatchUsers,
	},
	"renew": &Renew{Ends: 1767229200000},
	"moderation": &Moderation{Entry: Entry{
		Act: "Zk3vQ0aX1cZk3vQ0aX1cZA", Type: TypeRemove, By: User{ID: "mod", Name: "Mod", Role: RoleModerator}, At: 1767225600000, IDs: []string{"1c", "1d"}, Comments: 2,
	}},
	"you": &YouNow{
		You:    You{ID: "u42", Name: "さくら", Role: RoleViewer, Can: []string{CanComment}, Ends: 1767232800000},
		Limits: Limits{Text: 200, PerS: 1, Burst: 5},
	},
	"you_may_nothing": &YouNow{You: You{ID: "u42", Role: RoleMonitor, Can: []string{}}, Limits: Limits{Text: 200, PerS: 1, Burst: 5}},
	"comments": &Comments{Cursor: cursor, Items: []Comment{
		{ID: "1c", At: 1767225600200, User: User{ID: "u42", Name: "さくら"}, Text: "うぽつ"},
	}},
	"comments_names": &Comments{Cursor: cursor, Items: []Comment{
		{ID: "1c", At: 1767225600200, User: User{ID: "u42", Name: "さくら", Avatar: "https://img.example/u42.png"}, Text: "うぽつ"},
		{ID: "1d", At: 1767225600201, User: User{ID: "u43123456", Name: "先 生 (123456)", Confusable: true}, Text: "始めます"},
	}},
	"comments_full": &Comments{Cursor: cursor, Items: []Comment{
		{
			ID: "1d", At: 1767225600300, User: User{ID: "host", Name: "先生", Role: RoleBroadcaster},
			Text: "始めます", MediaMS: ptr(int64(0)), Style: &Style{Position: "top", Size: "big", Color: "#ff0000"},
		},
		{
			ID: "1e", At: 1767225600301, User: User{ID: "mod", Name: "Mod", Role: RoleModerator},
			Text: "Welcome!", MediaMS: ptr(int64(MaxMediaMS)), Style: &Style{Color: "#c000ff"},
		},
	}},
	"comments_text": &Comments{Cursor: cursor, Items: []Comment{
		{ID: "1f", At: 1767225600400, User: User{ID: "a"}, Text: "伝説の始まり ｷﾀ━━(ﾟ∀ﾟ)━━!!"},
		{ID: "1g", At: 1767225600401, User: User{ID: "b"}, Text: "👩‍👩‍👧‍👦 🇯🇵 👍🏽 ❤️"},
		{ID: "1h", At: 1767225600402, User: User{ID: "c"}, Text: "one\ntwo\n\nfour"},
		{ID: "1i", At: 1767225600403, User: User{ID: "d"}, Text: `<b>"no" & 'markup'</b> \ / ` + "\u2028"},
		{ID: "1j", At: 1767225600404, User: User{ID: "e", Name: "سارة"}, Text: "مرحبا, שלום"},
		{ID: "1k", At: 1767225600405, User: User{ID: "f"}, Text: "が é ñ"},
	}},
	"comments_history": &Comments{Cursor: cursor, History: true, Items: []Comment{
		{ID: "1a", At: 1767225599000, User: User{ID: "u1", Name: "Ken"}, Text: "8888"},
		{ID: "1b", At: 1767225599500, User: User{ID: "u2", Name: "Yui"}, Text: "www"},
	}},
	"comments_page": &Comments{Cursor: cursor, Before: "Zk3vQ0aX1a_mjuohka8", History: true, Items: []Comment{
		{ID: "1a", At: 1767225599000, User: User{ID: "u1", Name: "Ken"}, Text: "8888"},
	}},
	"comments_history_empty": &Comments{Cursor: cursor, History: true},
	"comments_shown": &Comments{Cursor: cursor, Shown: 1, Of: 120, Items: []Comment{
		{ID: "2z", At: 1767225601000, User: User{ID: "u1"}, Text: "8888"},
	}},
	"you_blocked": &YouNow{
		You: You{ID: "u42", Name: "さくら", Role: RoleViewer, Can: []string{CanComment}, Blocked: &Blocked{
			Code: CodeMuted, Message: "you are muted: no advertising", RetryMS: 600000,
			Sanction: Sanction{Act: "Zk3vQ0aX1cZk3vQ0aX1cZA", Reason: "no advertising", Ends: 1767226200123, AppealURL: "https://example.com/appeal"},
		}},
		Limits: Limits{Text: 200, PerS: 1, Burst: 5},
	},
	"removed":        &Removed{IDs: []string{"x71qd", "x71qe"}},
	"removed_user":   &Removed{User: "u42"},
	"removed_all":    &Removed{All: true},
	"removed_reload": &Removed{Reload: true},
	"restored": &Restored{Items: []Comment{
		{ID: "x71qd", At: 1767225600200, User: User{ID: "u42", Name: "さくら"}, Text: "うぽつ"},
	}},
	"comments_data": &Comments{Cursor: cursor, Items: []Comment{
		{ID: "1c", At: 1767225600200, User: User{ID: "u42"}, Text: "はい", Data: json.RawMessage(`{"card":17,"ratio":1.0}`)},
	}},
	"event": &Event{ID: "x71qd", At: 1767225600200, User: User{ID: "key:shop", Name: "shop"}, Name: "gift",
		Data: json.RawMessage(`{"from":"さくら","amount":500}`), Cursor: cursor},
	"event_without_data": &Event{ID: "x71qd", At: 1767225600200, User: User{ID: "host", Role: RoleBroadcaster}, Name: "applause", Cursor: cursor},
	"event_lasting": &Event{ID: "x71qe", At: 1767225600300, User: User{ID: "host", Name: "先生", Role: RoleBroadcaster}, Name: "slide",
		Data: json.RawMessage(`{"page":7}`), Lasting: true},
	"event_staff": &Event{ID: "x71qf", At: 1767225600400, User: User{ID: "u42"}, Name: "answer", Data: json.RawMessage(`{"q":1,"a":"b"}`),
		Audience: AudienceStaff, Cursor: cursor},
	"event_user": &Event{ID: "x71qg", At: 1767225600500, User: User{ID: "host", Role: RoleBroadcaster}, Name: "won", Audience: "user:u42", Cursor: cursor},
	"restored_events": &Restored{Items: []Comment{}, Events: []Event{
		{ID: "x71qd", At: 1767225600200, User: User{ID: "key:shop"}, Name: "gift"},
	}},
	"restored_nothing": &Restored{Items: []Comment{}},
	"state_full": &State{
		Rev: 9, Status: StatusScheduled, Title: "第七回", Broadcast: 3, Members: true, StartsAt: 1767225600000, MediaURL: "https://example.com/live.m3u8",
		MediaOffsetMS: 1500, Notice: "8時から\n始まります", Pin: &Pin{Comment: &Comment{ID: "x71qd", At: 1767225600200, User: User{ID: "u42"}, Text: "うぽつ"}},
		Mode: ModeKnown, KnownMS: 3600000, SlowMS: 10000, DelayMS: 5000, Links: LinksNone, EarlyChat: ptr(false), Text: 100, Count: ptr(false),
		KeepMS: 86400000, Watch: WatchTotals, BeganAt: 1767225000000, EndedAt: 1767225500000, Timed: 3, Data: json.RawMessage(`{"poll":[1,2]}`),
	},
	"state_shield": &State{Rev: 10, Status: StatusLive, Mode: ModeKnown, SlowMS: 30000, Links: LinksNone, Shield: true},
	"state_shield_staff": &State{Rev: 10, Status: StatusLive, Mode: ModeKnown, SlowMS: 30000, Links: LinksNone, Shield: true,
		ShieldPreset: &Layer{Mode: ModeKnown, SlowMS: 30000, Links: LinksNone}, Under: &Layer{SlowMS: 5000}},
	"state_pinned_text": &State{Rev: 9, Status: StatusLive, Broadcast: 1, Pin: &Pin{Text: "読んでね"}, Mode: ModeLocked},
	"ok_act":            &OK{Ref: "m-1", Act: "Zk3vQ0aX1cZk3vQ0aX1cZA", Cursor: cursor},
	"ok_set":            &OK{Ref: "s-2", Rev: 7863212},
	"viewers":           &Viewers{Connections: 1203, Users: 1187, PeakUsers: 1500, At: 1767225600000},
	"viewers_zero":      &Viewers{At: 1767225600000},
	"state":             &State{Rev: 7, Status: StatusLive, Title: "第七回 「光と影」"},
	"state_unset":       &State{Status: StatusLive},
	"state_ended":       &State{Rev: 8, Status: StatusEnded, Title: "Lesson 7"},
	"state_waiting":     &State{Rev: 1, Status: StatusScheduled},
	"state_late":        &State{Rev: 7, Status: StatusLive, Degraded: true},
	"ok":                &OK{Ref: "c-1", ID: "1c"},
	"ok_without_id":     &OK{Ref: "s-1"},
	"gap":               &Gap{Missed: 37, Cursor: cursor},
	"gap_unknown":       &Gap{Cursor: cursor},
	"beat":              &Beat{Now: 1767225630123},
	"reconnect":         &Reconnect{AfterMS: 4200},
	"reconnect_now":     &Reconnect{},

	"error_bad_message":        &Error{Ref: "c-1", Code: CodeBadMessage, Message: "text must be a string"},
	"error_bad_message_no_ref": &Error{Code: CodeBadMessage, Message: "the message is not a JSON object"},
	"error_unsupported":        &Error{Ref: "c-1", Code: CodeUnsupported, Message: "this server does not know the type \"react\""},
	"error_too_long":           &Error{Ref: "c-1", Code: CodeTooLong, Message: "the text has 201 characters, at most 200 are allowed"},
	"error_empty":              &Error{Ref: "c-1", Code: CodeEmpty, Message: "the text is empty"},
	"error_rate_limited":       &Error{Ref: "c-1", Code: CodeRateLimited, Message: "too many comments", RetryMS: 1200},
	"error_slow_mode":          &Error{Ref: "c-1", Code: CodeSlowMode, Message: "one comment in 10 s", RetryMS: 7300},
	"error_muted":              &Error{Ref: "c-1", Code: CodeMuted, Message: "you may not comment for now"},
	"error_muted_why": &Error{Ref: "c-1", Code: CodeMuted, Message: "you are muted: no advertising", RetryMS: 600000,
		Sanction: Sanction{Act: "Zk3vQ0aX1cZk3vQ0aX1cZA", Reason: "no advertising", Ends: 1767226200123, AppealURL: "https://example.com/appeal"}},
	"error_banned":   &Error{Ref: "c-1", Code: CodeBanned, Message: "you are banned"},
	"error_warned":   &Error{Ref: "c-1", Code: CodeWarned, Message: "acknowledge the warning first: be kind", Sanction: Sanction{Act: "Zk3vQ0aX1cZk3vQ0aX1cZA", Reason: "be kind"}},
	"error_no_links": &Error{Ref: "c-1", Code: CodeNoLinks, Message: "comments here may have no links"},
	"error_no_act":   &Error{Ref: "m-1", Code: CodeNoAct, Message: "there is no such act, or it has ended"},
	"error_conflict_state": &Error{Ref: "s-1", Code: CodeConflict, Message: "the state is not at rev 7 any more",
		State: json.RawMessage(`{"rev":8,"status":"ended"}`)},
	"error_forbidden":          &Error{Ref: "c-1", Code: CodeForbidden, Message: "you may not comment here"},
	"error_locked":             &Error{Ref: "c-1", Code: CodeLocked, Message: "nobody but the staff may comment"},
	"error_conflict":           &Error{Ref: "s-1", Code: CodeConflict, Message: "the state has changed meanwhile"},
	"error_unavailable":        &Error{Ref: "c-1", Code: CodeUnavailable, Message: "not accepted; try again", RetryMS: 2000},
	"error_unknown_outcome":    &Error{Ref: "c-1", Code: CodeUnknownOutcome, Message: "perhaps accepted; try again with the same ref", RetryMS: 2000},
	"error_of_a_later_version": &Error{Ref: "c-1", Code: "too_quiet", Message: "comments here are in capitals"},
	"error_with_any_ref":       &Error{Ref: "\u0000 🎌 \"", Code: CodeEmpty, Message: "the text is empty"},
}

var clientRequests = map[string]Request{
	"comment":             &CommentRequest{Ref: "c-1", Text: "うぽつ"},
	"comment_without_ref": &CommentRequest{Text: "8888"},
	"comment_full": &CommentRequest{
		Ref: "c-2", Text: "伝説の始まり", MediaMS: ptr(int64(660)),
		Style: &Style{Position: "bottom", Size: "small", Color: "#ff0000"},
	},
	"comment_media_start": &CommentRequest{Ref: "c-3", Text: "first", MediaMS: ptr(int64(0))},
	"comment_media_max":   &CommentRequest{Ref: "c-4", Text: "last", MediaMS: ptr(int64(MaxMediaMS))},
	"comment_style_part":  &CommentRequest{Ref: "c-5", Text: "top", Style: &Style{Position: "top"}},
	"comment_emoji":       &CommentRequest{Ref: "c-6", Text: "👩‍👩‍👧‍👦 🇯🇵 👍🏽 ❤️"},
	"comment_line_breaks": &CommentRequest{Ref: "c-7", Text: "one\ntwo\n\nfour"},
	"comment_markup":      &CommentRequest{Ref: "c-8", Text: `<b>"no" & 'markup'</b> \ / ` + "\u2028"},
	"comment_empty":       &CommentRequest{Ref: "c-9"}, // answered "empty"
	"comment_ref_longest": &CommentRequest{Ref: strings.Repeat("名", MaxRef), Text: "x"},
	"comment_data":        &CommentRequest{Ref: "c-10", Text: "はい", Data: json.RawMessage(`{"card":17,"ratio":1.0}`)},
	"event":               &EventRequest{Ref: "e-1", Name: "gift", Data: json.RawMessage(`{"from":"さくら","amount":500}`)},
	"event_without_data":  &EventRequest{Name: "applause"},
	"event_lasting":       &EventRequest{Ref: "e-2", Name: "slide", Data: json.RawMessage(`{"page":7}`), Lasting: true},
	"event_staff":         &EventRequest{Ref: "e-3", Name: "answer", Data: json.RawMessage(`{"q":1,"a":"b"}`), Audience: AudienceStaff},
	"event_user":          &EventRequest{Ref: "e-4", Name: "won", Audience: "user:u42"},
	"auth":                &AuthRequest{Ref: "t1", Token: "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"},
	"set":                 &SetRequest{Ref: "s-1", Rev: ptr(uint64(7863211)), State: json.RawMessage(`{"slow_ms":10000,"notice":null}`)},
	"set_any":             &SetRequest{Ref: "s-2", State: json.RawMessage(`{"status":"live"}`)},
	"set_shield":          &SetRequest{Ref: "s-3", State: json.RawMessage(`{"shield":true}`)},
	"remove":              &ActRequest{Type: TypeRemove, Ref: "m-1", IDs: []string{"x71qd", "x71qe"}, Reason: "spam"},
	"clear":               &ActRequest{Type: TypeClear, Ref: "m-2"},
	"clear_user":          &ActRequest{Type: TypeClear, Ref: "m-3", User: "u42"},
	"sweep_act":           &ActRequest{Type: TypeSweep, Ref: "m-20", Sweep: "QJ4ZK6XW5O3N7R2T", Until: UntilBroadcast, Sure: true, Reason: "raid"},
	"sweep_spare":         &ActRequest{Type: TypeSweep, Ref: "m-21", Sweep: "QJ4ZK6XW5O3N7R2T", Spare: true},
	"note":                &ActRequest{Type: TypeNote, Ref: "m-22", User: "u42", Text: "first time"},
	"mute":                &ActRequest{Type: TypeMute, Ref: "m-4", User: "u42", ForMS: 600000, Reason: "no advertising"},
	"mute_quiet":          &ActRequest{Type: TypeMute, Ref: "m-5", User: "u42", ForMS: 600000, Quiet: true},
	"mute_broadcast":      &ActRequest{Type: TypeMute, Ref: "m-6", User: "u42", Until: UntilBroadcast},
	"unmute":              &ActRequest{Type: TypeUnmute, Ref: "m-7", User: "u42"},
	"ban":                 &ActRequest{Type: TypeBan, Ref: "m-8", User: "u42", Reason: "spam", Clear: true},
	"ban_all_rooms":       &ActRequest{Type: TypeBan, Ref: "m-9", User: "u42", ForMS: 86400000, AllRooms: true},
	"unban":               &ActRequest{Type: TypeUnban, Ref: "m-10", User: "u42"},
	"warn":                &ActRequest{Type: TypeWarn, Ref: "m-11", User: "u42", Reason: "be kind"},
	"trust":               &ActRequest{Type: TypeTrust, Ref: "m-12", User: "u42"},
	"undo":                &ActRequest{Type: TypeUndo, Ref: "m-13", Act: "Zk3vQ0aX1cZk3vQ0aX1cZA"},
	"ack":                 &ActRequest{Type: TypeAck, Ref: "a-1", Act: "Zk3vQ0aX1cZk3vQ0aX1cZA"},
	"beat":                &BeatRequest{},
	"beat_visible":        &BeatRequest{Visible: ptr(true), MediaMS: ptr(int64(61000))},
	"beat_hidden":         &BeatRequest{Visible: ptr(false)},
}

var httpBodies = map[string]any{
	"sweep_query": &SweepQuery{LastMS: 120000, Guests: true, NewcomersMS: 600000, SameAddress: "u42", Text: "join now", Links: true},
	"sweep": &Sweep{Sweep: "QJ4ZK6XW5O3N7R2T", Ends: 1767226200000, Comments: 312, Users: 41, Of: 120, Sure: true, Partial: true, Unknown: 3,
		Samples: []Comment{{ID: "1c", At: 1767225600200, User: User{ID: "u42"}, Text: "JOIN NOW"}}},
	"moderation": &ModerationLog{Cursor: "2s", Entries: []Entry{
		{Act: "Zk3vQ0aX1cZk3vQ0aX1cZA", Type: TypeMute, By: User{ID: "mod", Role: RoleModerator}, At: 1767225600000, User: &User{ID: "u42", Name: "さくら"},
			Reason: "no advertising", Ends: 1767226200000, Undone: &Undone{Act: "Zk3vQ0aX1cZk3vQ0aX1cZB", By: User{ID: "host", Role: RoleBroadcaster}, At: 1767225700000}},
		{Act: "Zk3vQ0aX1cZk3vQ0aX1cZC", Type: TypeSweep, By: User{ID: "mod", Role: RoleModerator}, At: 1767225500000, IDs: []string{"1c"}, Comments: 1, Users: 1,
			Until: UntilBroadcast, Sweep: &SweepQuery{LastMS: 60000, Text: "join now"}},
	}},
	"person": &Person{User: User{ID: "u42", Name: "さくら"}, FirstSeen: 1764547200000, Since: 1767225600000, Devices: 2,
		Comments: []PastComment{{Comment: Comment{ID: "1c", At: 1767225600200, User: User{ID: "u42"}, Text: "JOIN NOW"}, Removed: true}},
		Acts:     []Entry{{Act: "Zk3vQ0aX1cZk3vQ0aX1cZD", Type: TypeNote, By: User{ID: "mod", Role: RoleModerator}, At: 1767225600000, User: &User{ID: "u42"}, Text: "first time"}}},
	"post": &Post{CommentRequest: CommentRequest{Ref: "order-17", Text: "さくら has joined the club 🎉"}},
	"post_full": &Post{
		CommentRequest: CommentRequest{
			Ref: "order-18", Text: "うぽつ", MediaMS: ptr(int64(660)), Style: &Style{Size: "big"},
		},
		User: &User{ID: "u42", Name: "さくら"},
	},
	"posted": &Posted{ID: "1c"},
	"put":    &State{Rev: 7, Status: StatusEnded, Title: "第七回"},
	"room": &Room{
		Room: "lesson-7", State: State{Rev: 7, Status: StatusLive, Title: "第七回"},
		Viewers: &Viewers{Connections: 1203, Users: 1187, PeakUsers: 1500, At: 1767225600000},
	},
	"room_unknown_viewers": &Room{Room: "lesson-7", State: State{Status: StatusLive}},
	"problem": &Problem{
		Title: "Too Many Requests", Status: 429, Detail: "too many comments", Code: CodeRateLimited, RetryMS: 1200,
	},
	"problem_parameter": &Problem{
		Title: "Bad Request", Status: 400, Detail: `limit must be a whole number from 1 to 1000, not "all"`, Code: CodeBadMessage,
	},
	"problem_close": &Problem{
		Title: "Unauthorized", Status: 401, Detail: "the token has expired", Code: CodeUnauthorized, Close: CloseUnauthorized,
	},
	"members": &Members{Users: []Member{
		{ID: "u42", Name: "さくら", Role: RoleViewer, Since: 1767225600000, Devices: 2, FirstSeen: 1764547200000},
		{ID: "g-1", Role: RoleModerator, Since: 1767225600001},
	}, Listing: Listing{Cursor: "dTQy"}, Generation: "1767225599000", Distinct: &Distinct{Broadcast: 3, Users: 1530, Exact: true}},
	"members_stale": &Members{Users: []Member{}, Listing: Listing{Stale: true, AgeMS: 5000}, Generation: "7",
		Distinct: &Distinct{Broadcast: 3, Users: 120000, Error: 0.0081}},
	"watchlog": &WatchLog{Broadcast: "3", Revision: 1, Final: true,
		Summary: WatchSummary{
			Room: "lesson-7", Broadcast: "3", WaitingAt: 1767225000000, BeganAt: 1767225600000, EndedAt: 1767231000000, DurationMS: 5400000, Users: 1530, Guests: 12, Waited: 800,
			Peak: 1187, PeakAt: 1767227100000, Mean: 1012.4, ConnectedMS: 5466960000, VisibleMS: 4100220000, PlayedMS: 5012640000, Comments: 8123, Intervals: 2210, Estimated: 1,
			Devices: map[string]int{"phone": 1400, "desktop": 810}, Minutes: []WatchMinute{{At: 1767225600000, Users: 640, Stayed: 640, Comments: 95}}, TotalsOnly: 3,
		},
		Users: []WatchUser{{ID: "u42", Name: "さくら", From: 1767225600000, To: 1767231000000, ConnectedMS: 5400000, VisibleMS: 5100000, PlayedMS: 5380000, WaitedMS: 312000, Share: 1, Connections: 2, Estimated: true}}},
	"broadcasts": &Broadcasts{Broadcasts: []BroadcastEntry{{Broadcast: "4", BeganAt: 1767312000000}, {Broadcast: "3", BeganAt: 1767225600000, EndedAt: 1767231000000, Revision: 1, Final: true}}},
	"user_rooms": &UserRooms{Rooms: []UserRoom{{Room: "lesson-7", Since: 1767225600000}}},
	"rooms":      &Rooms{Rooms: []RoomUsers{{Room: "lesson-7", Users: 1187}}, Listing: Listing{Cursor: "MTE4NyBsZXNzb24tNw"}},
	"presence_joined": &PresenceEvent{V: 1, Type: "presence", Room: "lesson-7", Generation: "1767225599000", Seq: 12, At: 1767225600000,
		Joined: []PresenceUser{{ID: "u42", Name: "さくら", Role: RoleViewer, Since: 1767225599800}}},
	"presence_left": &PresenceEvent{V: 1, Type: "presence", Room: "lesson-7", Generation: "1767225599000", Seq: 13, At: 1767225600000,
		Left: []PresenceUser{{ID: "u42", Role: RoleViewer, Since: 1767225599800, Lost: true}}},
	"presence_reset": &PresenceEvent{V: 1, Type: "reset", Room: "_all", Generation: "1767225599001", Seq: 1, At: 1767225600000},
	"event_post": &EventPost{EventRequest: EventRequest{Ref: "order-19", Name: "gift", Data: json.RawMessage(`{"amount":500}`)},
		User: &User{ID: "u42", Name: "さくら"}},
	"act_done": &ActDone{Act: "Zk3vQ0aX1cZk3vQ0aX1cZA", Cursor: cursor},
	"deleted":  &Deleted{Room: "lesson-7", Deleted: []string{"its comments"}, Remains: []string{"copies that others have made"}},
	"problem_banned": &Problem{Title: "Forbidden", Status: 403, Detail: "you are banned: spam", Code: CodeBanned, RetryMS: 600000, Close: CloseBanned,
		Sanction: Sanction{Act: "Zk3vQ0aX1cZk3vQ0aX1cZA", Reason: "spam", Ends: 1767226200123}},
	"problem_conflict": &Problem{Title: "Conflict", Status: 409, Detail: "the state is not at rev 7 any more", Code: CodeConflict,
		State: json.RawMessage(`{"rev":8,"status":"ended"}`)},
	"put_members":    &State{Rev: 7, Status: StatusLive, Members: true},
	"room_broadcast": &Room{Room: "lesson-7", State: State{Rev: 8, Status: StatusLive, Broadcast: 3, Members: true}},
}

// golden compares b with a golden file, or writes it.
func golden(t *testing.T, path string, b []byte) {
	t.Helper()
	b = append(bytes.Clone(b), '\n')
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test ./protocol -update writes it)", err)
	}
	if !bytes.Equal(b, want) {
		t.Errorf("%s:\n got %s\nwant %s", path, b, want)
	}
}

// testFiles returns the messages in a folder of testdata by the names of their
// files, without the extension.
func testFiles(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files in testdata/%s: %v", dir, err)
	}
	files := make(map[string][]byte, len(paths))
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(filepath.Base(p), ".json")] = bytes.TrimSuffix(b, []byte("\n"))
	}
	return files
}

// sameNames finds golden files that no message stands for any more.
func sameNames[T any](t *testing.T, dir string, messages map[string]T) {
	t.Helper()
	for name := range testFiles(t, dir) {
		if _, ok := messages[name]; !ok {
			t.Errorf("testdata/%s/%s.json belongs to no message of this test", dir, name)
		}
	}
}

func TestServerGolden(t *testing.T) {
	t.Parallel()
	for name, m := range serverMessages {
		golden(t, "testdata/server/"+name+".json", Encode(m))
	}
	sameNames(t, "server", serverMessages)
	seen := map[string]bool{}
	for name, b := range testFiles(t, "server") {
		m, err := Decode(b)
		if err != nil || m == nil {
			t.Errorf("%s: decoded as %v, %v", name, m, err)
			continue
		}
		seen[m.messageType()] = true
		if got := Encode(m); !bytes.Equal(got, b) {
			t.Errorf("%s: encoded again as\n%s\nnot as\n%s", name, got, b)
		}
		if name == "welcome_watch_only" || name == "comments_history_empty" {
			continue // nil lists are encoded as empty
		}
		if want := serverMessages[name]; !reflect.DeepEqual(m, want) {
			t.Errorf("%s: decoded as %+v, not %+v", name, m, want)
		}
	}
	for _, typ := range []string{
		TypeWelcome, TypeComments, TypeViewers, TypeState, TypeOK, TypeError, TypeGap, TypeBeat, TypeReconnect,
	} {
		if !seen[typ] {
			t.Errorf("no golden file of type %s", typ)
		}
	}
}

func TestClientGolden(t *testing.T) {
	t.Parallel()
	for name, r := range clientRequests {
		golden(t, "testdata/client/"+name+".json", EncodeRequest(r))
	}
	sameNames(t, "client", clientRequests)
	for name, b := range testFiles(t, "client") {
		r, err := DecodeRequest(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := clientRequests[name]; !reflect.DeepEqual(r, want) {
			t.Errorf("%s: decoded as %+v, not %+v", name, r, want)
		}
		if got := EncodeRequest(r); !bytes.Equal(got, b) {
			t.Errorf("%s: encoded again as\n%s\nnot as\n%s", name, got, b)
		}
	}
}

func TestHTTPGolden(t *testing.T) {
	t.Parallel()
	for name, v := range httpBodies {
		var b bytes.Buffer
		appendJSON(&b, v)
		golden(t, "testdata/http/"+name+".json", b.Bytes())
	}
	sameNames(t, "http", httpBodies)
	for name, b := range testFiles(t, "http") {
		want := httpBodies[name]
		var got any
		var err error
		switch {
		case strings.HasPrefix(name, "post") && name != "posted":
			got, err = DecodePost(b)
		case name == "event_post":
			got, err = DecodeEvent(b)
		case strings.HasPrefix(name, "put"):
			got, err = DecodeState(b)
		default:
			got = reflect.New(reflect.TypeOf(want).Elem()).Interface()
			err = json.Unmarshal(b, got)
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: decoded as %+v, %v, not %+v", name, got, err, want)
		}
	}
}

// A receiver ignores what it does not know: messages of later versions decode as
// what this version knows of them, or as nothing.
func TestFutureMessages(t *testing.T) {
	t.Parallel()
	for name, b := range testFiles(t, "future") {
		m, err := Decode(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := []byte("ignored")
		if m != nil {
			got = Encode(m)
		}
		golden(t, "testdata/future/"+name+".want", got)
	}
}

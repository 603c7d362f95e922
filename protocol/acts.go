package protocol

import (
	"encoding/json"
	"slices"
	"unicode/utf8"
)

// Acts are what moderators do, and what users do about themselves: take back a comment of their
// own, acknowledge a warning.

// The types of acts, as requests have them and as they are stored.
const (
	TypeRemove = "remove" // comments
	TypeClear  = "clear"  // all comments up to now, or all of a user
	TypeMute   = "mute"   // a user may not comment
	TypeUnmute = "unmute"
	TypeBan    = "ban" // a user may not come
	TypeUnban  = "unban"
	TypeWarn   = "warn"  // a user is to acknowledge something before the next comment
	TypeTrust  = "trust" // a user may comment in the mode known
	TypeUndo   = "undo"  // an act does not count any more
	TypeSweep  = "sweep" // what a dry run has found is hidden, and its authors may not comment
	TypeNote   = "note"  // about a user, for the staff
	TypeAck    = "ack"   // the answer to a warning
	TypeSet    = "set"   // a change of the state
)

// Limits of acts.
const (
	MaxActIDs  = 1000                                // comments that one act removes
	MaxReason  = 200                                 // code points
	MaxActMS   = 10 * 366 * 24 * int64(60*60*1000)   // how long an act may last that ends
	MaxQuietMS = int64(60 * 60 * 1000)               // the same of one that its user is not told of
	MaxActBody = MaxActIDs*(MaxID+len(`"",`)) + 5576 // bytes of a request: 24 KiB
	minActMS   = 1000
)

// UntilBroadcast is the end of an act that ends with the broadcast.
const UntilBroadcast = "broadcast"

// ActRequest asks for an act.
type ActRequest struct {
	Type   string   `json:"-"` // one of the types above but set
	Ref    string   `json:"ref,omitempty"`
	IDs    []string `json:"ids,omitempty"`    // remove: of comments
	User   string   `json:"user,omitempty"`   // whom it concerns; clear: left out for everybody
	Act    string   `json:"act,omitempty"`    // undo, ack: the act
	ForMS  int64    `json:"for_ms,omitempty"` // how long; left out: until Until, or for good
	Until  string   `json:"until,omitempty"`  // UntilBroadcast, or left out
	Reason string   `json:"reason,omitempty"` // which the user is told
	// Quiet, of a mute: its user goes on seeing their own comments, and is told nothing.
	Quiet    bool `json:"quiet,omitempty"`
	Clear    bool `json:"clear,omitempty"`     // mute, ban: the user's comments up to now go too
	AllRooms bool `json:"all_rooms,omitempty"` // mute, ban, unmute, unban: in all rooms
	// Sweep is the id of a dry run. Sure says that more than a fifth of those who speak may be among its users.
	Sweep string `json:"sweep,omitempty"`
	Sure  bool   `json:"sure,omitempty"`
	Spare bool   `json:"spare,omitempty"` // sweep: nobody is muted
	Text  string `json:"text,omitempty"`  // of a note
}

func (r *ActRequest) requestType() string { return r.Type }

// SetRequest asks to change the room's state.
type SetRequest struct {
	Ref   string          `json:"ref,omitempty"`
	Rev   *uint64         `json:"rev,omitempty"` // that the state must have; nil: any
	State json.RawMessage `json:"state"`         // a merge patch: see [DecodePatch]
}

func (*SetRequest) requestType() string { return TypeSet }

// Removed tells of comments to take off the screen: those with IDs, all of User so far, or All so
// far.
type Removed struct {
	IDs  []string `json:"ids,omitempty"`
	User string   `json:"user,omitempty"`
	All  bool     `json:"all,omitempty"`
	// Reload says that too much was removed to be told: the list is to be loaded again.
	Reload bool `json:"reload,omitempty"`
}

// Restored brings comments back that were removed. They are for lists, and do not fly again.
type Restored struct {
	Items  []Comment `json:"items"`
	Events []Event   `json:"events,omitempty"` // without cursors
}

func (*Removed) messageType() string  { return TypeRemoved }
func (*Restored) messageType() string { return TypeRestored }

// AppendRestored appends a restored message with items and events that are encoded already.
func AppendRestored(dst []byte, items, events [][]byte) []byte {
	dst = append(appendList(append(dst, `{"type":"restored","items":[`...), items), ']')
	if len(events) > 0 {
		dst = append(appendList(append(dst, `,"events":[`...), events), ']')
	}
	return append(dst, '}')
}

// Blocked says why somebody may not comment now.
type Blocked struct {
	Code    ErrorCode `json:"code"`
	Message string    `json:"message"`
	RetryMS int64     `json:"retry_ms,omitempty"` // how long it lasts; 0: not known, or for good
	Sanction
}

// Sanction is what somebody is told of an act that concerns them.
type Sanction struct {
	Act       string `json:"act,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Ends      int64  `json:"ends,omitempty"`       // Unix milliseconds; 0: not known, or never
	AppealURL string `json:"appeal_url,omitempty"` // where to object to it
}

// ActDone is the answer to POST /v1/rooms/{room}/acts.
type ActDone struct {
	Act    string `json:"act,omitempty"`    // its id; left out when there was nothing to do
	Cursor string `json:"cursor,omitempty"` // whoever has passed it is not shown what the act hides
}

// Deleted is the answer to DELETE /v1/rooms/{room}.
type Deleted struct {
	Room    string   `json:"room"`
	Deleted []string `json:"deleted"` // what was, in words
	Remains []string `json:"remains"` // what remains where, and for how long
}

// DecodeAct decodes the body of POST /v1/rooms/{room}/acts: a request as a connection would send
// it. Its error is an *[Error].
func DecodeAct(p []byte) (*ActRequest, error) {
	r, err := DecodeRequest(p)
	if err != nil {
		return nil, err
	}
	act, is := r.(*ActRequest)
	if !is {
		return nil, bad("type must be the type of an act, such as remove, mute or undo")
	}
	return act, nil
}

// ActTypes lists the types of acts.
func ActTypes() []string {
	return []string{TypeRemove, TypeClear, TypeMute, TypeUnmute, TypeBan, TypeUnban, TypeWarn, TypeTrust, TypeUndo, TypeAck, TypeSweep, TypeNote}
}

// isAct reports whether a type is that of an act.
func isAct(typ string) bool { return slices.Contains(ActTypes(), typ) }

// decodeAct reads the fields that an act of a type has, and no others.
func decodeAct(p []byte, typ, ref string) (*ActRequest, *Error) {
	a := &ActRequest{Type: typ, Ref: ref}
	fields := []field{{name: "reason", into: &a.Reason, want: wantString}}
	user := field{name: "user", into: &a.User, want: wantString}
	lasting := []field{
		{name: "for_ms", into: &a.ForMS, want: wantWhole},
		{name: "until", into: &a.Until, want: wantString},
	}
	all := field{name: "all_rooms", into: &a.AllRooms, want: wantBool}
	wipe := field{name: "clear", into: &a.Clear, want: wantBool}
	switch typ {
	case TypeRemove:
		fields = append(fields, field{name: "ids", into: &a.IDs, want: "a list of ids of comments"})
	case TypeClear:
		fields = append(fields, user)
	case TypeMute:
		fields = append(append(fields, user, all, wipe, field{name: "quiet", into: &a.Quiet, want: wantBool}), lasting...)
	case TypeBan:
		fields = append(append(fields, user, all, wipe), lasting...)
	case TypeWarn, TypeTrust:
		fields = append(append(fields, user), lasting...)
	case TypeUnmute, TypeUnban:
		fields = append(fields, user, all)
	case TypeSweep:
		fields = append(append(fields, field{name: "sweep", into: &a.Sweep, want: wantString}, field{name: "sure", into: &a.Sure, want: wantBool},
			field{name: "spare", into: &a.Spare, want: wantBool}), lasting...)
	case TypeNote:
		fields = append(fields, user, field{name: "text", into: &a.Text, want: wantString})
	case TypeUndo, TypeAck:
		fields = append(fields, field{name: "act", into: &a.Act, want: wantString})
	}
	if err := readFields(p, "", fields...); err != nil {
		return nil, err
	}
	return a, a.check()
}

func (a *ActRequest) check() *Error {
	switch a.Type {
	case TypeRemove:
		if len(a.IDs) == 0 || len(a.IDs) > MaxActIDs {
			return bad("ids must be a list of 1 to %d ids of comments", MaxActIDs)
		}
		for _, id := range a.IDs {
			if !ValidID(id) {
				return bad("ids must be ids of comments, not %.20q", id)
			}
		}
	case TypeClear:
	case TypeUndo, TypeAck:
		if !isToken(a.Act, MaxActID) {
			return bad("act must be the id of an act")
		}
	case TypeSweep:
		if !isToken(a.Sweep, MaxActID) {
			return bad("sweep must be the id of a dry run")
		}
		if a.Spare && (a.ForMS != 0 || a.Until != "") {
			return bad("spare mutes nobody: for_ms and until are of no use")
		}
	default:
		if a.User == "" {
			return bad("user is missing")
		}
		if n := utf8.RuneCountInString(a.Text); a.Type == TypeNote && (n == 0 || n > MaxNote) {
			return bad("text must be a string of 1 to %d characters", MaxNote)
		}
	}
	switch {
	case len(a.User) > MaxAnyUser:
		return bad("user must be a string of at most %d bytes", MaxAnyUser)
	case utf8.RuneCountInString(a.Reason) > MaxReason:
		return bad("reason must be a string of at most %d characters", MaxReason)
	case a.ForMS != 0 && (a.ForMS < minActMS || a.ForMS > MaxActMS):
		return bad("for_ms must be a whole number of milliseconds from %d to %d", minActMS, MaxActMS)
	case a.Until != "" && a.Until != UntilBroadcast:
		return bad("until must be %s, not %.20q", UntilBroadcast, a.Until)
	case a.Until != "" && a.ForMS != 0:
		return bad("for_ms and until exclude each other")
	case a.AllRooms && a.Until != "":
		return bad("all_rooms and until exclude each other: each room has its own broadcast")
	case a.Quiet && (a.ForMS == 0 || a.ForMS > MaxQuietMS):
		return bad("quiet takes for_ms of at most %d", MaxQuietMS)
	case a.Quiet && a.Clear:
		return bad("quiet and clear exclude each other: the user would notice")
	}
	return nil
}

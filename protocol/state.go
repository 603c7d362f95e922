package protocol

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// State is the room's state; a newer one replaces an older one whole.
type State struct {
	Rev    uint64 `json:"rev"`    // grows with every change; 0: never set
	Status string `json:"status"` // one of the statuses below; receivers take others for live
	Title  string `json:"title,omitempty"`
	// Broadcast counts the broadcasts of the room: a change that makes it live begins the next.
	// 0: none has begun so.
	Broadcast int64 `json:"broadcast,omitempty"`
	// BeganAt and EndedAt are when the last broadcast began and ended, Unix milliseconds; 0: that is not known, or it
	// runs.
	BeganAt int64 `json:"began_at,omitempty"`
	EndedAt int64 `json:"ended_at,omitempty"`
	// Timed is the broadcast that these are of. A node of an earlier version leaves them as they are when it begins the
	// next one.
	Timed int64 `json:"timed,omitempty"`
	// Members says that the audience may list who is in the room.
	Members bool `json:"members,omitempty"`

	StartsAt      int64  `json:"starts_at,omitempty"` // when it is to begin, Unix milliseconds
	MediaURL      string `json:"media_url,omitempty"` // of the programme
	MediaOffsetMS int64  `json:"media_offset_ms,omitempty"`
	Notice        string `json:"notice,omitempty"` // for everybody, above the comments
	Pin           *Pin   `json:"pin,omitempty"`

	Mode      string `json:"mode,omitempty"`       // who may comment: one of the modes below; empty: open
	KnownMS   int64  `json:"known_ms,omitempty"`   // of the mode known: how long one must be known; 0: a day
	SlowMS    int64  `json:"slow_ms,omitempty"`    // the least time between two comments of a user
	DelayMS   int64  `json:"delay_ms,omitempty"`   // how far the audience is behind
	Links     string `json:"links,omitempty"`      // LinksNone, or empty: comments may have them
	EarlyChat *bool  `json:"early_chat,omitempty"` // false: no comments before the start
	Text      int    `json:"text,omitempty"`       // code points of a viewer's comment; 0: as many as the node takes
	Count     *bool  `json:"count,omitempty"`      // false: the audience is not told how many are here
	KeepMS    int64  `json:"keep_ms,omitempty"`    // how long comments are kept; 0: as long as the log keeps any
	Watch     string `json:"watch,omitempty"`      // what is kept of who watches: one of the values below; empty: what the node says

	// Shield lays a preset over Mode, SlowMS, Links and DelayMS: of each the stricter one counts.
	Shield bool `json:"shield,omitempty"`
	// ShieldPreset is the room's own preset; nil: [DefaultShield].
	ShieldPreset *Layer `json:"shield_preset,omitempty"`
	// Under is what these fields are without the shield, while it is on; no part of the document.
	Under *Layer `json:"under,omitempty"`

	Data json.RawMessage `json:"data,omitempty"` // the owner's own

	// Degraded says that this node cannot follow the room's log at the moment:
	// comments may be late.
	Degraded bool `json:"degraded,omitempty"`
}

// Pin is what stands above the comments: a comment, or a text.
type Pin struct {
	Comment *Comment `json:"comment,omitempty"`
	Text    string   `json:"text,omitempty"`
}

// The statuses of a room. A room that was never set is live.
const (
	StatusScheduled = "scheduled"
	StatusLive      = "live"
	StatusEnded     = "ended"
)

// The modes of a room: who may comment. The staff always may.
const (
	ModeOpen    = "open"    // everybody whom the node lets
	ModeUsers   = "users"   // no guests
	ModeMembers = "members" // those whose token says that they are members
	ModeKnown   = "known"   // those who were first seen here some time ago, or whom the staff trusts
	ModeLocked  = "locked"  // nobody
)

// What is kept of who watches a room.
const (
	WatchOff    = "off"    // nothing
	WatchTotals = "totals" // how many, and for how long; not who
	WatchUsers  = "users"  // who, from when to when
)

// ValidWatch reports whether s says what is kept of who watches.
func ValidWatch(s string) bool { return s == WatchOff || s == WatchTotals || s == WatchUsers }

// Layer is the fields of a state that a shield lays something over.
type Layer struct {
	Mode    string `json:"mode,omitempty"`
	SlowMS  int64  `json:"slow_ms,omitempty"`
	Links   string `json:"links,omitempty"`
	DelayMS int64  `json:"delay_ms,omitempty"`
}

// DefaultShield is the preset of a room that has none of its own.
func DefaultShield() Layer { return Layer{Mode: ModeKnown, SlowMS: 10_000, Links: LinksNone} }

// strictness is the place of a mode among them, from the widest to the strictest, which those are taken for that this
// version does not know.
func strictness(mode string) int {
	modes := []string{"", ModeUsers, ModeKnown, ModeMembers, ModeLocked}
	switch i := slices.Index(modes, mode); {
	case mode == ModeOpen:
		return 0
	case i >= 0:
		return i
	}
	return len(modes)
}

// Shielded returns the state with the layer of its shield, if that is on: the fields are what counts then, and
// Under is what they are without it.
func (s State) Shielded() State {
	if !s.Shield {
		return s
	}
	under, over := Layer{s.Mode, s.SlowMS, s.Links, s.DelayMS}, DefaultShield()
	if s.ShieldPreset != nil {
		over = *s.ShieldPreset
	}
	if strictness(over.Mode) > strictness(under.Mode) {
		s.Mode = over.Mode
	}
	if over.Links != "" {
		s.Links = over.Links
	}
	s.SlowMS, s.DelayMS, s.Under = max(s.SlowMS, over.SlowMS), max(s.DelayMS, over.DelayMS), &under
	return s
}

// LinksNone says that comments of viewers may have no links.
const LinksNone = "none"

// ValidStatus reports whether s is one of the statuses of a room.
func ValidStatus(s string) bool {
	return s == StatusScheduled || s == StatusLive || s == StatusEnded
}

// minKeepMS is the shortest time for which a room keeps its comments.
const minKeepMS = 60_000

// The document of a room's state outlives the version of the node that wrote it: a node hands
// on what it does not know of it, and leaves it there when it changes the rest.

// stateFields are the fields of the document that this version knows, and those of its message.
var stateFields = []string{
	"type", "rev", "status", "title", "broadcast", "began_at", "ended_at", "timed", "members", "starts_at", "media_url", "media_offset_ms", "notice", "pin",
	"mode", "known_ms", "slow_ms", "delay_ms", "links", "early_chat", "text", "count", "keep_ms", "watch", "shield", "shield_preset",
	"under", "data", "degraded",
}

// notKept are those of them that are no part of the document.
var notKept = []string{"type", "rev", "under", "degraded"}

// deletedField marks the document of a room that was deleted.
const deletedField = "deleted"

// DeletedState is the document of a room that was deleted: it is as if it had never been set.
var DeletedState = []byte(`{"status":"ended","deleted":true}`)

// IsDeleted reports whether a document is that of a room that was deleted.
func IsDeleted(doc []byte) bool {
	var d struct {
		Deleted bool `json:"deleted"`
	}
	return json.Unmarshal(doc, &d) == nil && d.Deleted
}

// EncodeState encodes the message of a room's state: what s says, and from doc, the document
// that it was read from, all that this version does not know. doc may be nil, or no JSON
// object.
func EncodeState(doc []byte, s State) []byte { return withUnknown(doc, Encode(&s)) }

// EncodeRoomState is EncodeState without the type: the state as HTTP answers have it.
func EncodeRoomState(doc []byte, s State) json.RawMessage {
	var b bytes.Buffer
	appendJSON(&b, &s)
	return withUnknown(doc, b.Bytes())
}

// MergeState returns the document that takes the place of doc: doc with the fields of a patch, less
// those that are null in it (RFC 7396, for the fields of the document itself). One that makes the room live begins
// its next broadcast, and one that ends that says so; at is when that is, Unix milliseconds. A patch that is no object is
// returned as it is.
func MergeState(doc, patch []byte, at int64) []byte {
	var fields, change map[string]json.RawMessage
	if json.Unmarshal(patch, &change) != nil || change == nil {
		return patch
	}
	if json.Unmarshal(doc, &fields) != nil || fields == nil {
		fields = map[string]json.RawMessage{}
	}
	var before, after State
	_ = json.Unmarshal(doc, &before) // nothing, or what cannot be read: no broadcast has begun
	if IsDeleted(doc) {              // but its broadcasts are counted on
		kept := []string{"broadcast", "began_at", "ended_at", "timed"}
		maps.DeleteFunc(fields, func(name string, _ json.RawMessage) bool { return !slices.Contains(kept, name) })
		before.Status = ""
	}
	for name, value := range change {
		if string(value) == "null" {
			delete(fields, name)
		} else {
			fields[name] = value
		}
	}
	for _, name := range notKept {
		delete(fields, name)
	}
	if value, ok := fields["status"]; ok {
		_ = json.Unmarshal(value, &after.Status)
	}
	number := func(name string, n int64) { fields[name], _ = json.Marshal(n) } // which cannot fail
	switch live := after.Status == StatusLive; {
	case live && before.Status != StatusLive:
		number("broadcast", before.Broadcast+1)
		number("timed", before.Broadcast+1)
		number("began_at", at)
		delete(fields, "ended_at")
	case !live && before.Status == StatusLive && before.Broadcast > 0:
		if before.Timed != before.Broadcast { // when it began is not known
			number("timed", before.Broadcast)
			delete(fields, "began_at")
		}
		number("ended_at", at)
	}
	var b bytes.Buffer
	appendJSON(&b, fields)
	return b.Bytes()
}

// PutPatch is the patch that PUT /v1/rooms/{room} stands for: it replaces the fields that the first
// version had, and leaves all others.
func PutPatch(s *State) []byte {
	fields := map[string]any{"status": s.Status, "title": nil, "members": nil}
	if s.Title != "" {
		fields["title"] = s.Title
	}
	if s.Members {
		fields["members"] = true
	}
	var b bytes.Buffer
	appendJSON(&b, fields)
	return b.Bytes()
}

// Patch is a change of a room's state.
type Patch struct {
	Rev    *uint64                    // that the state must have; nil: any
	Fields map[string]json.RawMessage // what changes; null: goes
}

// Encode is the patch as [MergeState] takes it. The same changes are the same bytes.
func (p *Patch) Encode() []byte {
	var b bytes.Buffer
	appendJSON(&b, p.Fields)
	return b.Bytes()
}

// Set sets a field to v.
func (p *Patch) Set(name string, v any) {
	var b bytes.Buffer
	appendJSON(&b, v)
	p.Fields[name] = b.Bytes()
}

// Text returns a field that is a string; false when the patch does not have it.
func (p *Patch) Text(name string) (string, bool) {
	var s string
	value, ok := p.Fields[name]
	return s, ok && string(value) != "null" && json.Unmarshal(value, &s) == nil && s != ""
}

func decodeSet(p []byte, ref string) (*SetRequest, *Error) {
	s := &SetRequest{Ref: ref}
	if err := readFields(p, "",
		field{name: "rev", into: &s.Rev, want: wantRev},
		field{name: "state", into: &s.State, want: wantObject},
	); err != nil {
		return nil, err
	}
	if s.State == nil || s.State[0] != '{' {
		return nil, bad("state must be %s", wantObject)
	}
	return s, nil
}

const wantRev = "a whole number, 0 or more"

// DecodePatch decodes the body of PATCH /v1/rooms/{room}, and the state of a [SetRequest]: the
// fields of a [State] that are to change. Those that this version does not know, and those that
// only the server sets, are left out. The lengths of texts are not judged here. Its error is an *[Error].
func DecodePatch(p []byte) (*Patch, error) {
	patch, err := decodePatch(p)
	if err != nil {
		return nil, err
	}
	return patch, nil
}

func decodePatch(p []byte) (*Patch, *Error) {
	if err := checkObject(p); err != nil {
		return nil, err
	}
	patch := &Patch{Fields: map[string]json.RawMessage{}}
	seen := map[string]bool{}
	for name, value := range members(p) {
		name := string(name)
		switch {
		case name == "broadcast" || name == "began_at" || name == "ended_at" || name == "timed" || name == "under" || name == "degraded" || name == "type" || !slices.Contains(stateFields, name):
			continue
		case seen[name]:
			return nil, bad("%s appears twice", name)
		}
		seen[name] = true
		if name == "rev" {
			if !readValue(&patch.Rev, value) {
				return nil, bad("rev must be %s", wantRev)
			}
			continue
		}
		if want := wrongField(name, value); want != "" {
			return nil, bad("%s must be %s", name, want)
		}
		patch.Fields[name] = slices.Clone(value) // p may be a buffer, which is used again
	}
	for name, value := range patch.Fields {
		if isDefault(name, value) {
			patch.Fields[name] = json.RawMessage("null")
		}
	}
	if string(patch.Fields["status"]) == "null" {
		return nil, bad("status must be %s", wantStatus)
	}
	return patch, nil
}

const (
	wantStatus = "scheduled, live or ended"
	wantPin    = `an object: {"id":"…"} of a comment, or {"text":"…"}`
)

// wrongField says what a field of the state must be; empty when it is that, or null.
func wrongField(name string, value json.RawMessage) string {
	if string(value) == "null" {
		return ""
	}
	text := func(want string, ok func(string) bool) string {
		var s string
		if value[0] != '"' || !readValue(&s, value) || !ok(s) {
			return want
		}
		return ""
	}
	anyText := func(string) bool { return true }
	number := func(want string, least, most int64) string {
		var n int64
		if !readValue(&n, value) || n != 0 && n < least || n > most {
			return want
		}
		return ""
	}
	switch name {
	case "status":
		return text(wantStatus, ValidStatus)
	case "title", "notice":
		return text(wantString, anyText)
	case "mode":
		return text("open, users, members, known or locked", func(s string) bool {
			return slices.Contains([]string{"", ModeOpen, ModeUsers, ModeMembers, ModeKnown, ModeLocked}, s)
		})
	case "watch":
		return text("off, totals or users, or left out", func(s string) bool { return s == "" || ValidWatch(s) })
	case "links":
		return text("none, or left out", func(s string) bool { return s == "" || s == LinksNone })
	case "media_url":
		return text("an address that begins with https:// or http://, of at most 2000 bytes", validMedia)
	case "members", "early_chat", "count", "shield":
		var b bool
		if !readValue(&b, value) {
			return wantBool
		}
	case "starts_at":
		return number("a time in Unix milliseconds", 0, MaxMediaMS)
	case "media_offset_ms":
		return number("a whole number of milliseconds", -MaxMediaMS, MaxMediaMS)
	case "slow_ms":
		return number("a whole number of milliseconds from 0 to 300000", 0, MaxSlowMS)
	case "delay_ms":
		return number("a whole number of milliseconds from 0 to 60000", 0, MaxDelayMS)
	case "known_ms":
		return number("a whole number of milliseconds, 0 or more", 0, MaxMediaMS)
	case "text":
		return number("a whole number of characters from 1 to 7500, or 0", 1, MaxText)
	case "keep_ms":
		return number("a whole number of milliseconds, at least 60000, or 0", minKeepMS, MaxMediaMS)
	case "pin":
		return wrongPin(value)
	case "shield_preset":
		return wrongPreset(value)
	case "data":
		if len(value) > MaxData {
			return "JSON of at most 4096 bytes"
		}
	}
	return ""
}

// wrongPreset says what a preset must be. It has the fields of a [Layer], which must be what they are in a state.
func wrongPreset(value json.RawMessage) string {
	want := "an object of mode, slow_ms, links and delay_ms"
	if value[0] != '{' {
		return want
	}
	seen := map[string]bool{}
	for name, field := range members(value) {
		name := string(name)
		if seen[name] || !slices.Contains([]string{"mode", "slow_ms", "links", "delay_ms"}, name) {
			return want
		}
		seen[name] = true
		if wrong := wrongField(name, field); wrong != "" {
			return want + "; " + name + " " + wrong
		}
	}
	return ""
}

func wrongPin(value json.RawMessage) string {
	if value[0] != '{' {
		return wantPin
	}
	var id, text string
	if readFields(value, "pin.", field{name: "id", into: &id, want: wantString}, field{name: "text", into: &text, want: wantString}) != nil {
		return wantPin
	}
	if (id == "") == (text == "") || id != "" && !ValidID(id) {
		return wantPin
	}
	return ""
}

// PinOf reads a pin out of a patch: the id of a comment, or a text; both are empty if the patch
// has none.
func (p *Patch) PinOf() (id, text string) {
	var pin struct{ ID, Text string }
	_ = json.Unmarshal(p.Fields["pin"], &pin) // wrongPin has read it
	return pin.ID, pin.Text
}

func validMedia(s string) bool {
	if s == "" {
		return true
	}
	u, err := url.Parse(s)
	return err == nil && len(s) <= MaxURL && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" &&
		strings.IndexFunc(s, func(r rune) bool { return r <= ' ' }) < 0
}

// isDefault reports whether a field says the same as one that is left out.
func isDefault(name string, value json.RawMessage) bool {
	switch string(value) {
	case `""`, `0`:
		return name != "status" && name != "data"
	case `false`:
		return name == "members" || name == "shield"
	case `true`:
		return name == "early_chat" || name == "count"
	case `"open"`:
		return name == "mode"
	}
	return false
}

// withUnknown adds to an object those fields of doc that this version does not know and the
// object has not. What is no object is returned as it is.
func withUnknown(doc, object []byte) []byte {
	var more, has map[string]json.RawMessage
	if json.Unmarshal(doc, &more) != nil || json.Unmarshal(object, &has) != nil || len(has) == 0 {
		return object
	}
	for _, name := range stateFields {
		delete(more, name)
	}
	for name := range has {
		delete(more, name)
	}
	delete(more, deletedField)
	if len(more) == 0 {
		return object
	}
	var b bytes.Buffer
	b.Write(object[:len(object)-1])
	b.WriteByte(',')
	head := b.Len()
	appendJSON(&b, more)
	out := b.Bytes()
	copy(out[head:], out[head+1:]) // without the brace
	return out[:len(out)-1]
}

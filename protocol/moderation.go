package protocol

import (
	"encoding/json"
	"unicode/utf8"
)

// This file has the log of moderation, what the staff know of a user, and sweeps.

// Limits of sweeps and notes.
const (
	MaxNote      = 1000              // code points
	MaxSweepText = 100               // code points
	MaxSweepMS   = 60 * 60 * 1000    // how far back a sweep looks
	MaxFresh     = 366 * 24 * 3600e3 // newcomers_ms
	// SureShare is the share of a room's recent authors above which a sweep takes sure.
	SureShare = 0.2
)

// TypeModeration is the type of what the staff are told of an act as it is done.
const TypeModeration = "moderation"

// Entry is an act in the log of moderation.
type Entry struct {
	Act    string `json:"act"`
	Type   string `json:"type"` // of the act
	By     User   `json:"by"`
	At     int64  `json:"at"`             // Unix milliseconds
	User   *User  `json:"user,omitempty"` // whom it concerns
	Reason string `json:"reason,omitempty"`
	Text   string `json:"text,omitempty"` // of a note
	// IDs are the comments that it hides, up to [EntryIDs] of them; Comments is how many they are.
	IDs      []string `json:"ids,omitempty"`
	Comments int      `json:"comments,omitempty"`
	// Users is how many a sweep mutes.
	Users    int    `json:"users,omitempty"`
	Ends     int64  `json:"ends,omitempty"`  // Unix milliseconds; 0: until Until, or for good
	Until    string `json:"until,omitempty"` // [UntilBroadcast]
	Quiet    bool   `json:"quiet,omitempty"`
	Clear    bool   `json:"clear,omitempty"`
	AllRooms bool   `json:"all_rooms,omitempty"`
	From     string `json:"from,omitempty"` // the act for all rooms that it carries out here
	// Sweep is what a sweep was to find.
	Sweep  *SweepQuery `json:"sweep,omitempty"`
	Undone *Undone     `json:"undone,omitempty"`
}

// Changed is when an act was done or undone last, Unix milliseconds.
func (e *Entry) Changed() int64 {
	if e.Undone != nil {
		return max(e.At, e.Undone.At)
	}
	return e.At
}

// Undone says who has undone an act, and when.
type Undone struct {
	Act string `json:"act"` // that undoes it
	By  User   `json:"by"`
	At  int64  `json:"at"` // Unix milliseconds
}

// EntryIDs is how many ids of comments an entry names.
const EntryIDs = 100

// ModerationLog is the answer to GET /v1/rooms/{room}/moderation: those that were done or undone last first.
type ModerationLog struct {
	Entries []Entry `json:"entries"`
	Cursor  string  `json:"cursor,omitempty"` // of the next page; empty: there is none
}

// Moderation tells the staff of an act that was just done, or undone.
type Moderation struct {
	Entry Entry `json:"entry"`
}

func (*Moderation) messageType() string { return TypeModeration }

// Person is the answer to GET /v1/rooms/{room}/users/{user}: what the staff of a room may know of somebody.
type Person struct {
	User      User  `json:"user"`
	FirstSeen int64 `json:"first_seen,omitempty"` // in the room, Unix milliseconds; left out when that is not known
	Since     int64 `json:"since,omitempty"`      // when they came, Unix milliseconds; left out when they are not there
	Devices   int   `json:"devices"`              // connections
	// Comments are their last ones, the latest first; events of the application are among them.
	Comments []PastComment `json:"comments"`
	Acts     []Entry       `json:"acts"` // about them, notes too, the latest first
	// Partial says that more was said in the room lately than was looked through.
	Partial bool `json:"partial,omitempty"`
}

// PastComment is a comment, and whether it is hidden.
type PastComment struct {
	Comment
	Event   string `json:"event,omitempty"` // it is one of the application, of this name
	Removed bool   `json:"removed,omitempty"`
}

// SweepQuery says what a sweep is to find: of the last LastMS, what is by any of those named (anybody, if
// nobody is named) and has all that is asked of it.
type SweepQuery struct {
	LastMS int64 `json:"last_ms"`
	// By guests, by those who were first seen in the room less than NewcomersMS ago, from the address of a user.
	Guests      bool   `json:"guests,omitempty"`
	NewcomersMS int64  `json:"newcomers_ms,omitempty"`
	SameAddress string `json:"same_address_as,omitempty"`
	// It has this text, whatever case, width, accents, spaces and signs it is written with; it has a link.
	Text  string `json:"text,omitempty"`
	Links bool   `json:"links,omitempty"`
}

// Sweep is the answer to POST /v1/rooms/{room}/sweeps, a dry run: what a sweep would hide, and whom it would mute.
type Sweep struct {
	Sweep    string `json:"sweep"` // its id, for the act
	Ends     int64  `json:"ends"`  // until when the act may cite it, Unix milliseconds
	Comments int    `json:"comments"`
	Users    int    `json:"users"`
	// Of is how many have said something in that time, the staff aside; Sure says that Users are more than a
	// fifth of them, so that the act takes sure.
	Of      int       `json:"of"`
	Sure    bool      `json:"sure,omitempty"`
	Samples []Comment `json:"samples"`
	// Partial says that there is more than one sweep takes, or than was looked through: the latest were taken.
	Partial bool `json:"partial,omitempty"`
	// Unknown is how many of the authors looked at may be newcomers, which nobody knows: they were left.
	Unknown int `json:"unknown,omitempty"`
}

// SweepSamples is how many samples a dry run shows.
const SweepSamples = 20

// DecodeSweep decodes the body of POST /v1/rooms/{room}/sweeps. Its error is an *[Error].
func DecodeSweep(p []byte) (*SweepQuery, error) {
	if err := checkObject(p); err != nil {
		return nil, err
	}
	q := new(SweepQuery)
	if err := readFields(p, "",
		field{name: "last_ms", into: &q.LastMS, want: wantWhole},
		field{name: "guests", into: &q.Guests, want: wantBool},
		field{name: "newcomers_ms", into: &q.NewcomersMS, want: wantWhole},
		field{name: "same_address_as", into: &q.SameAddress, want: wantString},
		field{name: "text", into: &q.Text, want: wantString},
		field{name: "links", into: &q.Links, want: wantBool},
	); err != nil {
		return nil, err
	}
	switch {
	case q.LastMS < 1000 || q.LastMS > MaxSweepMS:
		return nil, bad("last_ms must be a whole number of milliseconds from 1000 to %d", MaxSweepMS)
	case q.NewcomersMS != 0 && (q.NewcomersMS < 1000 || q.NewcomersMS > MaxFresh):
		return nil, bad("newcomers_ms must be a whole number of milliseconds from 1000 to %d", int64(MaxFresh))
	case len(q.SameAddress) > MaxAnyUser:
		return nil, bad("same_address_as must be a string of at most %d bytes", MaxAnyUser)
	case utf8.RuneCountInString(q.Text) > MaxSweepText:
		return nil, bad("text must be a string of at most %d characters", MaxSweepText)
	case !q.Guests && q.NewcomersMS == 0 && q.SameAddress == "" && q.Text == "" && !q.Links:
		return nil, bad("a sweep looks for something: guests, newcomers_ms, same_address_as, text or links")
	}
	return q, nil
}

// ModerationQuery is what GET /v1/rooms/{room}/moderation is asked for.
type ModerationQuery struct {
	Cursor   string // empty: from the latest on
	Limit    int    // 1 to MaxModeration
	AllRooms bool   // the acts for all rooms
}

// MaxModeration is how many entries a page of the log of moderation has at most.
const MaxModeration = 200

// DecodeModerationQuery decodes the raw query of GET /v1/rooms/{room}/moderation. Its error is always an *[Error].
func DecodeModerationQuery(raw string) (*ModerationQuery, error) {
	q := ModerationQuery{Limit: 50}
	err := readQuery(raw, func(name, value string) *Error {
		switch name {
		case "limit":
			if err := readLimit(value, &q.Limit); err != nil {
				return err
			}
			q.Limit = min(q.Limit, MaxModeration)
		case "cursor":
			if !isToken(value, MaxListCursor) && value != "" {
				return bad("cursor must be what a page ended with, not %.20q", value)
			}
			q.Cursor = value
		case "all_rooms":
			if value != "1" && value != "0" {
				return bad("all_rooms must be 0 or 1, not %.20q", value)
			}
			q.AllRooms = value == "1"
		}
		return nil
	}, "limit", "cursor", "all_rooms")
	if err != nil {
		return nil, err
	}
	return &q, nil
}

// AppendModeration appends a moderation message.
func AppendModeration(dst []byte, e *Entry) []byte {
	p, err := json.Marshal(e)
	if err != nil { // strings, numbers and booleans
		return dst
	}
	return append(append(append(dst, `{"type":"moderation","entry":`...), p...), '}')
}

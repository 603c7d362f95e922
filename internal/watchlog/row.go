// Package watchlog keeps who watched which room from when to when: a by-product of the connections.
//
// On a node the [Tracker] holds a [View] for each viewer, and writes rows: when somebody has come, has hidden or shown the
// page, has gone, and once a minute whose rows go on as they were. They leave in batches, one for each room and second, into
// a stream of their own; nothing on the way of a viewer or a comment waits for it. A [Fold] puts the batches of a room
// together again, and [Shape] makes of that who watched a broadcast for how long, and how many there were when.
//
// Three times are told apart. Somebody is connected while there is a connection; the page is visible while it can be
// seen; and the programme is played while its position moves, as far as it moves.
package watchlog

import (
	"encoding/json"
	"fmt"
)

// Range is from when to when, Unix milliseconds of the log's clock.
type Range [2]int64

// Played is a stretch of the programme that was played: from when to when, and from which position of the programme to
// which, in milliseconds all of them.
type Played [4]int64

// for how long a stretch was played: as far as the position moved, but not longer than it took.
func (p Played) duration() int64 { return max(0, min(p[3]-p[2], p[1]-p[0])) }

// End says how a row ended.
type End string

// The ends of rows.
const (
	EndLeft    End = "left"      // the viewer has gone
	EndLost    End = "lost"      // the connection broke
	EndSilent  End = "silent"    // nothing was heard for long
	EndDrained End = "drained"   // the node sent everybody away
	EndBanned  End = "banned"    // by a moderator
	EndClosed  End = "closed"    // by the node, for another reason: its token ended, it was too slow, it broke the protocol
	EndOff     End = "off"       // the room keeps no watch log any more
	EndMore    End = "more"      // a next row of the same connection goes on
	EndDied    End = "node_died" // the node was not heard of again; only in what is shaped
	EndEnded   End = "ended"     // the broadcast ended before; only in what is shaped
)

// Row is what is known of a connection, or of a part of it: a later row of the same connection and number takes its place, until
// one has an end. Who it was is in the first row of a connection, and in rows that a node writes anew.
type Row struct {
	Conn    uint32   `json:"c"` // the number of the connection in its room, on its node
	N       int      `json:"n,omitempty"`
	User    string   `json:"user,omitempty"`
	Name    string   `json:"name,omitempty"`
	Session string   `json:"session,omitempty"` // a hash
	Device  string   `json:"device,omitempty"`
	Guest   bool     `json:"guest,omitempty"`
	Totals  bool     `json:"totals,omitempty"` // the user is a hash of the day: see docs/PRIVACY.md
	From    int64    `json:"from"`
	To      int64    `json:"to"`
	Visible []Range  `json:"visible,omitempty"`
	Played  []Played `json:"played,omitempty"`
	// Seen and Plays say that the last of these goes on until To, and as long as the row does.
	Seen  bool `json:"seen,omitempty"`
	Plays bool `json:"plays,omitempty"`
	End   End  `json:"end,omitempty"`
}

// Batch is what a node tells of the viewers of a room at a moment.
type Batch struct {
	Life string `json:"life"` // of the room on the node: another one after each start, and each time that nobody was there for a while
	N    uint64 `json:"n"`    // grows by one with each batch of that life about that room
	At   int64  `json:"at"`   // the moment
	// Rows are those that have changed.
	Rows []Row `json:"rows,omitempty"`
	// Same are the connections whose rows go on as they were, by their numbers: from each first one to its last one.
	Same [][2]uint32 `json:"same,omitempty"`
}

// ID is what tells a batch from all others: that of its message.
func (b *Batch) ID(room string) string { return fmt.Sprintf("%s/%s/%d", b.Life, room, b.N) }

// Encode encodes a batch.
func (b *Batch) Encode() []byte {
	p, err := json.Marshal(b)
	if err != nil {
		panic(err) // numbers, texts and lists of them
	}
	return p
}

// Decode decodes a batch. What its fields say is taken for what it is: see [Fold.Add].
func Decode(p []byte) (*Batch, error) {
	b := new(Batch)
	if err := json.Unmarshal(p, b); err != nil {
		return nil, fmt.Errorf("watchlog: a batch that cannot be read: %w", err)
	}
	if b.Life == "" || b.N == 0 {
		return nil, fmt.Errorf("watchlog: a batch without life or number")
	}
	return b, nil
}

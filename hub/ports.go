package hub

import (
	"cmp"
	"context"
	"errors"
	"math"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// This file holds what the hub needs from the rest of the world. Adapters
// implement it: the room log on NATS, the presence on Redis, sockets on TCP.

// Errors of a [RoomLog]. The first two leave it to the caller to try again with the
// same [Draft.ID].
var (
	// ErrUnavailable: the append is known not to have happened.
	ErrUnavailable = errors.New("hub: the room log is unavailable")
	// ErrUnknownOutcome: the append may have happened.
	ErrUnknownOutcome = errors.New("hub: the outcome of the append is unknown")
	// ErrConflict: a change of state was based on another revision.
	ErrConflict = errors.New("hub: the state has changed meanwhile")
	// ErrForgotten: the log cannot promise that it still has everything after a
	// position: it keeps events for a time only, or has another past, or is another
	// log by now.
	ErrForgotten = errors.New("hub: the room log does not reach back to the position")
)

// Position is a place in a room's log: that of a record, or, in a room that has none,
// that of the record with which the whole log ends. The time tells it from the records
// that bear the same sequence in another past of the log: one that was restored from a
// backup, or whose servers lost power before they had synced, gives sequences again.
type Position struct {
	Seq uint64 // grows within a room, with holes; 0: before everything
	At  int64  // when the record there was stored, the log's clock, Unix milliseconds; 0: not known
}

// EndSeq is, as the sequence of a position, the end of the log, whatever is there.
const EndSeq uint64 = math.MaxUint64

// Known reports whether a position can be looked for in a log: it has a time, or is the
// one before everything, which all pasts share.
func (p Position) Known() bool { return p.Seq == 0 || p.At > 0 }

func (p Position) compare(q Position) int { return cmp.Compare(p.Seq, q.Seq) }

// Anchor says what a log has at a [Position].
type Anchor uint8

// Anchors.
const (
	AnchorNone Anchor = iota // nothing: it is of another past, or was removed
	AnchorLog                // a record of another room, or the log's end
	AnchorRoom               // a record of the room
)

// Event is one record of a room's log, as the log gives it.
type Event struct {
	Seq      uint64 // position; grows within a room, with holes
	At       int64  // the log's clock, Unix milliseconds
	ID       string // of the draft that it was; empty when the record has none
	Kind     string
	Audience string
	// Rate is how many comments a second its room had when it was drafted; 0: few.
	// It is in the log so that which comments are shown depends on the log alone.
	Rate uint32
	// Origin is the same for all that somebody at one address has said in the room in a day; empty when
	// it is not known. See [RoomLog.Origin].
	Origin string
	Body   []byte // a JSON object, not empty; for a comment what protocol.EncodeBody makes
}

// Position is where the event is.
func (e *Event) Position() Position { return Position{e.Seq, e.At} }

// Page is a piece of a room's log that ends at a place.
type Page struct {
	Events []Event // oldest first; fewer than were read where records hold no event
	// From is the position of the first record that was read; its Seq is 0 when there was
	// none.
	From Position
	More bool // the log keeps records of the room before From
}

// Draft is an event before the log has taken it.
type Draft struct {
	ID       string // the same ID within two minutes is the same event; at most 64 bytes
	Kind     string
	Audience string
	Rate     uint32
	Origin   string
	Body     []byte
}

// Receipt says where the log has put a draft.
type Receipt struct {
	Seq uint64
	// Duplicate says that a draft with this ID was there already, at Seq.
	Duplicate bool
}

// State is the state of a room as the log keeps it: one record a room.
type State struct {
	Rev  uint64 // grows with every change, below 2⁵³; 0: never set
	Body []byte // a JSON document; nil when never set
}

// Standing is a record of a room that is kept apart from its log, because it is in force for longer
// than the log keeps events, an act, or is the latest of its kind, a lasting event. Its body is a [Record].
type Standing struct {
	ID   string // [A-Za-z0-9_.-]{1,64}
	Seq  uint64 // of the record; whoever replaces it names it. 0: there is none
	Body []byte // nil: it is of a schema that this node does not know
}

// RoomLog is the durable, ordered log of every room. Its methods may be called
// from any goroutine.
type RoomLog interface {
	// Append hands a draft to the log and returns without waiting for it: drafts
	// of one goroutine enter in the order of its calls as long as nothing has to
	// be tried again. done is called exactly once, from another goroutine and
	// within the log's append deadline; it must not block. Its error is
	// ErrUnavailable or ErrUnknownOutcome, possibly wrapped.
	Append(room string, d Draft, done func(Receipt, error))

	// Follow reports the events of a room to f until the Follow is stopped.
	// recent is how many of the latest events the first report should hold; it holds those that the
	// state's delay keeps from the audience besides.
	Follow(room string, recent int, f Follower) Follow

	// Read returns up to limit events of a room that come after a position in the log
	// of an epoch, oldest first, as of some time after the call began; more tells
	// whether the log holds further ones. Without an error none is missing: the error
	// is ErrForgotten, possibly wrapped, when the log may have removed some of them, and
	// when it has no such position.
	Read(ctx context.Context, room, epoch string, after Position, limit int) (events []Event, more bool, err error)

	// Before returns the last events of a room, up to limit of them, that come before a
	// position in the log of an epoch (empty: of the log as it is), with it or without it; those at
	// the log's end if the position's Seq is EndSeq. What was acknowledged before the call began is not missing.
	// There is at least one record in the answer if the log keeps any there, and when it
	// has removed them all none, without an error: whether it had the position nobody knows
	// by then. The error is ErrForgotten, possibly wrapped, when it has no such position.
	Before(ctx context.Context, room, epoch string, at Position, with bool, limit int) (Page, error)

	// Has asks the leader of the log of an epoch what it has at a position. The error is
	// not nil when the leader does not answer; a log of another epoch has AnchorNone.
	Has(ctx context.Context, room, epoch string, p Position) (Anchor, error)

	// Sure reports whether the log still has what was reported of a room, as far as that
	// can be known: not while its leader is not reached or seems to have lost its end, and
	// not from when it has until Reset has told of it. It returns at once.
	Sure(room string) bool

	// State reads, SetState changes the state of a room. SetState fails with
	// ErrConflict when the state's revision is another than rev, and returns the new
	// state, what [protocol.MergeState] makes of the one before and a patch. A change that was done is no conflict when it is tried again: the answer
	// is the revision that it made, even when others have followed, as long as the log
	// knows; then without Body.
	State(ctx context.Context, room string) (State, error)
	SetState(ctx context.Context, room string, rev uint64, patch []byte) (State, error)

	// Keep stores a standing record, in the place of the one whose Seq it bears, for a time (0: for
	// good), and returns it with its own Seq. Its error is [ErrConflict] when another one is there,
	// which it returns, or one of an append.
	Keep(ctx context.Context, room string, s Standing, life time.Duration) (Standing, error)
	// Kept reads a standing record; Seq is 0 when there is none.
	Kept(ctx context.Context, room, id string) (Standing, error)
	// Event reads the event of a room at a sequence, as the log's leader has it; nil when it has none.
	Event(ctx context.Context, room string, seq uint64) (*Event, error)
	// Forget removes the events of a room up to a sequence (EndSeq: all of them).
	Forget(ctx context.Context, room string, upTo uint64) error
	// ForgetStanding removes all standing records of a room.
	ForgetStanding(ctx context.Context, room string) error

	// UserHash stands for a user of a room in standing records: a keyed hash, [a-z2-7]{26}.
	UserHash(room, user string) string
	// Origin stands for an address, in one room and until midnight, UTC: a hash under a key that the nodes
	// share, and forget 48 hours after it was made. It is empty while there is no key. It returns at once.
	Origin(room, address string) string
	// Now is the time by the log's clock, as far as it is known.
	Now() time.Time
	// KeepFor is how long the log keeps events; 0: without end.
	KeepFor() time.Duration
}

// LogEntry is an entry of the log of moderation: an act.
type LogEntry struct {
	Seq  uint64 // when it was done or undone last: later ones have higher ones; 0: there is none
	ID   string // of the act
	Whom string // the hash of the user whom it concerns: [RoomLog.UserHash]; empty: no single one
	Body []byte // a [Record]
}

// ModerationLog keeps what was done in rooms for longer than the rooms' logs do. It has one entry an act. Its errors wrap
// [ErrUnavailable].
type ModerationLog interface {
	// Enter stores an entry for a time (0: for good), unless its act has one; undone puts it in the place of that.
	Enter(ctx context.Context, room string, e LogEntry, undone bool, life time.Duration) error
	// Entries returns up to limit entries before a sequence (0: the end), the latest first; whom is the hash of a user
	// or empty. more tells whether there are others.
	Entries(ctx context.Context, room, whom string, before uint64, limit int) (entries []LogEntry, more bool, err error)
	// Entered returns the entry of an act; its Seq is 0 when it has none.
	Entered(ctx context.Context, room, id string) (LogEntry, error)
	// KeepFound stores what a dry run of a sweep has found, and Found returns it; nil: there is none.
	KeepFound(ctx context.Context, room, id string, body []byte, life time.Duration) error
	Found(ctx context.Context, room, id string) ([]byte, error)
}

// Follow is one room being followed.
type Follow interface {
	// Stop ends the reports. None is under way or begins after it has returned;
	// it must not be called from within one.
	Stop()
}

// Follower takes the reports about one room, one at a time. A report must not
// block.
type Follower interface {
	// Standing comes before each Reset: all standing records, and the state.
	Standing(all []Standing, state State)
	// Stands brings one that was written since. It may come late, or not at all: acts are events too.
	Stands(Standing)
	// Reset is the first report, and comes again when the log is not the one that
	// it was: epoch is its new identity, recent its latest events (oldest first),
	// head a position at or after that of its last one; what Deliver brings from then
	// on comes after head.
	Reset(epoch string, recent []Event, head Position)
	// Deliver brings further events, in order, each once, without a hole.
	Deliver(events []Event)
	// Forgot says that the log may have removed events, all of them up to head, before
	// they were reported; what Deliver brings from then on comes after head, and after
	// what was delivered. The time of head may be unknown.
	Forgot(head Position)
	// SetState brings the room's state: once after each Reset and at each change.
	SetState(State)
	// Degraded says that the log cannot be followed for now, and when it can again.
	Degraded(bool)
}

// Presence counts who is in which room, over all nodes. Its methods, and those of
// [Membership], return at once and may be called from any goroutine.
type Presence interface {
	// Open begins to report the counts of a room: to counts, at every change, at
	// most once a second, until the Membership is closed. counts must not block.
	Open(room string, counts func(Counts)) Membership
}

// Membership is one node's share of one room.
type Membership interface {
	Join(Member)     // one connection of a user more on this node
	Leave(id string) // one less
	// Broadcast says which broadcast of the room runs; 0: none that is counted. Its distinct
	// users are counted over all nodes.
	Broadcast(n int64)
	// First tells when a user who is here was first seen in the room; false while that is
	// not known, which is not the same as new.
	First(id string) (at time.Time, known bool)
	Close() // no reports any more; all who joined must have left
}

// Member is a user in a room.
type Member struct {
	ID   string
	Name string
	Role protocol.Role // empty: a viewer
}

// Roster lists who is where, over all nodes. Its pages have up to limit entries, and a cursor if
// more follow. An error is [ErrCursor] when the cursor is none of its own.
type Roster interface {
	// Members lists the users of a room in an order that does not change. Who stays during
	// a walk through all pages is in exactly one of them.
	Members(context.Context, MembersQuery) (protocol.Members, error)
	// Distinct counts who has been in a broadcast.
	Distinct(ctx context.Context, room string, broadcast int64) (*protocol.Distinct, error)
	// RoomsOf lists the rooms that a user is in, by name.
	RoomsOf(ctx context.Context, user, cursor string, limit int) (protocol.UserRooms, error)
	// FirstSeen tells when users were first seen in a room, Unix milliseconds; 0: that is not known.
	FirstSeen(ctx context.Context, room string, users []string) ([]int64, error)
	// Member is what the list has of one user; without an ID when they are not there.
	Member(ctx context.Context, room, user string) (protocol.Member, error)
	// Nodes tells on how many nodes each of some users is in a room: 0 for who is not there.
	Nodes(ctx context.Context, room string, users []string) ([]int, error)
	// Rooms lists the rooms that somebody is in, those with the most users first.
	Rooms(context.Context, RoomsQuery) (protocol.Rooms, error)
}

// RoomsQuery asks for a page of the hottest rooms.
type RoomsQuery struct {
	Cursor string
	Limit  int
	Among  []string // these alone; nil: all
}

// MembersQuery asks for a page of the members of a room.
type MembersQuery struct {
	Room, Cursor string
	Limit        int
	// Leaving adds those who have left and of whom that is not yet told, without devices.
	Leaving bool
}

// ErrCursor says that a cursor is not one of the list that it is used for.
var ErrCursor = errors.New("hub: not a cursor of this list")

// Counts is the audience of a room on all nodes.
type Counts struct {
	Connections int
	Users       int   // distinct
	PeakUsers   int   // the most Users so far
	At          int64 // when it was counted, the presence's clock, Unix milliseconds
}

// Socket is one viewer's connection, as the hub sees it.
type Socket interface {
	// Flush has the socket fetch what its [Source] has and write it. It never
	// blocks: what the connection does not take now is written by the socket
	// later, which then fetches again until the source has nothing left.
	Flush()
	// Form is how the socket writes messages. It does not change.
	Form() *Form
	// Close ends the connection with a close frame behind what was written.
	Close(code int, reason string)
}

// Source is where a [Socket] fetches what to write.
type Source interface {
	// Next appends to dst the frames to write now, in order, and returns it; dst
	// as it was when there is nothing. Calls for one source never overlap. The
	// bytes are shared by all sockets and must not be changed.
	Next(dst [][]byte) [][]byte
}

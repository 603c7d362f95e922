package redispresence

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/hub"
)

const (
	maxFeed      = "10000" // batches that wait to be published in a bucket; with more of them back ends begin anew
	chunkText    = "500"   // chunk, as scripts say it
	depthText    = "9"     // maxDepth
	digitsText   = "6"     // placeDigits
	maxFarewells = "200"   // users of whom one script tells that they have left

	chunk      = 500            // users that one script adds or takes out; 25,000 block Redis for 62 ms
	chunkRooms = 500            // rooms that one tick names
	reapPieces = 100            // shards that one reaping script names
	keepDead   = time.Hour      // how long the mark of a dead incarnation stays
	keepPeak   = 24 * time.Hour // how long the peak of a room that nobody has stays
	maxPeaks   = "1000"         // such peaks in a bucket, about 150 bytes each

	lookEvery = 4   // ticks between two looks at what Redis still holds
	tidyEvery = 32  // ticks between two looks at what is old
	lookShare = 16  // of a node's rooms in a bucket, the share that one look takes
	maxLook   = 100 // rooms that one look takes, for a fraction of a millisecond of Redis
)

type scripts struct{ tick, sweep, reap, renew, nodes, list, feed *redis.Script }

func newScripts() scripts {
	return scripts{
		tick:  redis.NewScript(tickLua),
		sweep: redis.NewScript(sweepLua),
		reap:  redis.NewScript(reapLua),
		renew: redis.NewScript(renewLua),
		nodes: redis.NewScript(nodesLua),
		list:  redis.NewScript(listLua),
		feed:  redis.NewScript(feedLua),
	}
}

// layout is the version of what the keys are and what is in them. Keys, and fields at the end
// of values, can be added without a new one: nodes pass over what they do not know. With
// readsKey a version says that nodes of an older layout must not write any more.
const layout = 3

// keySpace is in the names of all keys, so that no key of before is met. It stays: nodes of
// versions with another one would count apart.
const keySpace = 2

// keys names the keys of one bucket.
type keys struct {
	base   string // "kansei:2:{p17}:"
	common []string
}

func newKeys(prefix string, bucket int) keys {
	base := fmt.Sprintf("%s:%d:{p%d}:", prefix, keySpace, bucket)
	k := keys{base: base}
	for _, name := range []string{"lease", "tick", "grave", "counts", "changes", "idle", "peaks", "heat", "gen", "leaving", "left", "feed", "seen"} {
		k.common = append(k.common, base+name)
	}
	return k
}

// counts is the key of the entries of all rooms.
func (k keys) counts() string { return k.base + "counts" }

func (k keys) index(inc string) string  { return k.base + "i:" + inc }
func (k keys) users(room string) string { return k.base + "u:" + room }

// shard is the key of a piece of an incarnation's share of a room.
func (k keys) shard(inc, room string, s shard) string {
	return k.base + "m:" + inc + ":" + room + ":" + s.suffix()
}

// first are the keys of when users were first seen in a room: what is written to, and what was
// there when that became full.
func (k keys) first(room string) [2]string {
	return [2]string{k.base + "f:" + room, k.base + "f:" + room + ":old"}
}

// broadcast are the keys of who was there in a broadcast: a set, a sketch, and scratch.
func (k keys) broadcast(room string, n int64) [3]string {
	id := room + ":" + strconv.FormatInt(n, 10)
	return [3]string{k.base + "d:" + id, k.base + "h:" + id, k.base + "h:" + id + ":in"}
}

// set is where versions before layout 3 kept the users of an incarnation in a room, without
// their records.
func (k keys) set(inc, room string) string { return k.base + "s:" + inc + ":" + room }

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// errAnswer says that Redis ran a script and answered something else than the
// script does: not this program's Redis, or a proxy in between.
var errAnswer = errors.New("unexpected answer of a script")

// answer is what a tick is answered with.
type answer struct {
	resync  string // why to resync; empty: the tick is in force
	now     int64  // Redis's clock, Unix milliseconds
	version int64
	lapsed  bool     // the lease had lapsed unnoticed
	reap    []string // dead incarnations that this node is to take out
	all     bool     // rooms are all that the incarnation's index has
	rooms   []roomAnswer
	gen     string // of the feed
	feed    bool   // this node is to publish the feed
	firsts  []string
}

// roomAnswer is what Redis holds of a room.
type roomAnswer struct {
	room   string
	counts hub.Counts
	gen    int64   // the generation of the room; 0: it has none, and the counts are void
	own    written // of the incarnation; gen is 0 when its index lacks the room
}

// written is what an incarnation has written of a room.
type written struct {
	gen          int64
	conns, users int
}

func parseAnswer(v []any) (answer, error) {
	var a answer
	if len(v) == 2 && v[0] == "resync" {
		a.resync, _ = v[1].(string)
		switch a.resync {
		case resyncLost, resyncReaped, resyncTick:
			return a, nil
		}
	}
	if len(v) != 9 || v[0] != "ok" {
		return a, fmt.Errorf("%w: tick: %.100q", errAnswer, fmt.Sprint(v))
	}
	var ok [5]bool
	var lapsed, all int64
	a.now, ok[0] = v[1].(int64)
	a.version, ok[1] = v[2].(int64)
	lapsed, ok[2] = v[3].(int64)
	a.reap, ok[3] = texts(v[4])
	all, ok[4] = v[5].(int64)
	rooms, good := texts(v[6])
	said, fine := v[7].(string)
	var told bool
	a.firsts, told = texts(v[8])
	if !good || !fine || !told || ok != [5]bool{true, true, true, true, true} || len(rooms)%3 != 0 {
		return a, fmt.Errorf("%w: tick: %.100q", errAnswer, fmt.Sprint(v))
	}
	a.lapsed, a.all = lapsed == 1, all == 1
	if said != "" {
		gen, feed, _ := strings.Cut(said, " ")
		a.gen, a.feed = gen, feed == "1"
	}
	a.rooms = make([]roomAnswer, 0, len(rooms)/3)
	for ; len(rooms) > 0; rooms = rooms[3:] {
		ra := roomAnswer{room: rooms[0]}
		var users, conns, peak, members, ownConns, ownUsers int64
		if err := parseNumbers(rooms[1], &users, &conns, &peak, &ra.gen, &members); err != nil {
			return a, err
		}
		if err := parseNumbers(rooms[2], &ownConns, &ra.own.gen, &ownUsers); err != nil {
			return a, err
		}
		ra.counts = hub.Counts{Connections: int(conns), Users: int(users), PeakUsers: int(peak), At: a.now}
		ra.own.conns, ra.own.users = int(ownConns), int(ownUsers)
		a.rooms = append(a.rooms, ra)
	}
	return a, nil
}

// What an incarnation is after a reaping script.
const (
	stillGoing = "going" // dead, but not all of it is taken out
	nowGone    = "gone"
	notDead    = "alive"
	inDoubt    = "doubt" // dead, and its index has lost rooms
)

// parseReaping returns how many of the rooms that the script named are done, what the
// incarnation is, and up to which version it may have written.
func parseReaping(v []any, rooms int) (done int, state string, upto int64, err error) {
	if len(v) == 3 {
		n, _ := v[0].(int64)
		state, _ = v[1].(string)
		upto, _ = v[2].(int64)
		switch state {
		case stillGoing, nowGone, notDead, inDoubt:
			if n >= 0 && n <= int64(rooms) {
				return int(n), state, upto, nil
			}
		}
	}
	return 0, "", 0, fmt.Errorf("%w: reap: %.100q", errAnswer, fmt.Sprint(v))
}

// parseNumbers reads numbers between spaces; an empty text leaves them as they are. Behind
// them may stand what a newer version has written.
func parseNumbers(s string, dst ...*int64) error {
	if s == "" {
		return nil
	}
	rest := s
	for i, d := range dst {
		field, after, more := strings.Cut(rest, " ")
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil || n < 0 || n > maxNumber || !more && i < len(dst)-1 {
			return fmt.Errorf("%w: counts %.60q", errAnswer, s)
		}
		*d, rest = n, after
	}
	return nil
}

// maxNumber is the greatest that a script can write: its numbers are floating-point.
const maxNumber = 1 << 53

func texts(v any) ([]string, bool) {
	list, ok := v.([]any)
	if !ok {
		return nil, false
	}
	out := make([]string, len(list))
	for i, x := range list {
		if out[i], ok = x.(string); !ok {
			return nil, false
		}
	}
	return out, true
}

// run runs a script within the timeout. A script that Redis does not have any
// more is sent whole.
func (r *Presence) run(ctx context.Context, op string, s *redis.Script, keys []string, args []any) ([]any, error) {
	var v []any
	err := r.call(ctx, op, func(ctx context.Context) (err error) {
		v, err = s.Run(ctx, r.cfg.Client, keys, args...).Slice()
		return err
	})
	return v, err
}

// call does one request to Redis, measured and within the timeout.
func (r *Presence) call(ctx context.Context, op string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	start := time.Now()
	err := f(ctx)
	r.metrics.seconds.Observe(time.Since(start).Seconds())
	if err != nil {
		r.metrics.errors.WithLabelValues(op).Inc()
		if answers(err) {
			err = fmt.Errorf("redis answers: %w", err)
		}
		return err
	}
	r.answered.Store(true)
	return nil
}

package natslog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
)

// storeRooms stores one record after the other, each in the room that of tells, and returns the
// positions of each room's.
func storeRooms(t testing.TB, l *Log, n int, of func(i int) string) map[string][]hub.Position {
	t.Helper()
	nc := l.conn.NATS()
	for i := range n {
		m := nats.NewMsg(l.logs[0].subjects + of(i))
		m.Data = benchBody
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
		if i%10_000 == 9_999 { // what a server cannot store in time it drops
			waitStored(t, l, uint64(i+1))
		}
	}
	waitStored(t, l, uint64(n))
	places := map[string][]hub.Position{}
	for i := range n {
		places[of(i)] = append(places[of(i)], hub.Position{Seq: uint64(i + 1)})
	}
	return places
}

func waitStored(t testing.TB, l *Log, n uint64) {
	t.Helper()
	eventually(t, time.Minute, "all is stored", func() error {
		info, err := l.logs[0].info(testContext(t))
		if err == nil && info.State.LastSeq != n {
			err = fmt.Errorf("%d of %d", info.State.LastSeq, n)
		}
		return err
	})
}

// Whatever lies between a room's records, the last ones before a place are found, with few
// requests, and whether there are earlier ones is told.
func TestBefore(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]func(i int) string{
		"alone":  func(int) string { return "r" },
		"even":   func(i int) string { return []string{"a", "b", "r", "c", "d", "e", "f"}[i%7] },
		"bursts": func(i int) string { return []string{"r", "a", "a", "b", "b", "b"}[i/700%6] },
		"growing": func(i int) string {
			if rand.New(rand.NewPCG(uint64(i), 1)).IntN(6000) < i {
				return "r"
			}
			return "a"
		},
		"few": func(i int) string {
			if i == 17 || i == 4000 {
				return "r"
			}
			return "a"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := openReady(t, Config{URLs: urls(startServer(t, t.TempDir(), 0)), Partitions: 1})
			ctx, epoch := testContext(t), l.epochOf("r")
			const n = 6000
			places := storeRooms(t, l, n, of)
			mine := places["r"]
			check := func(at hub.Position, with bool, limit int) {
				t.Helper()
				want := 0 // so many come before
				for _, p := range mine {
					if p.Seq < at.Seq || with && p.Seq == at.Seq {
						want++
					}
				}
				before := asked(t, l)
				got, err := l.Before(ctx, "r", epoch, at, with, limit)
				if err != nil {
					t.Fatal(err)
				}
				asked := asked(t, l) - before
				from := max(0, want-limit)
				if want == 0 {
					if got.From.Seq != 0 || len(got.Events) > 0 || got.More {
						t.Fatalf("%v of %d before %d: %+v, want nothing", with, limit, at.Seq, got)
					}
					return
				}
				if len(got.Events) != want-from || got.From.Seq != mine[from].Seq || got.More != (from > 0) {
					t.Fatalf("%v of %d before %d: %d events from %d, more %v; want %d from %d", with, limit, at.Seq, len(got.Events), got.From.Seq, got.More, want-from, mine[from].Seq)
				}
				for i, e := range got.Events {
					if e.Seq != mine[from+i].Seq {
						t.Fatalf("event %d is at %d, want %d", i, e.Seq, mine[from+i].Seq)
					}
				}
				if most := uint64(30 + limit/batchRecords*2); asked > most {
					t.Errorf("%v of %d before %d: %d requests, want %d at the most", with, limit, at.Seq, asked, most)
				}
			}
			check(hub.Position{Seq: hub.EndSeq}, true, 10)
			check(hub.Position{}, true, 10)
			rnd := rand.New(rand.NewPCG(1, 2))
			for range 20 {
				at := placed(t, l, "r", uint64(1+rnd.IntN(n))) // of any room
				if rnd.IntN(2) == 0 {
					at = placed(t, l, "r", mine[rnd.IntN(len(mine))].Seq)
				}
				check(at, rnd.IntN(2) == 0, 1+rnd.IntN(1000))
			}
		})
	}
}

// What was removed leaves nothing before it, and says nothing about its past; what is of
// another past is not had.
func TestBeforeWhatIsGone(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), Partitions: 1})
	ctx, epoch := testContext(t), l.epochOf("r")
	places := storeRooms(t, l, 20, func(i int) string { return []string{"r", "a"}[i%2] })
	var at []hub.Position
	for _, p := range places["r"] {
		at = append(at, placed(t, l, "r", p.Seq))
	}
	js, err := dial(t, s.ClientURL()).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteMsg("KANSEI_LOG_0", at[8].Seq); err != nil { // by hand
		t.Fatal(err)
	}
	if err := js.PurgeStream("KANSEI_LOG_0", &nats.StreamPurgeRequest{Sequence: at[4].Seq}); err != nil { // the first four
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		at    hub.Position
		with  bool
		epoch string
		want  int // -1: it does not have the position
	}{
		{"kept", at[6], true, epoch, 3},
		{"the first", at[4], true, epoch, 1},
		{"before the first", at[4], false, epoch, 0},
		{"removed", at[2], true, epoch, 0},
		{"removed, of another past", hub.Position{Seq: at[2].Seq, At: 7}, true, epoch, 0},
		{"the end", hub.Position{Seq: hub.EndSeq}, true, epoch, 5},
		{"another past", hub.Position{Seq: at[6].Seq, At: at[6].At + 1}, true, epoch, -1},
		{"deleted by hand", at[8], true, epoch, -1},
		{"without a time", hub.Position{Seq: at[6].Seq}, true, epoch, -1},
		{"the future", hub.Position{Seq: 21, At: at[6].At}, true, epoch, -1},
		{"another log", at[6], true, "other", -1},
		{"the end of another log", hub.Position{Seq: hub.EndSeq}, true, "other", -1},
	} {
		got, err := l.Before(ctx, "r", c.epoch, c.at, c.with, 100)
		if c.want < 0 {
			if !errors.Is(err, hub.ErrForgotten) {
				t.Errorf("%s: %+v, %v", c.name, got, err)
			}
		} else if err != nil || len(got.Events) != c.want || got.More {
			t.Errorf("%s: %d events, more %v, %v; want %d", c.name, len(got.Events), got.More, err, c.want)
		}
	}
	if got, err := l.Before(ctx, "nobody", epoch, hub.Position{Seq: hub.EndSeq}, true, 5); err != nil || len(got.Events) > 0 || got.More {
		t.Errorf("a room without records: %+v, %v", got, err)
	}
	stopServer(s)
	if _, err := l.Before(ctx, "r", epoch, at[6], true, 5); !errors.Is(err, hub.ErrUnavailable) {
		t.Errorf("without a server: %v", err)
	}
}

// What was acknowledged to one node is in the page that another one reads right after it,
// from whichever replica, and the page before it has no hole.
func TestBeforeInCluster(t *testing.T) {
	t.Parallel()
	var logs []*Log
	for _, s := range startCluster(t, nil) {
		logs = append(logs, open(t, Config{Partitions: 1, Replicas: 3, URLs: urls(s)}))
	}
	for _, l := range logs {
		waitReady(t, l)
	}
	epoch := logs[0].epochOf("r")
	var said []uint64
	for i := range 150 {
		said = append(said, mustAppend(t, logs[i%3], "r", fmt.Sprint("d", i)))
		mustAppend(t, logs[i%3], "other", fmt.Sprint("o", i))
		l := logs[(i+1)%3]
		ctx := testContext(t)
		at, with := hub.Position{Seq: hub.EndSeq}, true
		var got []uint64
		for len(got) < min(len(said), 40) {
			page, err := l.Before(ctx, "r", epoch, at, with, 10)
			if err != nil || len(page.Events) == 0 {
				t.Fatalf("after %d: %d events before %v, %v", len(said), len(page.Events), at, err)
			}
			var seqs []uint64
			for _, e := range page.Events {
				seqs = append(seqs, e.Seq)
			}
			got = append(seqs, got...)
			at, with = page.From, false
		}
		if want := said[len(said)-len(got):]; !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

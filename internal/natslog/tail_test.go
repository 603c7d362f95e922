package natslog

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
)

// replica stands between a log and the direct gets of a stream: it hands them on as
// change has made them.
type replica struct {
	mu     sync.Mutex
	change func(r map[string]any)
	probes int
}

func startReplica(t *testing.T, url string) *replica {
	t.Helper()
	p := new(replica)
	nc := dial(t, url)
	_, err := nc.Subscribe("fake.replica.*", func(m *nats.Msg) {
		var r map[string]any
		if err := json.Unmarshal(m.Data, &r); err != nil {
			t.Error(err)
			return
		}
		p.mu.Lock()
		if _, is := r["multi_last"]; is {
			p.probes++
		}
		if p.change != nil {
			p.change(r)
		}
		p.mu.Unlock()
		b, err := json.Marshal(r)
		if err == nil {
			err = nc.PublishRequest("$JS.API.DIRECT.GET."+m.Subject[len("fake.replica."):], m.Reply, b)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *replica) set(change func(r map[string]any)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change, p.probes = change, 0
}

func (p *replica) probed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.probes
}

// A loss at the tail is found when the replicas that are asked are behind: some of the
// time, for good, or when they tell nothing because they have nothing.
func TestLostTailBehindStaleReplicas(t *testing.T) {
	t.Parallel()
	for name, stale := range map[string]int{"once": 1, "twice": 2, "three times": 3, "for good": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, t.TempDir(), 0)
			p := startReplica(t, s.ClientURL())
			l := openReady(t, Config{URLs: urls(s), directGet: "fake.replica."})
			o, f := followRoom(t, l, "r", 10)
			mustAppend(t, l, "r", "a")
			waitEvents(t, o, 5*time.Second, "a")
			waitFresh(t, f)
			deafen(t, l, f)
			ids := []string{"a"}
			var worst time.Duration
			for i := range 2 {
				upTo := f.had.Load()
				p.set(func(r map[string]any) {
					if _, is := r["multi_last"]; is && p.probes <= stale {
						r["up_to_seq"] = upTo
					}
				})
				id := fmt.Sprint("tail", i)
				mustAppend(t, l, "r", id)
				start := time.Now()
				ids = append(ids, id)
				waitEvents(t, o, 15*time.Second, ids...)
				worst = max(worst, time.Since(start))
			}
			t.Logf("found after %v at the latest", worst)
			limit := 5 * time.Second // 2 s are promised of replicas that catch up; the machine may be busy
			if stale > probeTries {
				limit = 12 * time.Second
			}
			if worst > limit {
				t.Errorf("found after %v", worst)
			}
		})
	}
}

// Rooms in which nothing happens beside rooms of other nodes cost one request a second,
// or two, however many they are, and their position keeps up with the log's.
func TestProbeOfSilentRooms(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	p := startReplica(t, s.ClientURL())
	l := openReady(t, Config{URLs: urls(s), directGet: "fake.replica."})
	other := openReady(t, Config{URLs: urls(s)})
	const rooms = 600 // more than one request can name
	for i := range rooms {
		followRoom(t, l, fmt.Sprint("silent", i), 0)
	}
	// Each is checked with the leader once, a second or so after it was opened.
	before := requests(t, l, opLeaderGet)
	eventually(t, 60*time.Second, "nobody asks the leader any more", func() error {
		time.Sleep(3 * time.Second)
		was := before
		if before = requests(t, l, opLeaderGet); before != was {
			return fmt.Errorf("%d questions", before-was)
		}
		return nil
	})
	p.set(nil)
	began := time.Now()
	var last uint64
	for i := 0; time.Since(began) < 5*time.Second; i++ {
		last = mustAppend(t, other, fmt.Sprint("busy", i%3), fmt.Sprint(i))
		time.Sleep(20 * time.Millisecond)
	}
	seconds := time.Since(began).Seconds()
	eventually(t, 10*time.Second, "the probe has come to the end", func() error {
		if pos := l.logs[0].known(); pos < last {
			return fmt.Errorf("it is at %d of %d", pos, last)
		}
		return nil
	})
	probes, gets := p.probed(), requests(t, l, opLeaderGet)-before
	t.Logf("%d probes and %d leader gets in %.1f s", probes, gets, seconds)
	if most := int(3*2*(seconds+3)/0.9) + 1; probes > most {
		t.Errorf("%d probes, wanted %d at the most", probes, most)
	}
	if most := uint64(2 * (seconds + 3) / 0.9); gets > most {
		t.Errorf("%d questions to the leader, wanted %d at the most", gets, most)
	}
}

// A replica may remove records earlier than the leader, by its clock: what it lacks is
// not taken for removed while the leader has it.
func TestReplicaThatRemovesEarlier(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	p := startReplica(t, s.ClientURL())
	l := openReady(t, Config{URLs: urls(s), directGet: "fake.replica."})
	const n = 20
	for i := range n {
		mustAppend(t, l, "other", fmt.Sprint("o", i)) // so that positions have holes
		mustAppend(t, l, "r", fmt.Sprint("r", i))
	}
	for _, lacks := range []int{0, 1, 4, 10} {
		p.set(func(r map[string]any) {
			if seq, ok := r["seq"].(float64); ok && r["next_by_subj"] != nil && int(seq) <= 2*lacks {
				r["seq"] = 2*lacks + 1
			}
		})
		for _, after := range []uint64{0, 1, 2, 7, 8, 12} {
			got, more, err := l.Read(testContext(t), "r", l.epochOf("r"), placed(t, l, "r", after), 100)
			if want := n - int(after)/2; err != nil || more || len(got) != want || got[0].Seq <= after {
				t.Errorf("without the first %d, from %d: %d events, %v, %v, wanted %d", lacks, after, len(got), more, err, want)
			}
		}
	}
	var all []hub.Event
	for after := (hub.Position{}); ; {
		got, more, err := l.Read(testContext(t), "r", l.epochOf("r"), after, 3)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got...)
		if !more {
			break
		}
		after = got[len(got)-1].Position()
	}
	if len(all) != n {
		t.Errorf("%d events in pages, wanted %d", len(all), n)
	}
}

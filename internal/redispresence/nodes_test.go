package redispresence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kansei-live/kansei/internal/health"
	"github.com/kansei-live/kansei/test/ports"
)

// with pins secrets that stand for those of --auth-secret.
func with(secrets ...string) func(*Config) {
	return func(c *Config) { c.Pins = []Pin{authPin(secrets...)} }
}

func authPin(secrets ...string) Pin {
	var all [][]byte
	for _, s := range secrets {
		all = append(all, []byte(s))
	}
	return PinOf("--auth-secret", all...)
}

// refused reports whether a node says that its secret is another one, in that state.
func refused(n *node, state health.State) error {
	if err := says(n, "--auth-secret differs from the other nodes'"); err != nil {
		return err
	}
	if got := health.StateOf(n.Ready()); got != state {
		return fmt.Errorf("it is %v, want %v", got, state)
	}
	return nil
}

func (s *server) records(t *testing.T, n *node) map[string]string {
	t.Helper()
	all, err := s.raw.HGetAll(context.Background(), n.nodesKey()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSecretsAreCompared(t *testing.T) {
	overCluster(t, func(t *testing.T, s *server) {
		first := s.node(t, with("old"))
		eventually(t, "the first is ready", first.Ready)
		other := s.node(t, with("else"))
		eventually(t, "another secret is refused", func() error { return refused(other, health.StateUnready) })
		second := s.node(t, with("old"))
		eventually(t, "the same is ready", second.Ready)
		free := s.node(t, with())
		eventually(t, "so is a node that has none", free.Ready)
		for id, record := range s.records(t, first) {
			if strings.Contains(record, "old") || strings.Contains(record, "else") {
				t.Errorf("the record of %s has a secret: %s", id, record)
			}
		}

		// Two at a time, on one node after the other.
		for _, step := range [][]string{{"old", "new"}, {"new", "old"}, {"new"}} {
			for _, n := range []*node{first, second} {
				n.SetPins(authPin(step...))
				eventually(t, fmt.Sprint(step), func() error {
					n.nodes.mu.Lock()
					known := n.nodes.known == n.nodes.pins
					n.nodes.mu.Unlock()
					if !known {
						return errors.New("not compared yet")
					}
					return n.Ready()
				})
			}
		}
		late := s.node(t, with("old"))
		eventually(t, "the old one is refused", func() error { return refused(late, health.StateUnready) })

		// Changed to something else while it runs: it serves on.
		second.settle(t)
		second.SetPins(authPin("typo"))
		eventually(t, "it says so", func() error { return refused(second, health.StateDegraded) })
		if err := first.Ready(); err != nil {
			t.Errorf("the first says %v", err)
		}
		second.SetPins(authPin("new"))
		eventually(t, "mended", second.Ready)

		// Whoever is refused takes over when the others have gone.
		first.shut(t)
		second.shut(t)
		late.shut(t)
		free.shut(t)
		eventually(t, "the others have gone", other.Ready)
		if all := s.records(t, other); len(all) != 1 {
			t.Errorf("records of those who have left: %v", all)
		}
	})
}

// TestSecretOfTheDead: nodes that died without a word decide nothing for longer than a lease.
func TestSecretOfTheDead(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		dead := s.node(t, with("old"))
		eventually(t, "ready", dead.Ready)
		dead.kill()
		n := s.node(t, with("new"))
		eventually(t, "ready", n.Ready)
		eventually(t, "the record is taken out", func() error {
			if all := s.records(t, n); len(all) != 1 {
				return fmt.Errorf("%v", all)
			}
			return nil
		})
	})
}

// TestRecordsAreFlushed: who was there when Redis forgot all is degraded at most.
func TestRecordsAreFlushed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.node(), w.node(), w.node()
	record := func(n *node) {
		t.Helper()
		n.guard.told = true
		if err := n.record(w.ctx, true); err != nil {
			t.Fatal(err)
		}
		n.answered.Store(true)
	}
	for _, n := range []*node{a, b} {
		n.SetPins(authPin("one"))
		record(n)
		n.settle(t)
	}
	c.SetPins(authPin("two"))
	record(c)
	if err := refused(c, health.StateUnready); err != nil {
		t.Error(err)
	}
	w.mini.FlushAll()
	record(c) // it is the first now
	for _, n := range []*node{a, b} {
		record(n)
		if err := refused(n, health.StateDegraded); err != nil {
			t.Error(err)
		}
	}
	// A Redis that has failed over to one whose clock is behind: the records are of the
	// future, and count for nothing.
	w.mini.FlushAll()
	record(a)
	record(b)
	if err := errors.Join(a.Ready(), b.Ready()); err != nil {
		t.Error(err)
	}
	all := w.raw.HGetAll(w.ctx, a.nodesKey()).Val()
	for id, text := range all {
		at, rest, _ := strings.Cut(text, " ")
		ms, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.raw.HSet(w.ctx, a.nodesKey(), id, fmt.Sprint(ms+3_600_000, " ", rest)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.raw.HSet(w.ctx, a.nodesKey(), "x", "nonsense", "y", "1 2 3 4 5", "z", "").Err(); err != nil {
		t.Fatal(err)
	}
	record(c)
	record(a)
	if left := w.raw.HGetAll(w.ctx, a.nodesKey()).Val(); len(left) != 2 {
		t.Errorf("records: %v", left)
	}
	if err := refused(a, health.StateDegraded); err != nil {
		t.Error(err)
	}
}

func TestNodesTellEachOther(t *testing.T) {
	overCluster(t, func(t *testing.T, s *server) {
		var ask atomic.Bool
		a := s.node(t, func(c *Config) { c.Tell = func() (string, bool) { return "10", ask.Load() } })
		b := s.node(t, func(c *Config) { c.Tell = func() (string, bool) { return "11", false } })
		refuses := s.node(t, func(c *Config) {
			with("x")(c)
			c.Tell = func() (string, bool) { return "-", false }
		})
		for _, n := range []*node{a, b, refuses} {
			eventually(t, "ready", n.Ready)
		}
		if got := a.Others(); got != nil {
			t.Errorf("it has not asked and knows %q", got)
		}
		ask.Store(true)
		hears := func(want ...string) func() error {
			return func() error {
				got := a.Others()
				slices.Sort(got)
				if !slices.Equal(got, want) {
					return fmt.Errorf("it hears %q, want %q", got, want)
				}
				return nil
			}
		}
		eventually(t, "it hears the others", hears("-", "11"))
		refuses.shut(t)
		eventually(t, "but not who has left", hears("11"))
		b.kill()
		eventually(t, "nor who is dead", hears())
		ask.Store(false)
		eventually(t, "it has stopped asking", func() error {
			a.nodes.mu.Lock()
			defer a.nodes.mu.Unlock()
			if a.nodes.others != nil {
				return errors.New("it has answers")
			}
			return nil
		})
	})
}

// TestOthersAreForgotten: what Redis told before it went is worth nothing after a while.
func TestOthersAreForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node(), w.node()
	a.cfg.Tell = func() (string, bool) { return "0", true }
	b.cfg.Tell = func() (string, bool) { return "1", false }
	for _, n := range []*node{b, a} {
		if err := n.record(w.ctx, false); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.Others(); !slices.Equal(got, []string{"1"}) {
		t.Errorf("it hears %q", got)
	}
	w.mini.SetError("LOADING")
	if err := a.record(w.ctx, false); err == nil {
		t.Error("no error")
	}
	w.mini.SetError("")
	w.pass(a.cfg.Lease + time.Second)
	if got := a.Others(); got != nil {
		t.Errorf("it hears %q", got)
	}
}

// TestRecordsWithoutMemory: at maxmemory nodes go on to know each other.
func TestRecordsWithoutMemory(t *testing.T) {
	t.Parallel()
	s := dial(t, startProcess(t, ports.ForTest(t).Number))
	a := s.node(t, with("one"))
	eventually(t, "ready", a.Ready)
	squeeze(t, s)
	n := s.prepare(t, with("one"))
	for _, x := range []*node{n, a} {
		if err := x.record(context.Background(), true); err != nil {
			t.Error(err)
		}
	}
	if all := s.records(t, a); len(all) != 2 {
		t.Errorf("records: %v", all)
	}
}

func TestPrints(t *testing.T) {
	t.Parallel()
	a, b := PinOf("--auth-secret", []byte("one"), nil, []byte("two")), PinOf("--node-secret", []byte("one"))
	if len(a.Prints) != 2 || a.Prints[0] == a.Prints[1] || len(a.Prints[0]) != 11 || a.Prints[0] == b.Prints[0] {
		t.Errorf("%v %v", a, b)
	}
	if got := pinText([]Pin{a, {Flag: "--x"}, b}); got != "--auth-secret="+strings.Join(a.Prints, ",")+";--node-secret="+b.Prints[0] {
		t.Errorf("%s", got)
	}
	if got := pinText(nil); got != "-" {
		t.Errorf("%s", got)
	}
}

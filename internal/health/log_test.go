package health

import (
	"errors"
	"testing"
	"time"
)

// nodeLog is the log of a node under test.
type nodeLog struct {
	*Log
	err  error
	has  []bool
	time time.Time
}

func newNodeLog() *nodeLog {
	n := &nodeLog{has: []bool{true, true}, time: time.Unix(1_800_000_000, 0)}
	n.Log = NewLog(func() error { return n.err }, func() []bool { return n.has })
	n.now = func() time.Time { return n.time }
	return n
}

func TestLog(t *testing.T) {
	t.Parallel()
	ill := errors.New("nats: not connected")
	for name, c := range map[string]struct {
		was    bool
		err    error
		has    []bool
		others []string
		state  State
	}{
		"well":                            {true, nil, []bool{true, true}, []string{"11"}, StateReady},
		"never reached":                   {false, ill, []bool{false, false}, nil, StateUnready},
		"never reached, elsewhere it is":  {false, ill, []bool{false, false}, []string{"11"}, StateUnready},
		"away, and nobody tells":          {true, ill, []bool{false, false}, nil, StateDegraded},
		"away for all":                    {true, ill, []bool{false, false}, []string{"00", "00"}, StateDegraded},
		"away for this one":               {true, ill, []bool{false, false}, []string{"00", "11"}, StateUnready},
		"another has something":           {true, ill, []bool{false, false}, []string{"01"}, StateUnready},
		"one stream":                      {true, ill, []bool{true, false}, []string{"11"}, StateUnready},
		"one stream, for all":             {true, ill, []bool{true, false}, []string{"10"}, StateDegraded},
		"each lacks another":              {true, ill, []bool{true, false}, []string{"01"}, StateDegraded},
		"another number of streams":       {true, ill, []bool{true, false}, []string{"111", "1", ""}, StateDegraded},
		"a node that takes nobody":        {true, ill, []bool{false, false}, []string{nothing}, StateDegraded},
		"what this program does not make": {true, ill, []bool{false, false}, []string{"xy"}, StateDegraded},
	} {
		n := newNodeLog()
		if c.was {
			if err := n.Ready(nil); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		n.err, n.has = c.err, c.has
		if got := StateOf(n.Ready(c.others)); c.was && c.err != nil && got != StateDegraded {
			t.Errorf("%s: at once %v", name, got)
		}
		n.time = n.time.Add(settle)
		err := n.Ready(c.others)
		if got := StateOf(err); got != c.state || c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%s: %v (%v), want %v", name, got, err, c.state)
		}
	}
}

// TestLogGoesForAll: nodes notice one after the other that NATS is away, and that it is back.
// None of them may leave its viewers to the others.
func TestLogGoesForAll(t *testing.T) {
	t.Parallel()
	n := newNodeLog()
	if err := n.Ready(nil); err != nil {
		t.Fatal(err)
	}
	n.err, n.has = errors.New("nats: not connected"), []bool{false, false}
	for s := range 60 {
		others := []string{"00"}
		if s < 7 || s > 54 { // the other one notices later, and is back earlier
			others = []string{"11"}
		}
		if got := StateOf(n.Ready(others)); got != StateDegraded {
			t.Errorf("after %d s: %v", s, got)
		}
		n.time = n.time.Add(time.Second)
	}
}

func TestTell(t *testing.T) {
	t.Parallel()
	n := newNodeLog()
	tells := func(want string, asks bool) {
		t.Helper()
		if text, ask := n.Tell(); text != want || ask != asks {
			t.Errorf("tells %q and asks: %t; want %q, %t", text, ask, want, asks)
		}
	}
	tells(nothing, false) // it does not serve yet
	var full error
	n.Serves(func() error { return full })
	tells("11", false)
	n.has = []bool{true, false}
	tells("10", true)
	full = errors.New("edge: this node is full")
	tells(nothing, true)
}

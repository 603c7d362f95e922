package crowd

import (
	"encoding/json"
	"sync"

	"github.com/kansei-live/kansei/loadtest/audit"
)

// frame is what one message says, as far as anybody here wants to know. It is shared by
// all who receive the same bytes, and does not change. That a node shows a sample of an
// overfull room (shown n of m) is no excuse here: nodes are to be started with
// --room-rate 0.
type frame struct {
	items  []audit.Item
	back   bool // they were brought back
	gap    bool
	counts *Counts
}

// frames reads messages, each only once, however many receive it.
type frames struct {
	mu    sync.Mutex
	known map[string]*frame
	ring  [maxFrames]string // the keys of known, the oldest is replaced
	next  int
}

// maxFrames bounds what is remembered: far more than what is on its way to somebody at
// one time.
const maxFrames = 4096

func newFrames() *frames { return &frames{known: map[string]*frame{}} }

func (f *frames) read(raw []byte) *frame {
	f.mu.Lock()
	got := f.known[string(raw)]
	f.mu.Unlock()
	if got != nil {
		return got
	}
	got = parse(raw)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known[string(raw)] == nil {
		key := string(raw)
		delete(f.known, f.ring[f.next])
		f.known[key], f.ring[f.next] = got, key
		f.next = (f.next + 1) % maxFrames
	}
	return got
}

// saidEvent is an event of the application that says what a comment would.
type saidEvent struct {
	ID   string
	User struct{ ID string }
	Data said
}

func (e *saidEvent) item() audit.Item {
	return audit.Item{Serial: audit.Serial(e.Data.N), ID: e.ID, Digest: audit.Digest(e.User.ID, e.Data.Text)}
}

// parse reads a message by its JSON alone. One that cannot be read holds a comment that
// nobody sent, which the audit will find.
func parse(raw []byte) *frame {
	var m struct {
		Type   string
		Events []saidEvent
		Items  []struct {
			ID      string
			Text    string
			MediaMS *int64 `json:"media_ms"`
			User    struct{ ID string }
		}
		Connections int
		Users       int
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return &frame{items: []audit.Item{{}}}
	}
	f := new(frame)
	switch m.Type {
	case "gap":
		f.gap = true
	case "viewers":
		f.counts = &Counts{m.Connections, m.Users}
	case "event":
		var e saidEvent
		if err := json.Unmarshal(raw, &e); err != nil {
			return &frame{items: []audit.Item{{}}}
		}
		f.items = []audit.Item{e.item()}
	case "comments", "restored":
		f.back = m.Type == "restored"
		for _, it := range m.Items {
			f.items = append(f.items, audit.Item{Serial: serialOf(it.MediaMS), ID: it.ID, Digest: audit.Digest(it.User.ID, it.Text)})
		}
		for i := range m.Events {
			f.items = append(f.items, m.Events[i].item())
		}
	}
	return f
}

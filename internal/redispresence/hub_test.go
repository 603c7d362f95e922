package redispresence

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/kansei-live/kansei/hub"
)

// emptyLog is a room log in which nothing happens.
type emptyLog struct{ hub.RoomLog }

func (emptyLog) Follow(_ string, _ int, f hub.Follower) hub.Follow {
	go func() { // ends at once
		f.Reset("epoch", nil, hub.Position{})
		f.SetState(hub.State{})
	}()
	return emptyFollow{}
}

type emptyFollow struct{}

func (emptyFollow) Stop() {}

type deafSocket struct{}

var nowhere = &hub.Form{Encode: func([][]byte) []byte { return nil }}

func (deafSocket) Flush()            {}
func (deafSocket) Form() *hub.Form   { return nowhere }
func (deafSocket) Close(int, string) {}

// TestPassersByLeaveTrueCounts: in many rooms a second viewer comes and goes within half
// a second. Once they have gone every room tells of one.
func TestPassersByLeaveTrueCounts(t *testing.T) {
	t.Parallel()
	const rooms = 300
	m := miniredis.RunT(t)
	n := dial(t, "redis://"+m.Addr()).node(t, func(c *Config) { c.Buckets, c.Interval, c.Lease = 1, DefaultInterval/4, DefaultLease })
	h := hub.New(hub.Config{Log: emptyLog{}, Presence: n.Presence})
	defer h.Close()
	join := func(room int, user string) *hub.Viewer {
		v := new(hub.Viewer)
		h.Join(context.Background(), v, hub.Join{Room: fmt.Sprint("room", room), User: user, Socket: deafSocket{},
			Welcome: func(bool) []byte { return nil }})
		return v
	}
	counts := func(room int) hub.Counts {
		r, ok := h.AcquireToRead(fmt.Sprint("room", room))
		if !ok {
			t.Fatal("the room cannot be read")
		}
		defer r.Release()
		_, c := r.Status()
		return c
	}
	for i := range rooms {
		defer join(i, "host").Leave()
	}
	type passing struct {
		*hub.Viewer
		until time.Time
	}
	var inside []passing
	for i := range rooms {
		inside = append(inside, passing{join(i, "passer-by"), time.Now().Add(time.Duration(i%50) * time.Millisecond * 5)})
		for len(inside) > 0 && !time.Now().Before(inside[0].until) {
			inside[0].Leave()
			inside = inside[1:]
		}
		time.Sleep(time.Millisecond) // they do not come all at once
	}
	for _, p := range inside {
		time.Sleep(time.Until(p.until))
		p.Leave()
	}
	eventually(t, "every room tells of one", func() error {
		wrong := 0
		for i := range rooms {
			if c := counts(i); c.Connections != 1 || c.Users != 1 {
				wrong++
			}
		}
		if wrong > 0 {
			return fmt.Errorf("%d of %d rooms are wrong", wrong, rooms)
		}
		return nil
	})
}

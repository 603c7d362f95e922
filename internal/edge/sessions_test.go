package edge

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// All sessions of a user in a room are found, and nobody else's, while others come and go.
func TestSessionsOfAUser(t *testing.T) {
	t.Parallel()
	users := newUsers()
	come := func(room, id string) *session {
		v := &session{ticket: ticket{room: room, identity: identity{id: id}, user: users.connect(userOf(room, id), 0, time.Now())}}
		v.user.attach(v)
		return v
	}
	leave := func(v *session) {
		v.user.detach(v)
		v.user.disconnect(Rate{PerS: 1, Burst: 1}, Rate{PerS: 1, Burst: 1}, time.Now())
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for n := range 4 { // others, in the same room and in another one
		wg.Go(func() {
			for {
				a, b := come("r", fmt.Sprint("u", n)), come("other", "me")
				leave(a)
				leave(b)
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	want := map[*session]bool{}
	var all []*session
	for range 3 {
		v := come("r", "me")
		want[v], all = true, append(all, v)
	}
	for len(all) > 0 {
		got := users.sessions(userOf("r", "me"))
		if len(got) != len(want) {
			t.Errorf("%d sessions, want %d", len(got), len(want))
		}
		for _, v := range got {
			if !want[v] {
				t.Errorf("a session of %s in %s", v.id, v.room)
			}
		}
		gone := all[len(all)/2] // from the middle, too
		leave(gone)
		delete(want, gone)
		all = append(all[:len(all)/2], all[len(all)/2+1:]...)
	}
	close(done)
	wg.Wait()
	if got := users.sessions(userOf("r", "me")); len(got) > 0 {
		t.Errorf("%d are left", len(got))
	}
}

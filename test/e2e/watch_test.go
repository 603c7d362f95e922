package e2e

import (
	"context"
	"sync"
	"testing"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
)

// watcher is a viewer that remembers what it got.
type watcher struct {
	mu       sync.Mutex
	got      []string
	welcomes int
}

// watch sends a viewer into a room until the end of the test, and waits for its
// welcome.
func watch(t *testing.T, url, room, token string) *watcher {
	t.Helper()
	w := new(watcher)
	in := make(chan struct{}, 1)
	c, err := client.New(client.Config{
		URLs: []string{url}, Room: room, Token: client.StaticToken(token),
		Handler: client.Handler{
			Welcome: func(*protocol.Welcome) {
				w.mu.Lock()
				w.welcomes++
				w.mu.Unlock()
				select {
				case in <- struct{}{}:
				default:
				}
			},
			Comments: func(m *protocol.Comments) {
				w.mu.Lock()
				defer w.mu.Unlock()
				for _, it := range m.Items {
					w.got = append(w.got, it.Text)
				}
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // ends with the test
		defer close(done)
		_ = c.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-in
	return w
}

func (w *watcher) texts() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.got...)
}

func (w *watcher) connections() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.welcomes
}

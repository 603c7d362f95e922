//go:build unix

package localcluster

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// What stands before the nodes leads to those that are ready, and every link is asked for.
func TestFrontAndLinks(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked []string
	c := begin(t, Config{
		Edges: 2, Front: true,
		Link: func(from, to, address string) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, from+">"+to)
			return address, nil
		},
		EdgeArgsOf: func(edge int) []string { return []string{"--number", string(rune('0' + edge))} },
		EdgeEnvOf:  func(edge int) []string { return []string{"NUMBER=" + string(rune('0'+edge))} },
	})
	for i, e := range c.Edges {
		n := string(rune('0' + i))
		if !slices.Contains(e.args, n) || !slices.Contains(e.env, "NUMBER="+n) {
			t.Errorf("%s has %v", e.Name(), e.args)
		}
	}
	slices.Sort(asked)
	if want := []string{
		"edge-1>nats-1", "edge-1>nats-2", "edge-1>nats-3", "edge-1>redis",
		"edge-2>nats-1", "edge-2>nats-2", "edge-2>nats-3", "edge-2>redis",
		"nats-2>nats-1", "nats-3>nats-1", "nats-3>nats-2",
	}; !slices.Equal(asked, want) {
		t.Errorf("asked for %v", asked)
	}
	reached := func(what string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); status(c.Front.URL+"/readyz") != 200; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no node is reached %s", what)
			}
		}
	}
	reached("at first")
	if err := c.Edges[0].Kill(); err != nil {
		t.Fatal(err)
	}
	for range 10 { // it goes to another one at once
		reached("with one of two")
	}
	if err := c.Edges[1].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Edges[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	reached("with the other one")
}

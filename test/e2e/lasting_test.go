package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// publishing posts lasting events to a node that may die, under a ref of their own, and goes on with another node
// until each is answered.
func (e *evening) publishing(nodes []int, name string, page int) (id string) {
	client := http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	body := fmt.Sprintf(`{"ref":"%s-%d","name":%q,"lasting":true,"data":{"p":%d}}`, name, page, name, page)
	for try := 0; e.t.Context().Err() == nil; try++ {
		url := e.c.Edges[nodes[min(try, len(nodes)-1)]].URL + "/v1/rooms/" + e.room + "/events"
		req, err := http.NewRequestWithContext(e.t.Context(), http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			e.t.Error(err)
			return ""
		}
		req.Header.Set("Authorization", "Bearer "+e.boss)
		res, err := client.Do(req)
		if err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		var posted protocol.Posted
		err = json.NewDecoder(res.Body).Decode(&posted)
		_ = res.Body.Close()
		if res.StatusCode == http.StatusCreated && err == nil {
			return posted.ID
		}
		time.Sleep(50 * time.Millisecond)
	}
	return ""
}

// lasting is what a connection was told of events: of each name the pages, "was" before those without a cursor.
func (w *listener) lasting() map[string][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	got := map[string][]string{}
	for line := range bytes.SplitSeq(w.text.Bytes(), []byte("\n")) {
		m, _ := protocol.Decode(line)
		if e, is := m.(*protocol.Event); is {
			var data struct{ P int }
			_ = json.Unmarshal(e.Data, &data)
			was := ""
			if e.Cursor == "" {
				was = "was "
			}
			got[e.Name] = append(got[e.Name], fmt.Sprint(was, data.P))
		}
	}
	return got
}

// A node that publishes lasting events is killed in the middle, again and again. Whoever comes later, to whichever node, also
// to one that has just started and long behind the event, has the latest of each name, exactly one; those who
// were there have each once, in order; and those who come back have what they missed.
func TestLastingThroughKills(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "--rate=10000", "--burst=10000", "--rate-staff=10000", "--burst-staff=10000")
	e := &evening{t: t, c: c, room: "slides", boss: token(t, c, "boss", protocol.RoleBroadcaster)}
	ken := token(t, c, "ken", protocol.RoleViewer)
	there := e.watch(1, ken, "")
	var cursor string
	eventually(t, 20*time.Second, "there is a cursor", func() bool { there.mu.Lock(); defer there.mu.Unlock(); cursor = there.cursor; return cursor != "" })
	const names, rounds, pages = 3, 4, 5
	name := func(i int) string { return fmt.Sprint("slide", i) }
	for round := range rounds {
		var all sync.WaitGroup
		for i := range names {
			all.Go(func() {
				for page := range pages {
					e.publishing([]int{0, 2}, name(i), round*pages+page)
				}
			})
		}
		time.Sleep(time.Duration(5+7*round) * time.Millisecond)
		if err := c.Edges[0].Kill(); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		if err := c.Edges[0].Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 120 { // more than a room is opened with
		e.say(i%3, ken, fmt.Sprint("c", i))
	}
	if err := c.Edges[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Edges[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	var every []string // of a name, in order
	for page := range rounds * pages {
		every = append(every, fmt.Sprint(page))
	}
	latest := []string{"was " + every[len(every)-1]}
	has := func(what string, w *listener, want []string) {
		t.Helper()
		eventually(t, 40*time.Second, what, func() bool {
			got := w.lasting()
			for i := range names {
				if !slices.Equal(got[name(i)], want) {
					return false
				}
			}
			return true
		})
	}
	has("who was there has each once", there, every)
	for node := range 3 {
		has(fmt.Sprint("who comes to node ", node), e.watch(node, ken, ""), latest)
		has(fmt.Sprint("who comes back to node ", node), e.watch(node, ken, cursor), every)
	}
}

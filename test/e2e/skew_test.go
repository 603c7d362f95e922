package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/localcluster"
	"github.com/kansei-live/kansei/test/skew"
)

// Three nodes, and how far the clock of each is ahead.
const slow, right, fast = 0, 1, 2

var ahead = [...]time.Duration{slow: -7 * time.Minute, right: 0, fast: 7 * time.Minute}

const skewRoom = "skewed"

// apart is a cluster whose nodes' clocks are apart, and who is there.
type apart struct {
	t     *testing.T
	c     *localcluster.Cluster
	began time.Time
	token string            // of somebody who only asks
	said  map[string]string // texts of comments that were acknowledged, by id
}

// comment is what a viewer knows of a comment.
type comment struct {
	id   string
	at   int64
	text string
}

// onlooker is a viewer that remembers what it got, over all its connections.
type onlooker struct {
	*client.Client
	user  string
	leave func()

	mu        sync.Mutex
	welcomes  []*protocol.Welcome
	got       []comment
	counts    []*protocol.Viewers
	incidents []string
}

// Nodes whose clocks are minutes apart are one cluster all the same: one order, cursors
// that every node follows, one history, true counts, and leases that only a dead node
// loses.
func TestClocksApart(t *testing.T) {
	t.Parallel()
	a := startApart(t)
	var all, publishers []*onlooker
	for edge := range ahead {
		publishers = append(publishers, a.enter(edge, skewRoom, fmt.Sprint("publisher-", edge), nil))
		all = append(all, publishers[edge], a.enter(edge, skewRoom, fmt.Sprint("viewer-", edge), nil), a.enter(edge, skewRoom, "everywhere", nil))
	}
	traveller := a.enter(slow, skewRoom, "traveller", nil)
	a.publish(publishers, 40)
	a.sameOrder(append(all, traveller))

	// Away for longer than the recent comments reach, and back on the node with the
	// other clock.
	for _, edge := range []int{fast, slow} {
		traveller.leave()
		a.publish(publishers, 20)
		a.enter(edge, skewRoom, "traveller", traveller)
		a.sameOrder(append(all, traveller))
	}
	for _, edge := range []int{fast, right, slow} { // and without having missed anything
		traveller.leave()
		a.enter(edge, skewRoom, "traveller", traveller)
	}
	a.publish(publishers, 5)
	a.sameOrder(append(all, traveller))
	traveller.leave()
	for _, w := range traveller.welcomes[1:] {
		if !w.Recovered {
			t.Errorf("the traveller was not recovered: %+v", w)
		}
	}

	a.sameHistory()
	a.tokens()
	a.delivery()

	// Nine connections of seven users; who is everywhere stays a user.
	a.counted(9, 7, slow, right, fast)
	a.staysCounted(9, 7, all, slow, right, fast)
	a.killed(fast, 6, 5, slow, right)
	a.staysCounted(6, 5, all[:6], slow, right)
	a.killed(slow, 3, 3, right)
	a.staysCounted(3, 3, all[3:6], right)
	a.publish(publishers[right:fast], 5)
	a.sameOrder(all[3:6])
}

func startApart(t *testing.T) *apart {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	program := filepath.Join(t.TempDir(), "kansei")
	if err := skew.Build(ctx, "../../cmd/kansei", program); err != nil {
		t.Fatal(err)
	}
	a := &apart{t: t, began: time.Now(), said: map[string]string{}}
	a.c = start(t, localcluster.Config{
		Edges: len(ahead), Kansei: program,
		EdgeEnvOf: func(edge int) []string { return []string{skew.Env(ahead[edge])} },
	})
	a.token = token(t, a.c, "boss", protocol.RoleBroadcaster)
	return a
}

// enter sends somebody into a room on one node, as somebody new or as who it was before,
// and waits for the welcome.
func (a *apart) enter(edge int, room, user string, o *onlooker) *onlooker {
	a.t.Helper()
	cfg := client.Config{
		URLs: []string{a.c.Edges[edge].URL}, Room: room,
		Token: client.StaticToken(token(a.t, a.c, user, protocol.RoleBroadcaster)),
	}
	if o == nil {
		o = &onlooker{user: user}
	} else {
		cfg.Since, cfg.Session = o.Cursor(), o.Session()
	}
	in := make(chan struct{}, 1)
	with := func(f func()) { o.mu.Lock(); defer o.mu.Unlock(); f() }
	incident := func(what string) { with(func() { o.incidents = append(o.incidents, what) }) }
	cfg.Handler = client.Handler{
		Welcome: func(w *protocol.Welcome) {
			with(func() { o.welcomes = append(o.welcomes, w) })
			select {
			case in <- struct{}{}:
			default:
			}
		},
		NotRecovered: func(string) { incident("not recovered") },
		Gap:          func(*protocol.Gap) { incident("a gap") },
		Comments: func(m *protocol.Comments) {
			with(func() {
				for _, it := range m.Items {
					o.got = append(o.got, comment{it.ID, it.At, it.Text})
				}
			})
		},
		Viewers: func(v *protocol.Viewers) { with(func() { o.counts = append(o.counts, v) }) },
	}
	var err error
	if o.Client, err = client.New(cfg); err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(a.t.Context())
	done := make(chan struct{})
	before := time.Now()
	go func() { // ends with leave
		defer close(done)
		_ = o.Run(ctx)
	}()
	o.leave = func() { cancel(); <-done }
	a.t.Cleanup(o.leave)
	select {
	case <-in:
	case <-time.After(30 * time.Second):
		a.t.Fatalf("%s was not welcomed by %s", user, a.c.Edges[edge].Name())
	}
	// The test would prove nothing if the clocks were not apart.
	var w *protocol.Welcome
	with(func() { w = o.welcomes[len(o.welcomes)-1] })
	if now := time.UnixMilli(w.Now).Add(-ahead[edge]); now.Before(before.Truncate(time.Millisecond)) || now.After(time.Now()) {
		a.t.Errorf("the clock of %s is ahead by %v, want %v", a.c.Edges[edge].Name(), time.UnixMilli(w.Now).Sub(before), ahead[edge])
	}
	return o
}

// publish has everybody publish n comments at the same time.
func (a *apart) publish(publishers []*onlooker, n int) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	from := len(a.said)
	for _, p := range publishers {
		wg.Go(func() { // ends with ctx
			for i := range n {
				text := fmt.Sprintf("%s %d %d", p.user, from, i)
				id, err := p.Comment(ctx, protocol.CommentRequest{Text: text})
				mu.Lock()
				if err != nil || a.said[id] != "" {
					a.t.Errorf("publish %q: id %q, %v", text, id, err)
				}
				a.said[id] = text
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if a.t.Failed() {
		a.t.FailNow()
	}
}

// sameOrder waits until everybody has as many comments as were acknowledged, and checks
// that these are the same for all, in one order.
func (a *apart) sameOrder(all []*onlooker) {
	a.t.Helper()
	eventually(a.t, 20*time.Second, "everybody has every comment", func() bool {
		return !slices.ContainsFunc(all, func(o *onlooker) bool { o.mu.Lock(); defer o.mu.Unlock(); return len(o.got) < len(a.said) })
	})
	var first []comment
	for i, o := range all {
		o.mu.Lock()
		if i == 0 {
			first = slices.Clone(o.got)
		}
		if !slices.Equal(o.got, first) || len(o.incidents) > 0 {
			a.t.Errorf("%s has %d comments, %s has %d, not the same; %v", o.user, len(o.got), all[0].user, len(first), o.incidents)
		}
		o.mu.Unlock()
	}
	got := map[string]string{}
	for _, c := range first {
		got[c.id] = c.text
		a.atEngineTime(c.text, c.at)
	}
	if len(first) != len(a.said) || !maps.Equal(got, a.said) {
		a.t.Errorf("%d comments were acknowledged, %d came, %d of them once", len(a.said), len(first), len(got))
	}
}

// atEngineTime checks that a time is of the clock that NATS and Redis have.
func (a *apart) atEngineTime(what string, ms int64) {
	a.t.Helper()
	if at := time.UnixMilli(ms); at.Before(a.began.Truncate(time.Millisecond)) || at.After(time.Now()) {
		a.t.Errorf("%s is of %v, and the cluster was started at %v", what, at, a.began)
	}
}

// sameHistory checks that a viewer of a room that nobody has watched on that node is
// shown the same, wherever that is.
func (a *apart) sameHistory() {
	a.t.Helper()
	const room, said, recent = "history", 60, 50
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	has := func(o *onlooker, n int) {
		eventually(a.t, 10*time.Second, fmt.Sprintf("%s has %d comments", o.user, n), func() bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			return len(o.got) >= n
		})
	}
	publisher := a.enter(right, room, "publisher", nil)
	for i := range said {
		if _, err := publisher.Comment(ctx, protocol.CommentRequest{Text: strconv.Itoa(i)}); err != nil {
			a.t.Fatal(err)
		}
	}
	has(publisher, said)
	publisher.leave()
	want := publisher.got[said-recent:]
	for edge := range ahead {
		newcomer := a.enter(edge, room, "newcomer", nil)
		has(newcomer, recent)
		newcomer.leave()
		if !slices.Equal(newcomer.got, want) {
			a.t.Errorf("on %s a newcomer has %v, want %v", a.c.Edges[edge].Name(), newcomer.got, want)
		}
	}
}

// tokens checks that a token holds by the clock of the node that is asked.
func (a *apart) tokens() {
	a.t.Helper()
	const in, out = http.StatusOK, http.StatusUnauthorized
	for name, tc := range map[string]struct {
		expires, begins time.Duration // from now; begins 0: at any time
		want            [len(ahead)]int
	}{
		"expires in 3 minutes":    {3 * time.Minute, 0, [...]int{slow: in, right: in, fast: out}},
		"expired 3 minutes ago":   {-3 * time.Minute, 0, [...]int{slow: in, right: out, fast: out}},
		"expired 9 minutes ago":   {-9 * time.Minute, 0, [...]int{slow: out, right: out, fast: out}},
		"expires in 9 minutes":    {9 * time.Minute, 0, [...]int{slow: in, right: in, fast: in}},
		"began a minute ago":      {time.Hour, -time.Minute, [...]int{slow: out, right: in, fast: in}},
		"begins in three minutes": {time.Hour, 3 * time.Minute, [...]int{slow: out, right: out, fast: in}},
	} {
		claims := jwt.MapClaims{"sub": "u", "rooms": []string{skewRoom}, "exp": time.Now().Add(tc.expires).Unix()}
		if tc.begins != 0 {
			claims["nbf"] = time.Now().Add(tc.begins).Unix()
		}
		tok, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(a.c.Secret)
		if err != nil {
			a.t.Fatal(err)
		}
		for edge, e := range a.c.Edges {
			if got, body := get(a.t, e.URL+"/v1/rooms/"+skewRoom, tok); got != tc.want[edge] {
				a.t.Errorf("a token that %s: %s answers %d, want %d: %s", name, e.Name(), got, tc.want[edge], body)
			}
		}
	}
}

// delivery checks what a node says of the time from the log to the sockets.
func (a *apart) delivery() {
	a.t.Helper()
	value := func(body, name string) float64 {
		m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(body)
		if m == nil {
			a.t.Fatalf("there is no %s", name)
		}
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			a.t.Fatal(err)
		}
		return v
	}
	for edge, e := range a.c.Edges {
		_, body := get(a.t, e.Ops+"/metrics", "")
		average := value(body, "kansei_delivery_seconds_sum") / value(body, "kansei_delivery_seconds_count")
		least := max(0, ahead[edge].Seconds())
		if !(average >= least && average < least+60) || edge == slow && average != 0 {
			a.t.Errorf("%s takes a delivery to last %v s on average", e.Name(), average)
		}
	}
}

// counted waits until some nodes have counts.
func (a *apart) counted(connections, users int, edges ...int) {
	a.t.Helper()
	eventually(a.t, 10*time.Second, fmt.Sprintf("%d connections of %d users", connections, users), func() bool {
		return !slices.ContainsFunc(edges, func(edge int) bool {
			n := counts(a.t, a.c.Edges[edge], a.token, skewRoom)
			return n == nil || n.Connections != connections || n.Users != users
		})
	})
}

// staysCounted checks that nodes have, and tell, the same counts for longer than a
// lease.
func (a *apart) staysCounted(connections, users int, here []*onlooker, edges ...int) {
	a.t.Helper()
	const lease = 6 * time.Second
	right := func(n *protocol.Viewers) bool { return n != nil && n.Connections == connections && n.Users == users }
	told := make([]int, len(here)) // which counts were told before, but for the last ones
	for i, o := range here {
		eventually(a.t, 10*time.Second, o.user+" is told the counts", func() bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			told[i] = len(o.counts) - 1
			return told[i] >= 0 && right(o.counts[told[i]])
		})
	}
	for began := time.Now(); time.Since(began) < lease+2*time.Second; time.Sleep(200 * time.Millisecond) {
		for _, edge := range edges {
			n := counts(a.t, a.c.Edges[edge], a.token, skewRoom)
			if !right(n) {
				a.t.Fatalf("after %v %s counts %+v, there are %d connections of %d users",
					time.Since(began), a.c.Edges[edge].Name(), n, connections, users)
			}
			a.atEngineTime("a count", n.At)
		}
	}
	for i, o := range here {
		o.mu.Lock()
		for _, n := range o.counts[told[i]:] {
			if !right(n) {
				a.t.Errorf("%s was told %+v, there are %d connections of %d users", o.user, n, connections, users)
			}
		}
		o.mu.Unlock()
	}
}

// killed kills a node: within 10 s its viewers do not count any more, and those of the
// others do all the time.
func (a *apart) killed(edge int, connections, users int, others ...int) {
	a.t.Helper()
	e := a.c.Edges[edge]
	if err := e.Kill(); err != nil {
		a.t.Fatal(err)
	}
	began := time.Now()
	eventually(a.t, 10*time.Second, "the viewers of "+e.Name()+" are gone", func() bool {
		gone := true
		for _, other := range others {
			n := counts(a.t, a.c.Edges[other], a.token, skewRoom)
			if n == nil || n.Connections < connections || n.Users < users {
				a.t.Fatalf("%s counts %+v, %d connections of %d users are left", a.c.Edges[other].Name(), n, connections, users)
			}
			gone = gone && n.Connections == connections && n.Users == users
		}
		return gone
	})
	a.t.Logf("%s, whose clock is ahead by %v, was killed: right after %v", e.Name(), ahead[edge], time.Since(began).Round(10*time.Millisecond))
}

// get returns the status and the body of an answer.
func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

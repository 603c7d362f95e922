package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/loadtest"
	"github.com/kansei-live/kansei/protocol"
)

// A raid, and what a moderator does about it. In a room with 2,000 viewers some of them say 10 comments a second. 300
// bots come from three addresses, half of them guests and half new users, and say one text in variations, as fast as
// their rates let them. So do some honest newcomers, who say other things; and some of the regulars quote the bots. Then
// a moderator lays the shield over the room, the first click; looks, a moment later, what a sweep would find; and sweeps.
// Witnesses, who are viewers too, note what they are shown and told.

const (
	raidViewers, raidBots, raidNewcomers = 2000, 300, 10
	raidSpeakers                         = 200 // of the viewers, in turns
	raidRate                             = 10
	raidAddresses                        = 3
	raidWitnesses                        = 5
	// raidText is what the bots say, and what the sweep looks for.
	raidText = "join now"
	// raidLasts is how long the raid lasts before the first click, and raidLooks how long behind it the moderator
	// takes to look at the room.
	raidLasts, raidLooks = 4 * time.Second, time.Second
)

// raid is one raid.
type raid struct {
	*bench
	node     *node
	room     string
	audience *crowd
	mod      string // token
	texts    func() protocol.CommentRequest
	turn     int // of the regulars who speak

	life    context.Context // of the clients
	leave   context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	bots      map[string]bool // ids of users
	blocked   int             // comments of honest newcomers that were refused
	clicked   int64           // when the moderator did first; 0: not yet
	witnesses []*witness
}

// witness is what a viewer was shown.
type witness struct {
	authors map[string]string // of all that it was shown, by the id of the comment
	removed map[string]bool
	latest  int64 // when it was shown a bot's comment last
}

// raided is what one raid came to.
type raided struct {
	bots, honest, swept         int
	late, left, caught, missing float64 // s, comments, %, comments
	calm, under                 float64 // p99, ms
}

func (b *bench) raid(ctx context.Context) error {
	if err := sockets(b.scaled(raidViewers) + b.scaled(raidBots) + spareFiles); err != nil {
		return err
	}
	// The addresses of viewers and bots are told by the PROXY protocol.
	n, err := b.startNode(ctx, "--guests=comment", "--node-secret="+b.secret, "--trusted-proxy=127.0.0.0/8", "--proxy-protocol")
	if err != nil {
		return err
	}
	var late, left, caught, missing, p99, calm, under Spread
	for pair := range b.cmd.Pairs {
		texts, err := loadtest.Texts(b.cmd.Trace, uint64(pair)+1)
		if err != nil {
			return err
		}
		r := &raid{bench: b, node: n, room: fmt.Sprint("raid-", pair), texts: texts, bots: map[string]bool{}}
		r.life, r.leave = context.WithCancel(ctx)
		got, err := r.run(ctx)
		r.leave()
		r.running.Wait()
		if err != nil {
			return err
		}
		late, left, caught, missing = append(late, got.late), append(left, got.left), append(caught, got.caught), append(missing, got.missing)
		calm, under, p99 = append(calm, got.calm), append(under, got.under), append(p99, got.under/got.calm)
		b.say("  pair %d: %d comments of bots and %d honest ones were shown, the shield refused %d of honest newcomers; the last one of a bot was shown %.2f s after the click; %d swept, %.0f left, %.1f %% of the honest ones caught, %.0f not back; p99 %.1f ms, calm %.1f ms",
			pair+1, got.bots, got.honest, r.blocked, got.late, got.swept, got.left, got.caught, got.missing, got.under, got.calm)
	}
	note := fmt.Sprintf("%d viewers, %d comments/s of honest people, %d bots from %d addresses", b.scaled(raidViewers), raidRate, b.scaled(raidBots), raidAddresses)
	for _, row := range []Row{
		{Figure: "last new comment of a bot that is shown, after the first click", Unit: "s", Bound: within(1), Values: late, Note: note},
		{Figure: "comments of bots that are left on a screen", Bound: within(0), Values: left},
		{Figure: "honest comments that are caught", Unit: "%", Bound: within(1), Values: caught},
		{Figure: "comments that Undo does not bring back", Bound: within(0), Values: missing},
		{Figure: "p99 of honest deliveries from the first click on, of that before the raid", Unit: "×", Bound: within(1.5), Values: p99, Node: under, Floor: calm, Raw: "ms"},
	} {
		row.Goal, row.Scenario = 10, "raid"
		b.report.add(row)
	}
	return nil
}

func (r *raid) run(ctx context.Context) (got raided, err error) {
	if r.mod, err = r.token("mod", protocol.RoleModerator); err != nil {
		return got, err
	}
	known := max(2*r.cmd.Window, 10*time.Second) // longer than the raid lasts
	if err := r.ask(ctx, http.MethodPatch, "", fmt.Sprintf(`{"known_ms":%d}`, known.Milliseconds()), nil); err != nil {
		return got, err
	}
	if err := r.gather(ctx); err != nil {
		return got, err
	}
	arrived := now()
	calm, err := r.speak(ctx, nil)
	if err != nil {
		return got, err
	}
	if err := sleepUntil(ctx, arrived+int64(known+2*time.Second)); err != nil { // first seen is told in seconds
		return got, err
	}
	if err := r.attack(ctx); err != nil {
		return got, err
	}
	if err := sleep(ctx, raidLasts); err != nil {
		return got, err
	}
	var act string
	acted := make(chan error, 1)
	under, err := r.speak(ctx, func() {
		// Ends with its answers.
		go func() { acted <- r.defend(ctx, known, &got.swept, &act) }()
	})
	if err := errors.Join(err, <-acted); err != nil {
		return got, err
	}
	got.calm, got.under = calm.quantile(99), under.quantile(99)
	before, err := r.readable(ctx)
	if err != nil {
		return got, err
	}
	r.judge(&got, before)
	if err := r.ask(ctx, http.MethodPost, "/acts", fmt.Sprintf(`{"type":"undo","act":%q}`, act), nil); err != nil {
		return got, err
	}
	after, err := r.readable(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.witnesses[0].removed {
		if !after[id] {
			got.missing++
		}
	}
	return got, err
}

// gather brings the audience and the witnesses in.
func (r *raid) gather(ctx context.Context) (err error) {
	r.audience, err = r.newCrowd(r.node.address, true, func(i int) []byte {
		token, err := r.token(fmt.Sprint("v", i), protocol.RoleViewer)
		if err != nil {
			token = err.Error() // the node will say that it is no token
		}
		from := fmt.Sprintf("198.51.%d.%d", 100+i/250, 1+i%250)
		return append(proxyLine(from), upgrade(r.node.address, r.room, token, r.cmd.Compress)...)
	})
	if err != nil {
		return err
	}
	if err := r.audience.bring(ctx, 0, r.viewers(), r.cmd.JoinRate, normal); err != nil {
		return err
	}
	for i := range raidWitnesses {
		w := &witness{authors: map[string]string{}, removed: map[string]bool{}}
		r.witnesses = append(r.witnesses, w)
		user := fmt.Sprint("witness", i)
		token, err := r.token(user, protocol.RoleViewer)
		if err != nil {
			return err
		}
		if _, err := r.come(ctx, fmt.Sprintf("198.51.90.%d", 1+i), token, client.Handler{
			Comments: func(m *protocol.Comments) { r.shows(w, m.Items, true) },
			Removed: func(m *protocol.Removed) {
				r.mu.Lock()
				defer r.mu.Unlock()
				for _, id := range m.IDs {
					w.removed[id] = true
				}
			},
		}); err != nil {
			return err
		}
	}
	return nil
}

// viewers is how many regulars there are: more than speak in two windows of the smallest run.
func (r *raid) viewers() int { return max(r.scaled(raidViewers), 40) }

// shows notes what a witness is shown.
func (r *raid) shows(w *witness, items []protocol.Comment, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range items {
		w.authors[items[i].ID] = items[i].User.ID
		if fresh && r.bots[items[i].User.ID] {
			w.latest = now()
		}
	}
}

// come brings a client in from an address, and returns it and who it is.
func (r *raid) come(ctx context.Context, from, token string, h client.Handler) (visitor, error) {
	v := visitor{}
	in := make(chan string, 1)
	h.Welcome = func(w *protocol.Welcome) {
		select {
		case in <- w.You.ID:
		default:
		}
	}
	cfg := client.Config{
		URLs: []string{"ws://" + r.node.address}, Room: r.room, Compress: r.cmd.Compress, Handler: h,
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: proxied(from)}},
	}
	if token != "" {
		cfg.Token = client.StaticToken(token)
	}
	var err error
	if v.Client, err = client.New(cfg); err != nil {
		return v, err
	}
	r.running.Go(func() { _ = v.Run(r.life) }) // ends with r.life
	select {
	case v.id = <-in:
		return v, nil
	case <-time.After(startTimeout):
		return v, fmt.Errorf("bench: a client from %s is not let in", from)
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

// visitor is a client that is in.
type visitor struct {
	*client.Client
	id string
}

// attack brings the bots in, and honest newcomers, and has them speak until the raid ends.
func (r *raid) attack(ctx context.Context) error {
	for i := range r.scaled(raidBots) {
		token, err := "", error(nil)
		if i%2 == 0 { // others are guests
			token, err = r.token(fmt.Sprint("bot", i), protocol.RoleViewer)
		}
		if err != nil {
			return err
		}
		v, err := r.come(ctx, fmt.Sprintf("203.0.113.%d", 1+i%raidAddresses), token, client.Handler{})
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.bots[v.id] = true
		r.mu.Unlock()
		rng := rand.New(rand.NewPCG(uint64(i), 15))
		r.talk(v, func() string { return variation(rng) }, func(error) {})
	}
	for i := range r.scaled(raidNewcomers) {
		v, err := r.come(ctx, fmt.Sprintf("192.0.2.%d", 10+i), "", client.Handler{})
		if err != nil {
			return err
		}
		r.talk(v, func() string { return r.texts().Text }, func(err error) {
			if _, refused := errors.AsType[*protocol.Error](err); refused {
				r.mu.Lock()
				r.blocked++
				r.mu.Unlock()
			}
		})
	}
	return nil
}

// talk has somebody say something about once a second until the raid ends.
func (r *raid) talk(v visitor, text func() string, refused func(error)) {
	r.running.Go(func() { // ends with r.life
		for {
			ctx, cancel := context.WithTimeout(r.life, 10*time.Second)
			if _, err := v.Comment(ctx, protocol.CommentRequest{Text: text()}); err != nil {
				refused(err)
			}
			cancel()
			if sleep(r.life, time.Second+rand.N(200*time.Millisecond)) != nil {
				return
			}
		}
	})
}

// variation is what a bot says.
func variation(rng *rand.Rand) string {
	forms := []string{"JOIN NOW", "join  now!!", "ｊｏｉｎ ｎｏｗ", "Jóin Nöw", "j.o.i.n n-o-w", "𝗝𝗢𝗜𝗡 𝗡𝗢𝗪"}
	return fmt.Sprintf("%s %s%d", forms[rng.IntN(len(forms))], []string{"", "🔥", "→ evil.example/"}[rng.IntN(3)], rng.IntN(1000))
}

// speak has the regulars speak for a while, one in twenty quoting the bots; begun is called at the beginning.
func (r *raid) speak(ctx context.Context, begun func()) (sample, error) {
	speakers := min(r.viewers(), raidSpeakers)
	plan := r.newSchedule(raidRate, 3*r.cmd.Window)
	s, err := r.measured(ctx, r.node.process, r.audience, plan, r.viewers(), func() error {
		if begun != nil {
			begun()
		}
		for i := range plan.count {
			said := text(plan.window, i)
			if i%20 == 0 {
				said += " what is " + raidText + "?"
			}
			frame, err := frameOf(plan.window, i, said)
			if err != nil {
				return err
			}
			if err := sleepUntil(ctx, plan.due(uint32(i))); err != nil {
				return err
			}
			r.audience.send(r.turn%speakers, frame) // so that slow mode keeps nobody from it
			r.turn++
		}
		return nil
	})
	return s, errors.Join(err, r.audience.refusals())
}

// defend does what the moderator does.
func (r *raid) defend(ctx context.Context, known time.Duration, swept *int, act *string) error {
	r.mu.Lock()
	r.clicked = now()
	r.mu.Unlock()
	if err := r.ask(ctx, http.MethodPatch, "", `{"shield":true}`, nil); err != nil {
		return err
	}
	if err := sleep(ctx, raidLooks); err != nil {
		return err
	}
	var found protocol.Sweep
	query := fmt.Sprintf(`{"last_ms":60000,"guests":true,"newcomers_ms":%d,"text":%q}`, known.Milliseconds(), raidText)
	if err := r.ask(ctx, http.MethodPost, "/sweeps", query, &found); err != nil {
		return err
	}
	var done protocol.ActDone
	err := r.ask(ctx, http.MethodPost, "/acts", fmt.Sprintf(`{"type":"sweep","sweep":%q,"sure":true,"until":"broadcast","reason":"raid"}`, found.Sweep), &done)
	*swept, *act = found.Comments, done.Act
	return err
}

// judge says what the witnesses were shown, and what is left of it: on their screens, or for those who read the room.
func (r *raid) judge(got *raided, readable map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.witnesses {
		bots, honest, left, caught := 0, 0, 0, 0
		for id, author := range w.authors {
			switch gone := w.removed[id]; {
			case r.bots[author]:
				bots++
				if !gone || readable[id] {
					left++
				}
			default:
				honest++
				if gone {
					caught++
				}
			}
		}
		got.bots, got.honest = max(got.bots, bots), max(got.honest, honest)
		got.left, got.caught = max(got.left, float64(left)), max(got.caught, 100*float64(caught)/float64(max(1, honest)))
		got.late = max(got.late, time.Duration(w.latest-r.clicked).Seconds())
	}
}

// readable are the ids of the comments that everybody can read.
func (r *raid) readable(ctx context.Context) (map[string]bool, error) {
	all, path := map[string]bool{}, "/comments?limit=1000"
	for {
		var page protocol.Comments
		if err := r.ask(ctx, http.MethodGet, path, "", &page); err != nil {
			return nil, err
		}
		for i := range page.Items {
			all[page.Items[i].ID] = true
		}
		if page.Before == "" {
			return all, nil
		}
		path = "/comments?limit=1000&before=" + url.QueryEscape(page.Before)
	}
}

func (r *raid) token(user string, role protocol.Role) (string, error) {
	return loadtest.Mint(r.node.secret, r.room, user, user, role, time.Now())
}

// ask makes a request of the moderator's that has to succeed.
func (r *raid) ask(ctx context.Context, method, path, body string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+r.node.address+"/v1/rooms/"+r.room+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+r.mod)
	transport := &http.Transport{DialContext: proxied("192.0.2.1"), DisableKeepAlives: true}
	res, err := (&http.Client{Transport: transport, Timeout: startTimeout}).Do(req)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	answer, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("bench: %s %s: %s: %.200s", method, path, res.Status, answer)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(answer, into)
	}
	return err
}

// proxyLine is the PROXY protocol's line, version 1, for a connection from an address.
func proxyLine(from string) []byte {
	return fmt.Appendf(nil, "PROXY TCP4 %s 127.0.0.1 4000 80\r\n", from)
}

// proxied dials as a proxy does that has seen an address.
func proxied(from string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			if _, err = c.Write(proxyLine(from)); err != nil {
				_ = c.Close() // the first error counts
			}
		}
		return c, err
	}
}

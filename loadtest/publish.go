package loadtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
)

// publisher is one connection that publishes.
type publisher struct {
	client *client.Client
	number int32
	// pace keeps to the limits: what is late must not come in a bunch that is
	// refused.
	pace *rate.Limiter
}

// pace is a limiter a little below a publisher's limits, since what leaves evenly
// need not arrive so.
func pace(limits protocol.Limits) *rate.Limiter {
	if limits.PerS <= 0 {
		return rate.NewLimiter(rate.Inf, 1)
	}
	return rate.NewLimiter(rate.Limit(limits.PerS*0.95), max(limits.Burst*9/10, 1))
}

// published counts what became of the plan.
type published struct {
	mu         sync.Mutex
	sent       int64
	acked      int64
	refused    map[protocol.ErrorCode]int64
	unanswered int64
	late       int64 // sent more than lateAfter behind its time
	worst      time.Duration
	began      int64
	length     time.Duration // from the first to the last sending
}

const (
	lateAfter = 50 * time.Millisecond
	// maxInFlight bounds the comments that wait for an answer: what 12 s, the longest
	// that a server takes to answer, make at 1,000 a second.
	maxInFlight = 12_000
	// answerPatience is how long the last comments may wait for their answer: long
	// enough to lose a node, come back, and be told that an outcome is unknown.
	answerPatience = 40 * time.Second
)

// connect starts one publisher, which is done when ctx ends, and waits for its
// welcome.
func (r *run) connect(ctx context.Context, number int) (*publisher, *protocol.Welcome, error) {
	// Everybody gets id and name with each comment: they are as short as those of users.
	name := fmt.Sprintf("p%d", number)
	user := name
	switch {
	case r.cmd.UserIDs == idsUUID:
		user = uuid(r.rng)
	case r.cmd.Room != "": // another run may be in it
		user = r.tag + name
	}
	token, err := r.token(user, name, protocol.RoleBroadcaster)
	if err != nil {
		return nil, nil, err
	}
	welcome := make(chan *protocol.Welcome, 1)
	var last error
	cfg := client.Config{URLs: r.addresses(number), Handler: client.Handler{
		Welcome: func(w *protocol.Welcome) {
			select {
			case welcome <- w:
			default: // it came back
			}
		},
		Disconnected: func(err error, _ time.Duration) { last = err },
	}}
	c, err := r.client(cfg, token)
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	r.publishing.Go(func() { // ends with ctx
		defer close(done)
		_ = c.Run(ctx) // its end shows in what it publishes
	})
	t := time.NewTimer(joinPatience)
	defer t.Stop()
	select {
	case w := <-welcome:
		return &publisher{client: c, number: r.check.publisher(w.You.ID), pace: pace(w.Limits)}, w, nil
	case <-done:
		return nil, nil, fmt.Errorf("loadtest: publisher: %w", last)
	case <-t.C:
		return nil, nil, fmt.Errorf("loadtest: no publisher could join within %v", joinPatience)
	}
}

// connectAll starts as many publishers as the plan needs.
func (r *run) connectAll(ctx context.Context) error {
	first, w, err := r.connect(ctx, 0)
	if err != nil {
		return err
	}
	r.publishers = []*publisher{first}
	if !slices.Contains(w.You.Can, protocol.CanComment) {
		return fmt.Errorf("loadtest: %s may not comment in %s: is the secret that of the nodes (--auth-secret)?", w.You.ID, r.room)
	}
	n := r.cmd.Publishers
	if n == 0 {
		n = max(r.plan.enough(w.Limits), min(len(r.cmd.URL), r.plan.total))
	}
	if over := r.plan.tooMany(n, w.Limits); over > 0 {
		r.say("%d publishers at %v/s and %d at once are too few: about %d comments will be late", n, w.Limits.PerS, w.Limits.Burst, over)
	}
	if err := RaiseFileLimit(r.cmd.Viewers + n); err != nil {
		return err
	}
	for number := 1; number < n; number++ {
		p, _, err := r.connect(ctx, number)
		if err != nil {
			return err
		}
		r.publishers = append(r.publishers, p)
	}
	return nil
}

// publish sends every comment of the plan when it is due, until ctx ends, and
// waits for the answers. It says whether all were sent.
func (r *run) publish(ctx, life context.Context) (complete bool) {
	life, giveUp := context.WithCancel(life)
	defer giveUp()
	var sending sync.WaitGroup
	slots := make(chan struct{}, maxInFlight)
	timer := time.NewTimer(0)
	defer timer.Stop()
	began := r.check.now()
	turn := 0
	complete = true
	for d := range r.plan.all {
		at := began + int64(d.at)
		timer.Reset(time.Duration(at - r.check.now()))
		if !receive(ctx, timer.C) || !send(ctx, slots) {
			complete = false
			break
		}
		p := r.publishers[turn%len(r.publishers)]
		turn++
		d.req.Ref = strconv.Itoa(turn)
		sending.Go(func() { // ends with its answer, or with life
			defer func() { <-slots }()
			r.one(life, p, d.req, at)
		})
	}
	r.out.mu.Lock()
	r.out.began, r.out.length = began, time.Duration(r.check.now()-began)
	r.out.mu.Unlock()
	stop := time.AfterFunc(answerPatience, giveUp)
	defer stop.Stop()
	sending.Wait()
	return complete
}

func receive[T any](ctx context.Context, c <-chan T) bool {
	select {
	case <-c:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func send(ctx context.Context, c chan<- struct{}) bool {
	select {
	case c <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// one publishes one comment that is due at that time.
func (r *run) one(ctx context.Context, p *publisher, req protocol.CommentRequest, due int64) {
	var id string
	err := p.pace.Wait(ctx)
	sent := r.check.now()
	behind := time.Duration(sent - due)
	if err == nil {
		id, err = p.client.Comment(ctx, req)
	}
	if err == nil {
		r.check.acknowledged(id, p.number, due, sent)
	}
	o := &r.out
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent++
	o.worst = max(o.worst, behind)
	if behind > lateAfter {
		o.late++
	}
	refusal, refused := errors.AsType[*protocol.Error](err)
	switch {
	case err == nil:
		o.acked++
	case refused && refusal.Code != protocol.CodeUnknownOutcome:
		o.refused[refusal.Code]++
	default:
		o.unanswered++
		r.check.unanswered(p.number)
	}
}

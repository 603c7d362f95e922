package loadtest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
)

// run is one run under way. Its phases follow one another in execute: join,
// publish, settle, leave.
type run struct {
	cmd    *Command
	plan   plan
	room   string
	tag    string // tells this run's users from those of others
	http   *http.Transport
	check  *checker
	losses *losses
	saying sync.Mutex
	stderr io.Writer

	buffers client.Buffers
	audience
	viewing    sync.WaitGroup
	publishing sync.WaitGroup
	publishers []*publisher
	out        published

	rng     *rand.Rand // of execute's goroutine
	asked   int        // viewers that set out to join; -1: does not matter
	latency *latencies // of show's goroutine, and then of execute's
}

const (
	// joinPatience is how long the last viewers may take to join.
	joinPatience = 60 * time.Second
	pollEvery    = 20 * time.Millisecond
)

func (r *run) say(format string, a ...any) {
	r.saying.Lock()
	defer r.saying.Unlock()
	_, _ = fmt.Fprintf(r.stderr, format+"\n", a...) // progress is no reason to fail
}

// token makes a user's token; empty when there is no secret.
func (r *run) token(user, name string, role protocol.Role) (string, error) {
	if r.cmd.AuthSecret == "" {
		return "", nil
	}
	signs, _, _ := strings.Cut(r.cmd.AuthSecret, ",") // of two that nodes have, the one in use
	return Mint(strings.TrimSpace(signs), r.room, user, name, role, time.Now())
}

// execute makes the run. The end of ctx shortens it; everything else lives until
// execute ends it.
func (r *run) execute(ctx context.Context) (*Report, error) {
	r.out.refused = make(map[protocol.ErrorCode]int64)
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer r.http.CloseIdleConnections()
	defer r.publishing.Wait()
	defer r.viewing.Wait()
	defer end()
	showing, hide := context.WithCancel(life)
	defer hide()
	var progress sync.WaitGroup
	progress.Go(func() { r.show(showing) }) // ends with hide
	defer progress.Wait()
	defer hide()

	joining, err := r.join(ctx, life)
	if err != nil {
		return nil, err
	}
	interrupted := ctx.Err() != nil
	if !interrupted {
		if err := r.connectAll(life); err != nil {
			return nil, err
		}
		r.say("publishing %d comments in %v as %d publishers", r.plan.total, r.plan.length.Round(time.Second), len(r.publishers))
		interrupted = !r.publish(ctx, life)
	}
	settled := r.settle()
	ended := r.check.now()
	r.check.close()
	hide()
	progress.Wait()
	r.latency.add(r.check.collect(true))
	report := r.report(joining, settled, ended)
	report.Interrupted = interrupted
	return report, nil
}

// join brings the viewers in, and returns how long that took.
func (r *run) join(ctx, life context.Context) (time.Duration, error) {
	began := time.Now()
	r.say("%d viewers join %s on %d nodes", r.cmd.Viewers, r.room, len(r.cmd.URL))
	timer := time.NewTimer(0)
	defer timer.Stop()
	n := 0
	for ; n < r.cmd.Viewers; n++ {
		at := time.Duration(float64(n) / r.cmd.JoinRate * float64(time.Second))
		timer.Reset(at - time.Since(began))
		if !receive(ctx, timer.C) {
			break
		}
		user := fmt.Sprintf("v%d", n)
		if r.cmd.UserIDs == idsUUID {
			user = uuid(r.rng)
		}
		token, err := r.token(user, fmt.Sprintf("Viewer %d", n), protocol.RoleViewer)
		if err != nil {
			return 0, err
		}
		number := n
		r.viewing.Go(func() { r.view(life, number, token) }) // ends with life, or when it is sent away
	}
	deadline := time.Now().Add(joinPatience)
	for ctx.Err() == nil && time.Now().Before(deadline) {
		if _, ended := r.losses.counted(); r.joined.Load()+ended >= int64(n) {
			break
		}
		timer.Reset(pollEvery)
		receive(ctx, timer.C)
	}
	r.asked = n
	if ctx.Err() != nil {
		r.asked = -1 // as many as had the time to
	} else if r.joined.Load() == 0 {
		return 0, fmt.Errorf("loadtest: no viewer could join: %w", r.losses.lastError())
	}
	return time.Since(began), nil
}

// settle waits until every viewer has received all that it should, and returns how
// long that took; the longest time allowed if they never do.
func (r *run) settle() time.Duration {
	began := time.Now()
	for time.Since(began) < r.cmd.Settle {
		if r.check.caughtUp() {
			return time.Since(began)
		}
		time.Sleep(pollEvery)
	}
	return r.cmd.Settle
}

// show prints a line of progress each second until ctx ends. It is what turns
// arrivals into latencies.
func (r *run) show(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	began := time.Now()
	var before counts
	var ackedBefore int64
	for receive(ctx, tick.C) {
		r.latency.add(r.check.collect(false))
		now, acked := r.check.totals()
		lost, ended := r.losses.counted()
		r.say("%4.0fs  %d viewers  %d comments/s  %d deliveries/s  p50 %s  p99 %s  lost connections %d%s%s",
			time.Since(began).Seconds(), r.watching.Load(), acked-ackedBefore, now.deliveries-before.deliveries,
			quantile(r.latency.recent, 50), quantile(r.latency.recent, 99), lost,
			unless0("  sent away ", ended), unless0("  trouble ", now.trouble()))
		before, ackedBefore = now, acked
	}
}

func unless0(label string, n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s%d", label, n)
}

// trouble is how much went wrong so far.
func (c *counts) trouble() int64 {
	return c.duplicates + c.disorder + c.gaps + c.notRecovered + c.withheld + c.malformed
}

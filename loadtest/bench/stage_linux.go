package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// fanout is a scenario of comments that many get.
type fanout struct {
	name    string
	viewers int             // all connections
	members int             // who get one comment
	people  func(i int) who // the i-th viewer
	speaker speaker
	rate    float64 // comments a second, in all rooms together
}

// spareFiles are descriptors for everything but viewers.
const spareFiles = 200

// room is a node with the audience of a fan-out.
type room struct {
	fanout
	bench    *bench
	node     *node
	audience *crowd
}

// room starts a node, with these flags beside the usual ones, and brings everybody in.
func (b *bench) room(ctx context.Context, f fanout, flags ...string) (*room, error) {
	if err := sockets(f.viewers + spareFiles); err != nil {
		return nil, err
	}
	r := &room{fanout: f, bench: b}
	var err error
	if r.node, err = b.startNode(ctx, flags...); err != nil {
		return nil, err
	}
	if r.audience, err = b.crowd(r.node, f.people); err != nil {
		return nil, err
	}
	return r, r.audience.bring(ctx, 0, f.viewers, b.cmd.JoinRate, normal)
}

// play is a window in which the viewers speak.
func (r *room) play(ctx context.Context, length time.Duration) (sample, error) {
	return r.playFrom(ctx, r.audience, r.speaker, length)
}

// playFrom is a window in which those of another crowd speak.
func (r *room) playFrom(ctx context.Context, from *crowd, who speaker, length time.Duration) (sample, error) {
	s, err := r.bench.play(ctx, r.node, r.audience, from, r.rate, length, r.members, who)
	s.viewers = r.viewers
	return s, err
}

// warm is a window that is in no figure: caches, buffers, the pace of rooms.
func (r *room) warm(ctx context.Context) (sample, error) { return r.play(ctx, r.bench.cmd.Window/5) }

// ground is a floor with its sockets.
type ground struct {
	*bare
	bench   *bench
	crowd   *crowd
	sockets int
}

// ground starts a floor of so many sockets beside others that are open already; of half as many
// where the limit of open files allows no more.
func (b *bench) ground(ctx context.Context, n, others int) (*ground, error) {
	if sockets(n+others+spareFiles) != nil {
		n = max(n/2, 1)
		b.say("  the floor has %d sockets: the limit of open files allows no more", n)
	}
	if err := sockets(n + others + spareFiles); err != nil {
		return nil, err
	}
	f, err := b.startFloor(ctx)
	if err != nil {
		return nil, err
	}
	g := &ground{bare: f, bench: b, sockets: n}
	if g.crowd, err = b.floorCrowd(f); err != nil {
		return nil, err
	}
	return g, g.crowd.bring(ctx, 0, n, b.cmd.JoinRate, normal)
}

// toAll is a window in which the floor writes size bytes to all its sockets, rate times a second.
func (g *ground) toAll(ctx context.Context, rate float64, size int) (sample, error) {
	return g.write(ctx, rate, size, 0, g.sockets)
}

// toSome is a window in which it writes to the next some of them, rate times a second.
func (g *ground) toSome(ctx context.Context, rate float64, size, some int) (sample, error) {
	some = min(some, g.sockets)
	return g.write(ctx, rate, size, some, some)
}

func (g *ground) write(ctx context.Context, rate float64, size, group, members int) (sample, error) {
	plan := g.bench.newSchedule(rate, g.bench.cmd.Window)
	s, err := g.bench.measured(ctx, g.process, g.crowd, plan, members, func() error {
		a, err := g.bare.write(ctx, plan, size, group)
		if err == nil && a.Failed > 0 {
			err = fmt.Errorf("bench: %d of %d writes of the floor were not taken", a.Failed, a.Writes)
		}
		return err
	})
	s.viewers = g.sockets
	return s, err
}

// pairs are windows of node and floor, taken in turns.
type pairs struct {
	node, floor []sample
}

func (p *pairs) add(node, floor sample) {
	p.node, p.floor = append(p.node, node), append(p.floor, floor)
}

func spread(samples []sample, f func(*sample) float64) Spread {
	out := make(Spread, 0, len(samples))
	for i := range samples {
		out = append(out, f(&samples[i]))
	}
	return out
}

// each makes one value of each pair.
func (p *pairs) each(f func(node, floor *sample) float64) Spread {
	out := make(Spread, 0, len(p.node))
	for i := range p.node {
		out = append(out, f(&p.node[i], &p.floor[i]))
	}
	return out
}

// inTurn does the steps of the i-th round of a comparison: every other round backwards, so that
// none of them gains by its place.
func inTurn(i int, steps ...func() error) error {
	if i%2 == 1 {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// compare measures a fan-out in pairs. rate is how often the floor writes to each of its
// sockets, by what the node did last.
func (b *bench) compare(ctx context.Context, f fanout, rate func(*sample) float64) (*pairs, error) {
	r, err := b.room(ctx, f)
	if err != nil {
		return nil, err
	}
	g, err := b.ground(ctx, f.viewers, f.viewers)
	if err != nil {
		return nil, err
	}
	last, err := r.warm(ctx)
	if err != nil {
		return nil, err
	}
	var p pairs
	for i := range b.cmd.Pairs {
		var n, w sample
		err := inTurn(i, func() (err error) {
			n, err = r.play(ctx, b.cmd.Window)
			return err
		}, func() (err error) {
			w, err = g.toAll(ctx, rate(&last), last.frameSize())
			return err
		})
		if err != nil {
			return nil, err
		}
		last = n
		p.add(n, w)
		b.say("  pair %d: node %.2f µs, p50 %.1f ms, p99 %.1f ms, %.1f comments and %d B a frame; floor %.2f µs, p50 %.1f ms", i+1,
			n.cost(), n.quantile(50), n.quantile(99), n.perFrame(), n.frameSize(), w.cost(), w.quantile(50))
	}
	return &p, r.profile(ctx)
}

// profile takes profiles of the node in a further window, if they are wanted.
func (r *room) profile(ctx context.Context) error {
	return r.bench.profile(ctx, r.node, r.name, func() error {
		_, err := r.play(ctx, r.bench.cmd.Window)
		return err
	})
}

// profile takes profiles of a node while act makes it work, if they are wanted.
func (b *bench) profile(ctx context.Context, n *node, name string, act func() error) error {
	if b.cmd.Profiles == "" {
		return nil
	}
	if err := os.MkdirAll(b.cmd.Profiles, 0o755); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	failed := make(chan error, 1)
	// Ends with the profile, or with ctx.
	go func() {
		failed <- b.fetch(ctx, n, fmt.Sprintf("/debug/pprof/profile?seconds=%d", max(1, int(b.cmd.Window.Seconds()))), name+".cpu.pprof")
	}()
	err := act()
	err = errors.Join(err, <-failed)
	return errors.Join(err, b.fetch(ctx, n, "/debug/pprof/heap", name+".heap.pprof"), b.fetch(ctx, n, "/debug/pprof/allocs", name+".allocs.pprof"))
}

func (b *bench) fetch(ctx context.Context, n *node, path, file string) error {
	body, err := n.get(ctx, path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.cmd.Profiles, file), body, 0o644); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}

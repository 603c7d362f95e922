package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// sample is what one window measured.
type sample struct {
	tally
	cpu     time.Duration // of the server's process
	viewers int
	length  time.Duration
	lost    int64 // comments that did not come, and of which nobody was told
}

// cost is the CPU of one delivery in microseconds. The floor's frames have one comment
// each: a delivery is a write.
func (s *sample) cost() float64 {
	return float64(s.cpu.Nanoseconds()) / 1000 / float64(max(s.deliveries, 1))
}

// quantile is a percentile of the latency in milliseconds.
func (s *sample) quantile(q float64) float64 { return float64(s.latency.ValueAtQuantile(q)) / 1000 }

// frameSize is the mean size of a frame in bytes, frameRate how many a viewer got in a
// second.
func (s *sample) frameSize() int { return int(s.bytes / max(s.frames, 1)) }

func (s *sample) frameRate() float64 {
	return float64(s.frames) / float64(s.viewers) / s.length.Seconds()
}

const (
	// settlePatience is how long viewers may take to get the last comments, and quietFor
	// how long nothing may come before that is given up.
	settlePatience = 30 * time.Second
	quietFor       = 2 * time.Second
)

// speaker says who says the n-th comment of a window.
type speaker func(n int) int

// comment is a viewer's frame with the n-th comment of a window.
func comment(window uint32, n int) ([]byte, error) {
	ms := int64(n) * 1000
	p, err := json.Marshal(struct {
		Type    string          `json:"type"`
		Ref     string          `json:"ref"`
		Text    string          `json:"text"`
		MediaMS *int64          `json:"media_ms"`
		Style   *protocol.Style `json:"style,omitempty"`
	}{"comment", fmt.Sprintf("%d.%d", window, n), text(window, n), &ms, style(n)})
	if err != nil {
		return nil, fmt.Errorf("bench: comment: %w", err)
	}
	return clientFrame(opText, p), nil
}

// style is that of three comments in five, as audiences have it.
func style(n int) *protocol.Style {
	switch n % 5 {
	case 0, 1:
		return nil
	case 2:
		return &protocol.Style{Size: "big", Color: "#ff0000"}
	}
	return &protocol.Style{Color: "#ffffff"}
}

func (b *bench) newSchedule(rate float64, length time.Duration) schedule {
	b.windows++
	return newSchedule(b.windows, rate, length)
}

// play publishes rate comments a second for some time, each of which members viewers of c
// get, and measures what that costs the node until the last has come. Those who speak are
// of from, which is c or a crowd at another node.
func (b *bench) play(ctx context.Context, n *node, c, from *crowd, rate float64, length time.Duration, members int, who speaker) (sample, error) {
	plan := b.newSchedule(rate, length)
	if from != c {
		from.begin(plan)
	}
	s, err := b.measured(ctx, n.process, c, plan, members, func() error {
		for i := range plan.count {
			frame, err := comment(plan.window, i)
			if err != nil {
				return err
			}
			if err := sleepUntil(ctx, plan.due(uint32(i))); err != nil {
				return err
			}
			from.send(who(i), frame)
		}
		return nil
	})
	if err != nil {
		return sample{}, err
	}
	return s, from.refusals()
}

// refusals is the error of comments that were refused since begin.
func (c *crowd) refusals() error {
	var err error
	for code, n := range c.counts().refused {
		err = errors.Join(err, fmt.Errorf("bench: %d comments were refused: %s", n, code))
	}
	return err
}

// writes has the floor write frames of size bytes to each of its sockets, rate a second: to
// all at once, or to groups of so many of them spread over the second.
func (b *bench) writes(ctx context.Context, f *bare, c *crowd, rate float64, length time.Duration, sockets, size, group int) (sample, error) {
	members := sockets
	if group > 0 {
		rate, members = rate*float64(sockets/group), group
	}
	plan := b.newSchedule(rate, length)
	return b.measured(ctx, f.process, c, plan, members, func() error {
		a, err := f.write(ctx, plan, size, group)
		if err == nil && a.Failed > 0 {
			err = fmt.Errorf("bench: %d of %d writes of the floor were not taken", a.Failed, a.Writes)
		}
		return err
	})
}

// measured runs one window: what happens in it is act's.
func (b *bench) measured(ctx context.Context, p *process, c *crowd, plan schedule, members int, act func() error) (sample, error) {
	c.begin(plan)
	before, err := p.cpu()
	if err != nil {
		return sample{}, err
	}
	if err := act(); err != nil {
		return sample{}, err
	}
	want := int64(plan.count) * int64(members)
	if err := c.settle(ctx, want); err != nil {
		return sample{}, err
	}
	after, err := p.cpu()
	if err != nil {
		return sample{}, err
	}
	s := sample{tally: c.counts(), cpu: after - before, viewers: members, length: plan.length()}
	if s.deliveries == 0 {
		return sample{}, errors.New("bench: not one comment came")
	}
	s.lost = want - s.deliveries - s.withheld - s.missed
	return s, nil
}

// settle waits until so many comments have come, or nothing comes any more.
func (c *crowd) settle(ctx context.Context, want int64) error {
	var got, since int64
	deadline := now() + int64(settlePatience)
	return c.await(ctx, settlePatience+time.Second, func() (bool, string) {
		t := now()
		if c.tally.deliveries != got {
			got, since = c.tally.deliveries, t
		}
		if since == 0 {
			since = t
		}
		return got >= want || t-since > int64(quietFor) || t > deadline, "comments still come"
	})
}

// pairs are windows of node and floor, one after the other.
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

// fanout is a scenario of comments that many get.
type fanout struct {
	name    string
	viewers int             // all connections
	members int             // who get one comment
	people  func(i int) who // the i-th viewer
	speaker speaker
	rate    float64 // comments a second, in all rooms together
	// floorRate is how often the floor writes to each of its sockets, by what the node
	// did.
	floorRate func(*sample) float64
	// speakers are connections to another node, who say everything; 0: the viewers do.
	speakers int
	outsider func(i int) who // the i-th speaker
}

// spareFiles are descriptors for everything but viewers.
const spareFiles = 200

// stage is everything that a fan-out is measured with: all connections of node and floor
// are open all the time.
type stage struct {
	fanout
	bench    *bench
	node     *node
	floor    *bare
	audience *crowd // of the node
	others   *crowd // of the floor
	outside  *crowd // who speaks at another node; nil if nobody does
	held     int    // sockets of the floor
}

// stage sets everything up.
func (b *bench) stage(ctx context.Context, f fanout) (*stage, error) {
	s := &stage{fanout: f, bench: b, held: f.viewers}
	if sockets(f.viewers+f.speakers+s.held+spareFiles) != nil {
		s.held = max(s.held/2, 1)
		b.say("  the floor has %d sockets: the limit of open files allows no more", s.held)
	}
	err := sockets(f.viewers + f.speakers + s.held + spareFiles)
	if err != nil {
		return nil, err
	}
	if s.node, err = b.startNode(ctx); err != nil {
		return nil, err
	}
	if s.floor, err = b.startFloor(ctx); err != nil {
		return nil, err
	}
	if s.audience, err = b.crowd(s.node, f.people); err == nil {
		err = s.audience.bring(ctx, 0, f.viewers, b.cmd.JoinRate, normal)
	}
	if err != nil {
		return nil, err
	}
	if s.others, err = b.floorCrowd(s.floor); err == nil {
		err = s.others.bring(ctx, 0, s.held, b.cmd.JoinRate, normal)
	}
	if err != nil || f.speakers == 0 {
		return s, err
	}
	s.outside, err = b.outside(ctx, f)
	return s, err
}

// play is a window of the node in which the viewers speak, or who is at another node.
func (s *stage) play(ctx context.Context, from *crowd, who speaker, length time.Duration) (sample, error) {
	got, err := s.bench.play(ctx, s.node, s.audience, from, s.rate, length, s.members, who)
	got.viewers = s.viewers
	return got, err
}

// write is a window of the floor.
func (s *stage) write(ctx context.Context, rate float64, size, group int) (sample, error) {
	return s.bench.writes(ctx, s.floor, s.others, rate, s.bench.cmd.Window, s.held, size, group)
}

// warm is a window that does not count: caches, buffers, the pace of rooms.
func (s *stage) warm(ctx context.Context) error {
	_, err := s.play(ctx, s.audience, s.speaker, s.bench.cmd.Window/5)
	return err
}

// compare measures a fan-out in pairs.
func (b *bench) compare(ctx context.Context, f fanout) (*pairs, error) {
	s, err := b.stage(ctx, f)
	if err != nil {
		return nil, err
	}
	if err := s.warm(ctx); err != nil {
		return nil, err
	}
	var p pairs
	for i := range b.cmd.Pairs {
		n, err := s.play(ctx, s.audience, s.speaker, b.cmd.Window)
		if err != nil {
			return nil, err
		}
		w, err := s.write(ctx, f.floorRate(&n), n.frameSize(), 0)
		if err != nil {
			return nil, err
		}
		p.add(n, w)
		b.say("  pair %d: node %.2f µs, p50 %.1f ms, p99 %.1f ms, %.1f comments and %d B a frame; floor %.2f µs, p50 %.1f ms", i+1,
			n.cost(), n.quantile(50), n.quantile(99), float64(n.deliveries)/float64(max(n.frames, 1)), n.frameSize(), w.cost(), w.quantile(50))
	}
	return &p, b.profile(ctx, s.node, f.name, func() error { _, err := s.play(ctx, s.audience, s.speaker, b.cmd.Window); return err })
}

// outside brings the speakers in at a node that is not measured.
func (b *bench) outside(ctx context.Context, f fanout) (*crowd, error) {
	n, err := b.startNode(ctx)
	if err != nil {
		return nil, err
	}
	c, err := b.crowd(n, f.outsider)
	if err != nil {
		return nil, err
	}
	return c, c.bring(ctx, 0, f.speakers, b.cmd.JoinRate, normal)
}

// profile takes profiles of the node while act makes it work, if they are wanted.
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

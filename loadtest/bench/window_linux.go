package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// frameSize is the mean size of a frame in bytes.
func (s *sample) frameSize() int { return int(s.bytes / max(s.frames, 1)) }

// perFrame is how many comments a frame had.
func (s *sample) perFrame() float64 { return float64(s.deliveries) / float64(max(s.frames, 1)) }

// size is the mean size of a comment in bytes, with its part of the frame's header.
func (s *sample) size() float64 { return float64(s.bytes) / float64(max(s.deliveries, 1)) }

// frameRate is how many frames a viewer got in a second.
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
func comment(window uint32, n int) ([]byte, error) { return frameOf(window, n, text(window, n)) }

func frameOf(window uint32, n int, text string) ([]byte, error) {
	ms := int64(n) * 1000
	p, err := json.Marshal(struct {
		Type    string          `json:"type"`
		Ref     string          `json:"ref"`
		Text    string          `json:"text"`
		MediaMS *int64          `json:"media_ms"`
		Style   *protocol.Style `json:"style,omitempty"`
	}{"comment", fmt.Sprintf("%d.%d", window, n), text, &ms, style(n)})
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

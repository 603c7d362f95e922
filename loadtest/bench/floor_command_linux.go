package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"
)

// FloorReport is what "kansei floor" prints.
type FloorReport struct {
	Machine string  `json:"machine"`
	Viewers int     `json:"viewers"`
	Writes  int64   `json:"writes"`
	Bytes   int     `json:"bytes"` // of a write
	CostUS  float64 `json:"cpu_us_per_write"`
	P50MS   float64 `json:"p50_ms"` // from the beginning of the loop to the viewer
	P99MS   float64 `json:"p99_ms"`
	JoinUS  float64 `json:"cpu_us_per_join"` // of a bare websocket.Accept
}

func (f *Floor) check() error {
	switch {
	case f.Viewers < 1 || f.Viewers > 1_000_000:
		return fmt.Errorf("bench: viewers is %d, want 1 to 1000000", f.Viewers)
	case f.Rate <= 0:
		return fmt.Errorf("bench: rate is %v, want more than 0", f.Rate)
	case f.Group < 0 || f.Group > f.Viewers:
		return fmt.Errorf("bench: group is %d, want 0 to %d", f.Group, f.Viewers)
	case f.Size < 1 || f.Size > 1<<16:
		return fmt.Errorf("bench: size is %d, want 1 to 65536", f.Size)
	case f.Window < 100*time.Millisecond:
		return fmt.Errorf("bench: window is %v, want 100ms or more", f.Window)
	case f.JoinRate <= 0:
		return fmt.Errorf("bench: join-rate is %v, want more than 0", f.JoinRate)
	}
	return nil
}

// Run measures the bare program, or is it.
func (f *Floor) Run(ctx context.Context, stdin io.Reader, stdout, _ io.Writer) error {
	if f.Obey {
		return serveFloor(ctx, stdin, stdout)
	}
	if err := f.check(); err != nil {
		return err
	}
	runtime.LockOSThread() // the floor ends with the thread that started it
	defer runtime.UnlockOSThread()
	b, err := newBench(&Command{Kansei: f.Kansei, JoinRate: f.JoinRate, Window: f.Window}, io.Discard)
	if err != nil {
		return err
	}
	report, err := f.measure(ctx, b)
	if err = errors.Join(err, b.close()); err != nil {
		return err
	}
	if f.JSON {
		return json.NewEncoder(stdout).Encode(report)
	}
	_, err = fmt.Fprintf(stdout, "%s\n%d writes of %d bytes to %d sockets\nCPU of a write  %.2f µs\nlatency         p50 %.2f ms  p99 %.2f ms\nCPU of a join   %.1f µs\n",
		report.Machine, report.Writes, report.Bytes, report.Viewers, report.CostUS, report.P50MS, report.P99MS, report.JoinUS)
	return err
}

func (f *Floor) measure(ctx context.Context, b *bench) (*FloorReport, error) {
	if err := sockets(f.Viewers + spareFiles); err != nil {
		return nil, err
	}
	p, err := b.startFloor(ctx)
	if err != nil {
		return nil, err
	}
	g := &ground{bare: p, bench: b, sockets: f.Viewers}
	if g.crowd, err = b.floorCrowd(p); err != nil {
		return nil, err
	}
	before, err := p.cpu()
	if err != nil {
		return nil, err
	}
	if err := g.crowd.bring(ctx, 0, f.Viewers, f.JoinRate, normal); err != nil {
		return nil, err
	}
	after, err := p.cpu()
	if err != nil {
		return nil, err
	}
	var s sample
	if f.Group == 0 {
		s, err = g.toAll(ctx, f.Rate, f.Size)
	} else {
		s, err = g.toSome(ctx, f.Rate*float64(f.Viewers/f.Group), f.Size, f.Group)
	}
	if err != nil {
		return nil, err
	}
	return &FloorReport{
		Machine: machine(), Viewers: f.Viewers, Writes: s.deliveries, Bytes: s.frameSize(), CostUS: s.cost(),
		P50MS: s.quantile(50), P99MS: s.quantile(99), JoinUS: float64((after - before).Microseconds()) / float64(f.Viewers),
	}, nil
}

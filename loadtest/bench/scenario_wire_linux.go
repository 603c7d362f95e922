package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/kansei-live/kansei/loadtest"
)

const (
	wireViewers = 500
	mostWire    = 64  // bytes of a delivered comment, deflated
	mostPlain   = 260 // not deflated
)

// wire is goal 6: kansei load's own count, of four audiences at once.
func (b *bench) wire(ctx context.Context) error {
	n, err := b.startNode(ctx)
	if err != nil {
		return err
	}
	type kind struct {
		figure   string
		compress bool
		ids      string
		bound    *float64
		report   loadtest.Report
		err      error
	}
	kinds := []*kind{
		{figure: "a comment, deflated", compress: true, ids: "short", bound: within(mostWire)},
		{figure: "a comment, plain", ids: "short", bound: within(mostPlain)},
		{figure: "a comment, deflated, UUIDs as user ids", compress: true, ids: "uuid"},
		{figure: "a comment, plain, UUIDs as user ids", ids: "uuid"},
	}
	if err := sockets(len(kinds)*(b.scaled(wireViewers)+spareFiles) + spareFiles); err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, k := range kinds {
		load := loadtest.Command{
			URL: []string{"http://" + n.address}, AuthSecret: b.secret,
			Viewers: b.scaled(wireViewers), JoinRate: b.cmd.JoinRate, UserIDs: k.ids, Compress: k.compress,
			Trace: b.cmd.Trace, Speed: b.cmd.Speed, Rate: 100, Settle: 15 * time.Second, Seed: 1, JSON: true,
		}
		if b.cmd.Trace == "" {
			load.Duration = b.cmd.Window
		}
		// Ends with its plan, or with ctx.
		wg.Go(func() {
			var out bytes.Buffer
			if k.err = load.Run(ctx, &out, io.Discard); out.Len() > 0 {
				if err := json.Unmarshal(out.Bytes(), &k.report); err != nil {
					k.err = err
				}
			}
		})
	}
	wg.Wait()
	played := "made-up comments at 100/s"
	if b.cmd.Trace != "" {
		played = fmt.Sprintf("the trace at speed %g", b.cmd.Speed)
	}
	for _, k := range kinds {
		if k.err != nil {
			return fmt.Errorf("%s: %w", k.figure, k.err)
		}
		d := &k.report.Delivered
		b.report.add(Row{Goal: 6, Scenario: "wire", Figure: k.figure, Unit: "B", Bound: k.bound, Value: d.BytesPerDelivery,
			Note: fmt.Sprintf("%s, %s comments a frame, latency p99 %s ms", played, number(d.PerFrame), number(k.report.LatencyMS.P99))})
	}
	return nil
}

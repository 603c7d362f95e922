package edge

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestEgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Uint64
		e := newEgress(1000, sent.Load)
		defer e.close()
		for _, c := range []struct {
			bytes uint64
			full  bool
		}{{0, false}, {800, false}, {950, true}, {5000, true}, {100, false}} {
			sent.Add(c.bytes)
			time.Sleep(egressTick)
			synctest.Wait()
			if e.full() != c.full {
				t.Errorf("%d bytes in a second: full is %v", c.bytes, e.full())
			}
		}
	})
}

func TestNoEgressLimit(t *testing.T) {
	t.Parallel()
	e := newEgress(0, nil)
	if e.full() {
		t.Error("full without a limit")
	}
	e.close()
}

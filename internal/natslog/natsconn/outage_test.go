package natsconn

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/internal/quiet"
)

// An outage is one line when it begins, one a minute while it lasts, one when it is over,
// whatever each attempt tells.
func TestOutageIsToldOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out lines
		c := &Conn{log: out.debug(), quiet: quiet.New(out.debug())}
		attempts := func(d time.Duration) {
			for i := range int(d / (100 * time.Millisecond)) {
				time.Sleep(100 * time.Millisecond)
				c.logFailed(fmt.Errorf("dial tcp 10.0.0.1:%d: connection refused", 1000+i))
			}
		}
		attempts(90 * time.Second) // a start without NATS
		if n := out.count("NATS cannot be reached"); n != 2 {
			t.Errorf("a start without NATS has %d lines in 90 s:\n%s", n, &out)
		}
		c.logBack("nats://a:4222")
		if back := out.with("connected to NATS"); len(back) != 1 || !strings.Contains(back[0], "attempts=900") {
			t.Errorf("the end: %q", back)
		}
		time.Sleep(time.Hour)
		c.logLost(errors.New("read tcp 10.0.0.2:4711: connection reset"))
		attempts(50 * time.Second)
		if n := out.count("NATS cannot be reached"); n != 2 {
			t.Errorf("the first minute of an outage has %d lines more:\n%s", n-2, &out)
		}
		attempts(150 * time.Second)
		if n := out.count("NATS cannot be reached"); n != 5 {
			t.Errorf("200 s of an outage have %d lines more:\n%s", n-2, &out)
		}
		c.logBack("nats://a:4222")
		if lost, back := out.with("is lost"), out.with("connected to NATS"); len(lost) != 1 || len(back) != 2 || !strings.Contains(back[1], "after=3m20s") {
			t.Errorf("lost %q, back %q", lost, back)
		}
		// One that comes and goes all the time.
		before := out.count("")
		for range 600 {
			c.logLost(errors.New("EOF"))
			time.Sleep(50 * time.Millisecond)
			c.logFailed(errors.New("EOF"))
			c.logBack("nats://a:4222")
			time.Sleep(50 * time.Millisecond)
		}
		if n := out.count("") - before; n > 60 {
			t.Errorf("a connection that comes and goes for a minute has %d lines", n)
		}
	})
}

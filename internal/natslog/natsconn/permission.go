package natsconn

import (
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// PermissionError says what this node's user may not do.
type PermissionError struct {
	Subscribe bool   // or publish
	Subjects  string // as they are granted
}

// Error implements error.
func (e *PermissionError) Error() string {
	what := "publish to "
	if e.Subscribe {
		what = "subscribe to "
	}
	return "this account may not " + what + e.Subjects + ": grant it to the node's NATS user (OPERATING.md, \"Permissions\")"
}

// violationText takes apart what a server says of a violation: it has no other form.
var violationText = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]*)"`)

// Violation is what a server has refused.
type Violation struct {
	Subscribe bool // or publish
	Subject   string
}

func parseViolation(err error) (v Violation, ok bool) {
	m := violationText.FindStringSubmatch(err.Error())
	if m == nil {
		return v, false
	}
	return Violation{strings.EqualFold(m[1], "subscription"), m[2]}, true
}

// violated is told of a violation that the connection reports.
func (c *Conn) violated(err error) {
	c.metrics.Failed(OpPermission)
	v, ok := parseViolation(err)
	if !ok {
		c.quiet.Log(slog.LevelWarn, "NATS refuses something to this node's user", err.Error(), "error", err)
		return
	}
	for inbox := range c.receivers {
		if v.Subscribe && v.Subject == inbox+"*" {
			c.denyInbox(&PermissionError{true, c.cfg.Inboxes + ".>"})
			return
		}
	}
	if !c.cfg.Violated(v, err) {
		c.quiet.Log(slog.LevelWarn, "NATS refuses something to this node's user", v.Subject, "error", err)
	}
}

// TryHear subscribes to a subject for a moment. It returns may if that is not permitted.
func (c *Conn) TryHear(subject string, may *PermissionError) error {
	nc := c.nc.Load()
	if nc == nil || !c.connected.Load() {
		return ErrNotConnected
	}
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		return err
	}
	defer func() {
		if err := sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			c.metrics.Failed(OpSubscribe)
		}
	}()
	// A violation comes before the answer to the flush.
	if err := nc.FlushTimeout(c.cfg.RequestTimeout); err != nil {
		return err
	}
	if _, err := sub.NextMsg(time.Millisecond); errors.Is(err, nats.ErrPermissionViolation) {
		return may
	}
	return nil
}

// denyInbox is told that no answers can come: nothing works without them.
func (c *Conn) denyInbox(e *PermissionError) {
	if c.deaf.Swap(e) == nil {
		c.quiet.Log(slog.LevelWarn, "NATS refuses this node's user what it needs: no answer of NATS reaches the node; comments are neither taken nor shown",
			e.Subjects, "error", e)
	}
	c.refuseAll()
}

// Deaf returns why no answers come, if the user may not receive them; otherwise nil.
func (c *Conn) Deaf() error {
	if e := c.deaf.Load(); e != nil {
		return e
	}
	return nil
}

// TryInbox looks whether answers can come again, if they could not, at most once in every. It
// reports whether they can since now: whatever is subscribed to must be made anew then. One
// goroutine calls it.
func (c *Conn) TryInbox(every time.Duration) (again bool, err error) {
	e := c.deaf.Load()
	if e == nil {
		return false, nil
	}
	if time.Since(c.listened) < every {
		return false, e
	}
	c.listened = time.Now()
	if err := c.TryHear(c.inbox+"*", e); err != nil {
		return false, err
	}
	c.deaf.CompareAndSwap(e, nil)
	c.log.Info("NATS permits this node's user what it needs again", "subjects", e.Subjects)
	return true, nil
}

package natslog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

var (
	errNotConnected = errors.New("not connected")
	errClosed       = errors.New("the log is closed")
	errNoResponders = errors.New("nobody answers")
)

// caller asks NATS: every request has a token, and its answers come to one inbox.
type caller struct {
	l     *Log
	inbox string // and a dot

	mu    sync.Mutex
	calls map[string]chan *nats.Msg
	count uint64
}

func newCaller(l *Log) *caller {
	return &caller{l: l, inbox: nats.NewInbox() + ".", calls: make(map[string]chan *nats.Msg)}
}

// deliver hands an answer to whoever waits for it. It runs on the subscription's
// goroutine and does not block: an answer that nobody waits for is dropped.
func (c *caller) deliver(m *nats.Msg) {
	c.mu.Lock()
	ch := c.calls[m.Subject[len(c.inbox):]]
	c.mu.Unlock()
	select {
	case ch <- m:
	default:
	}
}

// ask sends a request and calls each with its answers, up to most of them, until
// it returns false. It fails when the answers have not all come in the time for
// one request.
func (c *caller) ask(ctx context.Context, op, subject string, body []byte, most int, each func(*nats.Msg) (more bool)) error {
	err := c.exchange(ctx, op, subject, body, most, each)
	if err != nil && ctx.Err() == nil {
		c.l.metrics.failed(op)
	}
	return err
}

func (c *caller) exchange(ctx context.Context, op, subject string, body []byte, most int, each func(*nats.Msg) bool) error {
	nc := c.l.nc.Load()
	if nc == nil || !c.l.connected.Load() {
		return errNotConnected
	}
	ch := make(chan *nats.Msg, most)
	c.mu.Lock()
	c.count++
	token := strconv.FormatUint(c.count, 36)
	c.calls[token] = ch
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.calls, token)
		c.mu.Unlock()
	}()

	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.l.cfg.RequestTimeout)
	defer cancel()
	if err := nc.PublishRequest(subject, c.inbox+token, body); err != nil {
		c.l.broken(nc, err)
		return err
	}
	for range most {
		select {
		case m := <-ch:
			if len(m.Data) == 0 && last(m.Header, headerStatus) == "503" && last(m.Header, headerSubject) == "" {
				return errNoResponders
			}
			if !each(m) {
				c.l.metrics.asked(op, start)
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("more answers than were asked for")
}

// apiError is how the JetStream API refuses.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

// Error codes of JetStream that mean something to the log.
const (
	codeClusterNotAvailable = 10008
	codeNoMessage           = 10037
	codeStreamNameInUse     = 10058
	codeStreamNotFound      = 10059
	codeWrongLastSequence   = 10071
	codeDuplicateInProcess  = 10158
	codeSubjectInProcess    = 10164 // another write with an expectation is under way
)

func isCode(err error, code int) bool {
	e, ok := errors.AsType[*apiError](err)
	return ok && e.ErrCode == code
}

// api asks the JetStream API, which answers with one JSON object, and decodes it
// into answer.
func (c *caller) api(ctx context.Context, op, subject string, request, answer any) error {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return err
		}
	}
	var m *nats.Msg
	err := c.ask(ctx, op, subject, body, 1, func(a *nats.Msg) bool { m = a; return false })
	if err != nil {
		return err
	}
	var refusal struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &refusal); err != nil {
		return fmt.Errorf("an answer that is no JSON: %w", err)
	}
	if e := refusal.Error; e != nil {
		switch e.ErrCode {
		case codeNoMessage, codeStreamNotFound, codeStreamNameInUse:
		default:
			c.l.metrics.failed(op)
		}
		return e
	}
	return json.Unmarshal(m.Data, answer)
}

package natsconn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Errors of requests.
var (
	ErrNotConnected = errors.New("not connected")
	ErrNoResponders = errors.New("nobody answers")
)

// call is a request under way.
type call struct {
	subject string
	answers chan *nats.Msg // nil among them: the user may not ask this
}

// refusal is what became of the last request to a subject: the user may not ask there.
type refusal struct {
	err *PermissionError
	at  time.Time
}

// refusalHolds is how long requests to a subject fail without being sent after one that was
// refused. Each that is sent is a line in the log of the server.
const refusalHolds = 2 * time.Second

// deliver hands an answer to its caller. It runs on the subscription's
// goroutine and does not block: an answer that nobody waits for is dropped.
func (c *Conn) deliver(m *nats.Msg) {
	c.mu.Lock()
	ch := c.calls[m.Subject[len(c.inbox):]].answers
	c.mu.Unlock()
	select {
	case ch <- m:
	default:
	}
}

// Refuse is told that the server does not let requests to a subject through. Those fail.
func (c *Conn) Refuse(subject string, e *PermissionError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.calls {
		if one.subject == subject {
			c.denied[subject] = refusal{e, time.Now()}
			one.fail()
		}
	}
}

// fail has a request fail, if it is not full of answers.
func (c call) fail() {
	select {
	case c.answers <- nil:
	default:
	}
}

// refuseAll fails every request: no answers can come.
func (c *Conn) refuseAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.calls {
		one.fail()
	}
}

// refusal is why requests to a subject were refused a moment ago; nil if they were not.
func (c *Conn) refusal(subject string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.denied[subject]
	if !ok {
		return nil
	}
	if time.Since(r.at) < refusalHolds {
		return r.err
	}
	delete(c.denied, subject)
	return nil
}

// Forgive forgets what was refused: it is tried again at once.
func (c *Conn) Forgive() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.denied)
}

// Ask sends a request and calls each with its answers, up to most of them, until
// it returns false. It fails when the answers have not all come in the time for
// one request.
func (c *Conn) Ask(ctx context.Context, op, subject string, body []byte, most int, each func(*nats.Msg) (more bool)) error {
	return c.AskWith(ctx, op, &nats.Msg{Subject: subject, Data: body}, most, each)
}

// AskWith is Ask with a message that may have headers.
func (c *Conn) AskWith(ctx context.Context, op string, m *nats.Msg, most int, each func(*nats.Msg) (more bool)) error {
	err := c.exchange(ctx, op, m, most, each)
	if err != nil && ctx.Err() == nil {
		c.metrics.Failed(op)
	}
	return err
}

func (c *Conn) exchange(ctx context.Context, op string, request *nats.Msg, most int, each func(*nats.Msg) bool) error {
	nc := c.nc.Load()
	if nc == nil || !c.connected.Load() {
		return ErrNotConnected
	}
	if err := c.Deaf(); err != nil {
		return err
	}
	if err := c.refusal(request.Subject); err != nil {
		return err
	}
	ch := make(chan *nats.Msg, most)
	c.mu.Lock()
	c.count++
	token := strconv.FormatUint(c.count, 36)
	c.calls[token] = call{request.Subject, ch}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.calls, token)
		c.mu.Unlock()
	}()

	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	request.Reply = c.inbox + token
	if err := nc.PublishMsg(request); err != nil {
		c.Broken(nc, err)
		return err
	}
	for range most {
		select {
		case m := <-ch:
			if m == nil {
				return c.whyRefused(request.Subject)
			}
			if nobody(m) {
				return c.unanswered()
			}
			if !each(m) {
				c.metrics.asked(op, start)
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("more answers than were asked for")
}

// nobody reports whether a message says that nobody is there to answer. It may name the
// subject, as a stored record does; but it has no place in a stream.
func nobody(m *nats.Msg) bool {
	return len(m.Data) == 0 && Last(m.Header, "Status") == "503" && Last(m.Header, "Nats-Sequence") == ""
}

// whyRefused is why a request was not let through.
func (c *Conn) whyRefused(subject string) error {
	if err := c.Deaf(); err != nil {
		return err
	}
	if err := c.refusal(subject); err != nil {
		return err
	}
	return ErrNotConnected // there is another connection by now
}

// unanswered is the error of a request that nobody takes.
func (c *Conn) unanswered() error {
	if c.cfg.Domain != "" {
		return fmt.Errorf("%w in the JetStream domain %s (--nats-domain)", ErrNoResponders, c.cfg.Domain)
	}
	return ErrNoResponders
}

// APIError is how the JetStream API refuses.
type APIError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *APIError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

// Error codes of JetStream that mean something to the log.
const (
	CodeClusterNotAvailable = 10008
	CodeNoAccount           = 10035
	CodeNoJetStreamAccount  = 10039
	CodeNoJetStream         = 10076
	CodeNoMessage           = 10037
	CodeNotSupported        = 10074 // replicas without a cluster
	CodeNoPeers             = 10005 // fewer servers than replicas
	CodeSequenceMismatch    = 10063 // the leader's own store is not where it should be
	CodeStoreFailed         = 10077 // the leader's own store did not take it
	CodeStreamNameInUse     = 10058
	CodeStreamNotFound      = 10059
	CodeWrongLastSequence   = 10071
	CodeDuplicateInProcess  = 10158
	CodeSubjectInProcess    = 10164 // another write with an expectation is under way
)

// IsCode reports whether an error is a refusal of JetStream with a code.
func IsCode(err error, code int) bool {
	e, ok := errors.AsType[*APIError](err)
	return ok && e.ErrCode == code
}

const (
	// apiAnswers is how many servers may answer one request: those of one stream.
	apiAnswers = 8
	// secondOpinion is how long a better answer is waited for after a weak one. The
	// leader answers within milliseconds.
	secondOpinion = 300 * time.Millisecond
)

// API asks the JetStream API, which answers with one JSON object.
//
// A server that is cut off from the others, or whose disk has failed, believes that
// there is no leader, and says so, with what it happens to have or a refusal, while the
// leader answers the same request. Such a weak answer counts only when no better one
// comes soon. weak tells which it is; it may be nil.
func API[T any](ctx context.Context, c *Conn, op, subject string, request any, weak func(*T) bool) (*T, error) {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return nil, err
		}
	}
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	var (
		got  *T
		said error
		wait *time.Timer // set by the first answer, if it is weak
	)
	err := c.Ask(ctx, op, subject, body, apiAnswers, func(m *nats.Msg) bool {
		got, said = Decode[T](m.Data)
		if !IsCode(said, CodeClusterNotAvailable) && (said != nil || weak == nil || !weak(got)) {
			return false
		}
		if wait == nil {
			wait = time.AfterFunc(secondOpinion, enough)
		}
		return true
	})
	if wait != nil {
		wait.Stop()
	} else if err != nil {
		return nil, err
	}
	if e, ok := errors.AsType[*APIError](said); ok {
		switch e.ErrCode {
		case CodeNoMessage, CodeStreamNotFound, CodeStreamNameInUse:
		default:
			c.metrics.Failed(op)
		}
	}
	return got, said
}

// Decode reads an answer of the JetStream API: its error is an [*APIError] if that is what the
// answer is.
func Decode[T any](data []byte) (*T, error) {
	var refusal struct {
		Error *APIError `json:"error"`
	}
	if err := json.Unmarshal(data, &refusal); err != nil {
		return nil, fmt.Errorf("an answer that is no JSON: %w", err)
	}
	if refusal.Error != nil {
		return nil, refusal.Error
	}
	answer := new(T)
	return answer, json.Unmarshal(data, answer)
}

// Last returns the last value of a header: the server's own follows whatever a record was
// stored with.
func Last(h nats.Header, key string) string {
	if v := h[key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

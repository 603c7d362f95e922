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

	mu     sync.Mutex
	calls  map[string]call
	count  uint64
	denied map[string]refusal // by subject, of which a stream has a handful
}

// call is a request under way.
type call struct {
	subject string
	answers chan *nats.Msg // nil among them: the user may not ask this
}

// refusal is what became of the last request to a subject: the user may not ask there.
type refusal struct {
	err *permissionError
	at  time.Time
}

// refusalHolds is how long requests to a subject fail without being sent after one that was
// refused. Each that is sent is a line in the log of the server.
const refusalHolds = 2 * time.Second

func newCaller(l *Log) *caller {
	return &caller{l: l, inbox: naming{l.cfg.Prefix}.newInbox(), calls: make(map[string]call), denied: make(map[string]refusal)}
}

// deliver hands an answer to whoever waits for it. It runs on the subscription's
// goroutine and does not block: an answer that nobody waits for is dropped.
func (c *caller) deliver(m *nats.Msg) {
	c.mu.Lock()
	ch := c.calls[m.Subject[len(c.inbox):]].answers
	c.mu.Unlock()
	select {
	case ch <- m:
	default:
	}
}

// refused is told that the server does not let requests to a subject through.
func (c *caller) refused(subject string, e *permissionError) {
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
func (c *caller) refuseAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.calls {
		one.fail()
	}
}

// refusal is why requests to a subject were refused a moment ago; nil if they were not.
func (c *caller) refusal(subject string) error {
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

// forgive forgets what was refused: it is tried again at once.
func (c *caller) forgive() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.denied)
}

// ask sends a request and calls each with its answers, up to most of them, until
// it returns false. It fails when the answers have not all come in the time for
// one request.
func (c *caller) ask(ctx context.Context, op, subject string, body []byte, most int, each func(*nats.Msg) (more bool)) error {
	return c.askWith(ctx, op, &nats.Msg{Subject: subject, Data: body}, most, each)
}

// askWith is ask with a message that may have headers.
func (c *caller) askWith(ctx context.Context, op string, m *nats.Msg, most int, each func(*nats.Msg) (more bool)) error {
	err := c.exchange(ctx, op, m, most, each)
	if err != nil && ctx.Err() == nil {
		c.l.metrics.failed(op)
	}
	return err
}

func (c *caller) exchange(ctx context.Context, op string, request *nats.Msg, most int, each func(*nats.Msg) bool) error {
	nc := c.l.nc.Load()
	if nc == nil || !c.l.connected.Load() {
		return errNotConnected
	}
	if e := c.l.deaf.Load(); e != nil {
		return e
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
	ctx, cancel := context.WithTimeout(ctx, c.l.cfg.RequestTimeout)
	defer cancel()
	request.Reply = c.inbox + token
	if err := nc.PublishMsg(request); err != nil {
		c.l.broken(nc, err)
		return err
	}
	for range most {
		select {
		case m := <-ch:
			if m == nil {
				return c.whyRefused(request.Subject)
			}
			if nobody(m) {
				return c.l.unanswered()
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

// nobody reports whether a message says that nobody is there to answer. It may name the
// subject, as a stored record does; but it has no place in a stream.
func nobody(m *nats.Msg) bool {
	return len(m.Data) == 0 && last(m.Header, headerStatus) == "503" && last(m.Header, headerSequence) == ""
}

// whyRefused is why a request was not let through.
func (c *caller) whyRefused(subject string) error {
	if e := c.l.deaf.Load(); e != nil {
		return e
	}
	if err := c.refusal(subject); err != nil {
		return err
	}
	return errNotConnected // there is another connection by now
}

// unanswered is the error of a request that nobody takes.
func (l *Log) unanswered() error {
	if l.cfg.Domain != "" {
		return fmt.Errorf("%w in the JetStream domain %s (--nats-domain)", errNoResponders, l.cfg.Domain)
	}
	return errNoResponders
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
	codeNoAccount           = 10035
	codeNoJetStreamAccount  = 10039
	codeNoJetStream         = 10076
	codeNoMessage           = 10037
	codeNotSupported        = 10074 // replicas without a cluster
	codeNoPeers             = 10005 // fewer servers than replicas
	codeSequenceMismatch    = 10063 // the leader's own store is not where it should be
	codeStoreFailed         = 10077 // the leader's own store did not take it
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

const (
	// apiAnswers is how many servers may answer one request: those of one stream.
	apiAnswers = 8
	// secondOpinion is how long a better answer is waited for after a weak one. The
	// leader answers within milliseconds.
	secondOpinion = 300 * time.Millisecond
)

// api asks the JetStream API, which answers with one JSON object.
//
// A server that is cut off from the others, or whose disk has failed, believes that
// there is no leader, and says so, with what it happens to have or a refusal, while the
// leader answers the same request. Such a weak answer counts only when no better one
// comes soon. weak tells which it is; it may be nil.
func api[T any](ctx context.Context, c *caller, op, subject string, request any, weak func(*T) bool) (*T, error) {
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
	err := c.ask(ctx, op, subject, body, apiAnswers, func(m *nats.Msg) bool {
		got, said = decodeAnswer[T](m.Data)
		if !isCode(said, codeClusterNotAvailable) && (said != nil || weak == nil || !weak(got)) {
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
	if e, ok := errors.AsType[*apiError](said); ok {
		switch e.ErrCode {
		case codeNoMessage, codeStreamNotFound, codeStreamNameInUse:
		default:
			c.l.metrics.failed(op)
		}
	}
	return got, said
}

func decodeAnswer[T any](data []byte) (*T, error) {
	var refusal struct {
		Error *apiError `json:"error"`
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

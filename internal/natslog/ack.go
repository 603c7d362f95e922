package natslog

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
)

// sequenceError is the refusal of a write whose subject is not at the expected
// sequence.
type sequenceError struct{ tries int }

func (e *sequenceError) Error() string { return "the subject is at another sequence" }

// pubAck is the stream's answer to a draft.
type pubAck struct {
	Stream    string    `json:"stream"`
	Seq       uint64    `json:"seq"`
	Duplicate bool      `json:"duplicate"`
	Error     *apiError `json:"error"`
}

// deliver takes the stream's answer to a draft. It runs on the subscription's
// goroutine.
func (a *appender) deliver(m *nats.Msg) {
	var ack pubAck
	wrong := ""
	switch {
	case len(m.Data) == 0:
		wrong = "nobody takes it" // 503: the stream has no leader
	case json.Unmarshal(m.Data, &ack) != nil:
		wrong = "an answer that cannot be read"
	}
	a.mu.Lock()
	d := a.pending[m.Subject[len(a.inbox):]]
	if d == nil {
		a.mu.Unlock()
		return
	}
	switch {
	case wrong != "":
		a.later(d, wrong)
	case ack.Error == nil && ack.Seq > 0:
		// A duplicate of one's own earlier try is none.
		a.end(d, hub.Receipt{Seq: ack.Seq, Duplicate: ack.Duplicate && d.tries <= 1}, nil)
	case ack.Error == nil:
		a.later(d, "an answer without a position")
	case ack.Error.ErrCode == codeWrongLastSequence:
		a.end(d, hub.Receipt{}, &sequenceError{d.tries})
	case d.tries > 1 || retried(ack.Error):
		a.later(d, ack.Error.Error())
	default:
		// The only try was refused.
		d.tries = 0
		a.end(d, hub.Receipt{}, fmt.Errorf("natslog: %w: %w", hub.ErrUnavailable, ack.Error))
	}
}

// retried tells whether a refusal leaves the outcome open, or may be over soon.
func retried(e *apiError) bool {
	switch e.ErrCode {
	case codeDuplicateInProcess, codeSubjectInProcess, codeClusterNotAvailable:
		return true
	}
	return e.Code == 429 // the stream has too much to do
}

// later has a draft tried again after a pause that grows, and unlocks a.mu, which
// is held.
func (a *appender) later(d *draft, why string) {
	defer a.mu.Unlock()
	d.last = why
	if !d.queued {
		pause := min(50*time.Millisecond<<min(d.tries, 5), time.Second)
		a.at(d, time.Now().Add(jitter(pause)))
	}
}

package natslog

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// sequenceError is the refusal of a write whose subject is not at the expected
// sequence.
type sequenceError struct{ tries int }

func (e *sequenceError) Error() string { return "the subject is at another sequence" }

// pubAck is a stream's answer to a draft.
type pubAck struct {
	Stream    string             `json:"stream"`
	Domain    string             `json:"domain"`
	Seq       uint64             `json:"seq"`
	Duplicate bool               `json:"duplicate"`
	Error     *natsconn.APIError `json:"error"`
}

// answers reports whether an answer is the stream's own. Another one may have the same
// subjects, an archive in the JetStream domain of a leaf node for example, and say that it
// has stored the draft. Refusals name no domain, and some no stream.
func (s *stream) answers(a *pubAck) bool {
	if a.Error != nil {
		return a.Stream == "" || a.Stream == s.name
	}
	return a.Stream == s.name && a.Domain == s.domain.Load()
}

// stranger is told of another stream's answer, which is none, and unlocks a.mu, which is
// held: the draft waits for its own.
func (a *appender) stranger(d *draft, ack *pubAck) {
	complain := time.Since(a.strange) >= complainEvery
	if complain {
		a.strange = time.Now()
	}
	a.mu.Unlock()
	a.l.metrics.nats.Failed(opStranger)
	if complain {
		a.l.log.Warn("another stream stores the room log's subjects too, and answers for it: what it says is left out, nobody is told ok by it; take the subjects from it, or have it mirror the log",
			"stream", d.stream.name, "other", ack.Stream, "domain", ack.Domain)
	}
}

// deliver takes the stream's answer to a draft. It runs on the subscription's
// goroutine.
func (a *appender) deliver(m *nats.Msg) {
	var ack pubAck
	wrong := ""
	switch {
	case len(m.Data) == 0: // 503: the stream has no leader
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
	case len(m.Data) > 0 && !d.stream.answers(&ack):
		a.stranger(d, &ack)
	case len(m.Data) == 0:
		d.settle()
		a.later(d, "nobody takes it")
	case ack.Error == nil && ack.Seq > 0:
		if !ack.Duplicate && ack.Seq <= d.known.Seq {
			d.stream.suspect(d.known) // it gives a position out again
		}
		// A duplicate of one's own earlier try is none.
		r := hub.Receipt{Seq: ack.Seq, Duplicate: ack.Duplicate && d.open <= 1}
		d.settle()
		a.end(d, r, nil)
	case ack.Error == nil:
		a.later(d, "an answer without a position")
	case ack.Error.ErrCode == natsconn.CodeWrongLastSequence:
		d.settle()
		a.end(d, hub.Receipt{}, &sequenceError{d.tries})
	default:
		again := d.refused(ack.Error)
		if again || d.open > 0 {
			a.later(d, ack.Error.Error())
			return
		}
		a.end(d, hub.Receipt{}, fmt.Errorf("natslog: %w: %w", hub.ErrUnavailable, ack.Error))
	}
}

// settle notes that one try is known not to have been done.
func (d *draft) settle() { d.open = max(d.open-1, 0) }

// refused settles a try that was refused, unless that leaves its outcome open, and tells
// whether another one may fare better soon.
func (d *draft) refused(e *natsconn.APIError) (again bool) {
	switch e.ErrCode {
	case natsconn.CodeDuplicateInProcess:
		return true // another try with this id is under way, here or on another node
	case natsconn.CodeStoreFailed, natsconn.CodeSequenceMismatch:
		// The leader of several replicas says so when they have agreed already, and its own
		// disk or order has failed it: the others may have stored it. A store that stands
		// alone has refused.
		if d.stream.replicated.Load() {
			return true
		}
	}
	d.settle()
	switch e.ErrCode {
	case natsconn.CodeSubjectInProcess, natsconn.CodeClusterNotAvailable:
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

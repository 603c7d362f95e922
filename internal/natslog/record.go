package natslog

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// Headers of a stored record. They are left out when they have nothing to say.
const (
	headerKind     = "Kansei-Kind"     // of an event that is no comment
	headerAudience = "Kansei-Audience" // of an event that is not for all
	headerOrigin   = "Kansei-Origin"   // day and hash of its sender's address: see Log.Origin
	headerRate     = "Kansei-Rate"     // of its room when it was drafted, if it was not low
)

// Headers that the server adds to what it republishes and to the answers of
// direct gets.
const (
	headerSubject  = "Nats-Subject"
	headerSequence = "Nats-Sequence"
	headerPrevious = "Nats-Last-Sequence"
	headerTime     = "Nats-Time-Stamp"
	headerPending  = "Nats-Num-Pending"
	headerUpTo     = "Nats-UpTo-Sequence"
	headerStatus   = "Status"
)

// skipReason says what is wrong with a record that is no event.
type skipReason string

const (
	skipEnvelope skipReason = "envelope" // the server's headers are missing or unreadable
	skipHeader   skipReason = "header"   // its kind, audience or rate is
	skipBody     skipReason = "body"     // not a JSON object with a field
	// skipSchema: this node does not know the record's schema. It has a metric of its own.
	skipSchema skipReason = "schema"
)

// record is a stored message as it comes from the log, whichever way.
type record struct {
	seq      uint64
	previous uint64 // of the record before it: in its room (live), in the answer (direct get)
	at       int64  // Unix milliseconds
	subject  string // where it was stored
	header   nats.Header
	data     []byte
}

func (r *record) position() hub.Position { return hub.Position{Seq: r.seq, At: r.at} }

// parseRecord reads the envelope of a live message or of one out of a direct get.
func parseRecord(m *nats.Msg) (record, bool) {
	seq, ok := parseSeq(m.Header, headerSequence)
	if !ok || seq == 0 {
		return record{}, false
	}
	previous, ok := parseSeq(m.Header, headerPrevious)
	if !ok {
		return record{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, natsconn.Last(m.Header, headerTime))
	if err != nil {
		return record{}, false
	}
	return record{seq, previous, at.UnixMilli(), natsconn.Last(m.Header, headerSubject), m.Header, m.Data}, true
}

func parseSeq(h nats.Header, key string) (uint64, bool) {
	n, err := strconv.ParseUint(natsconn.Last(h, key), 10, 64)
	return n, err == nil
}

// event is the event that a record holds; or why it holds none.
func (r record) event() (hub.Event, skipReason) {
	if newerSchema(r.header) {
		return hub.Event{}, skipSchema
	}
	e := hub.Event{Seq: r.seq, At: r.at, ID: natsconn.Last(r.header, headerID), Kind: hub.KindComment, Audience: hub.AudienceAll}
	if v, ok := r.header[headerKind]; ok {
		if len(v) != 1 || v[0] == "" {
			return hub.Event{}, skipHeader
		}
		e.Kind = v[0]
	}
	if v, ok := r.header[headerAudience]; ok {
		if len(v) != 1 || v[0] == "" {
			return hub.Event{}, skipHeader
		}
		var err error
		if e.Audience, err = url.PathUnescape(v[0]); err != nil {
			return hub.Event{}, skipHeader
		}
	}
	if v, ok := r.header[headerRate]; ok {
		rate, err := strconv.ParseUint(v[0], 10, 32)
		if len(v) != 1 || err != nil {
			return hub.Event{}, skipHeader
		}
		e.Rate = uint32(rate)
	}
	e.Origin = natsconn.Last(r.header, headerOrigin)
	if e.Body = object(r.data); e.Body == nil {
		return hub.Event{}, skipBody
	}
	return e, ""
}

// object is p without the space around it, if it is a JSON object with at least
// one field, in UTF-8; nil if it is not.
func object(p []byte) []byte {
	p = bytes.Trim(p, " \t\r\n")
	if len(p) < 2 || p[0] != '{' || !json.Valid(p) || !utf8.Valid(p) {
		return nil
	}
	if bytes.TrimLeft(p[1:], " \t\r\n")[0] == '}' {
		return nil
	}
	return p
}

// encodeDraft is the message that stores a draft, but for its reply.
func encodeDraft(subject string, d hub.Draft) *nats.Msg {
	h := make(nats.Header, 3)
	h[nats.MsgIdHdr] = []string{d.ID}
	if d.Kind != hub.KindComment {
		h[headerKind] = []string{d.Kind}
	}
	if d.Audience != hub.AudienceAll {
		// Escaped, since a header can carry neither line breaks nor outer space.
		h[headerAudience] = []string{url.PathEscape(d.Audience)}
	}
	if d.Rate > 0 {
		h[headerRate] = []string{strconv.FormatUint(uint64(d.Rate), 10)}
	}
	if d.Origin != "" {
		h[headerOrigin] = []string{d.Origin}
	}
	return &nats.Msg{Subject: subject, Header: h, Data: d.Body}
}

// checkDraft says what makes a draft unfit for the log.
func checkDraft(d hub.Draft) string {
	switch {
	case !isWord(d.ID, 64):
		return "its id must be 1 to 64 printable ASCII characters without space"
	case !isWord(d.Kind, 64):
		return "its kind must be 1 to 64 printable ASCII characters without space"
	case len(d.Audience) > 256:
		return "its audience is over 256 bytes"
	case object(d.Body) == nil:
		return "its body is not a JSON object with at least one field"
	}
	return ""
}

func isWord(s string, limit int) bool {
	return s != "" && len(s) <= limit && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

package natslog

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// Nodes of several versions work side by side while a cluster is upgraded. So each record
// has a schema version, and a node that meets a newer one than it knows does not guess what
// the record means:
//
//   - An event is passed over. Its position counts as that of any other event.
//   - A state is told as it is stored. It cannot be replaced by this node, which does not
//     know what it would lose.
//
// A field or a header that is added and that older nodes may ignore needs no new version. The
// fields of a state that a node does not know survive what it writes.

const (
	// headerSchema is the version of a record's schema. It is left out for version 1.
	headerSchema = "Kansei-Schema"
	// knownSchema is the newest version that this node reads. It writes version 1.
	knownSchema = 1
	// newerAgain is how often a line tells of records of a newer schema.
	newerAgain = time.Minute
)

// The records that the metric of newer schemas tells apart.
const (
	recordEvent = "event"
	recordState = "state"
)

var errNewerSchema = errors.New("its schema is newer than this node knows")

// newerSchema reports whether the headers of a record name a schema that this node does not
// know. One that cannot be read is not known either.
func newerSchema(h nats.Header) bool {
	v, ok := h[headerSchema]
	if !ok {
		return false
	}
	n, err := strconv.ParseUint(natsconn.Last(h, headerSchema), 10, 32)
	return len(v) != 1 || err != nil || n < 1 || n > knownSchema
}

// skip counts a record that holds no event that this node can read.
func (l *Log) skip(rec *record, reason skipReason) {
	if reason == skipSchema {
		l.tellNewer(recordEvent, rec)
		return
	}
	l.metrics.skip(reason)
}

// tellNewer counts a record of a newer schema, and logs it at most once a minute.
func (l *Log) tellNewer(what string, rec *record) {
	l.metrics.newer.WithLabelValues(what).Inc()
	l.newer.Log(slog.LevelWarn, "a record has a newer schema than this node knows: another node is of a later version; upgrade this one", "",
		"record", what, "schema", fmt.Sprintf("%.16s", natsconn.Last(rec.header, headerSchema)), "known", knownSchema, "seq", rec.seq)
}

// newerState is the error for a state that this node must not replace; nil when it may.
func newerState(rec *record) error {
	if rec == nil || !newerSchema(rec.header) {
		return nil
	}
	return fmt.Errorf("%w: it is %.16q, this node knows %d", errNewerSchema, natsconn.Last(rec.header, headerSchema), knownSchema)
}

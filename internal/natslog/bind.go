package natslog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

// What differs, if a flag can make it.
const (
	whatPartitions = "partitions"
	whatReplicas   = "replicas"
	whatMaxAge     = "max_age"
)

// What a stream's metadata pin.
const (
	metaEpoch      = "kansei_epoch"
	metaPartitions = "kansei_partitions"
)

// flag is the setting of a node that a stream's comes from; empty when there is none.
func flag(what string) string {
	switch what {
	case whatPartitions:
		return "--log-partitions"
	case whatReplicas:
		return "--log-replicas"
	case whatMaxAge:
		return "--log-max-age"
	}
	return ""
}

// newEpoch is the identity of a stream that is about to be created: 60 random
// bits, [a-z2-7]{12}.
func newEpoch() string { return strings.ToLower(rand.Text()[:12]) }

// wanted is the configuration of the stream when its epoch is that.
func (s *stream) wanted(epoch string) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:              s.name,
		Description:       "Kansei: the events of rooms",
		Subjects:          []string{s.subjects + "*"},
		Retention:         jetstream.LimitsPolicy,
		Storage:           jetstream.FileStorage,
		Discard:           jetstream.DiscardOld,
		MaxConsumers:      -1,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgsPerSubject: -1,
		MaxMsgSize:        -1,
		MaxAge:            s.l.cfg.MaxAge,
		Replicas:          s.l.cfg.Replicas,
		Duplicates:        min(dedupeWindow, s.l.cfg.MaxAge),
		AllowDirect:       true,
		RePublish: &jetstream.RePublish{
			Source:      s.subjects + "*",
			Destination: s.liveSubjects(epoch) + "{{wildcard(1)}}",
		},
		Metadata: map[string]string{
			metaEpoch:      epoch,
			metaPartitions: strconv.Itoa(s.l.cfg.Partitions),
		},
	}
	if s.isState() {
		c.Description = "Kansei: the state of rooms"
		c.MaxMsgsPerSubject, c.MaxAge, c.Duplicates = 1, 0, dedupeWindow
	}
	return c
}

// difference is something in which a stream is not what it should be.
type difference struct {
	what        string
	is, want    string
	survivable  bool // the log works all the same, if not as configured
	explanation string
}

// compare names the differences between a stream and what it should be. What
// operators may set as they like (limits of bytes, placement, compression) is not
// compared.
func (s *stream) compare(is jetstream.StreamConfig) []difference {
	epoch := is.Metadata[metaEpoch]
	want := s.wanted(epoch)
	var d []difference
	differs := func(what string, is, want any, survivable bool) {
		if a, b := fmt.Sprint(is), fmt.Sprint(want); a != b {
			d = append(d, difference{what: what, is: a, want: b, survivable: survivable})
		}
	}
	if epoch == "" {
		d = append(d, difference{what: "no " + metaEpoch + " in its metadata",
			explanation: "it was not made by kansei"})
		return d
	}
	differs(whatPartitions, is.Metadata[metaPartitions], want.Metadata[metaPartitions], false)
	differs("subjects", is.Subjects, want.Subjects, false)
	differs("storage", is.Storage, want.Storage, false)
	differs("retention", is.Retention, want.Retention, false)
	differs("discard", is.Discard, want.Discard, true)
	differs(whatReplicas, is.Replicas, want.Replicas, true)
	differs(whatMaxAge, is.MaxAge, want.MaxAge, true)
	differs("duplicate_window", is.Duplicates, want.Duplicates, is.Duplicates >= 2*s.l.cfg.AppendTimeout)
	differs("max_msgs_per_subject", is.MaxMsgsPerSubject, want.MaxMsgsPerSubject, false)
	differs("allow_direct", is.AllowDirect, want.AllowDirect, false)
	differs("no_ack", is.NoAck, want.NoAck, false)
	differs("sealed", is.Sealed, want.Sealed, false)
	differs("subject_transform", is.SubjectTransform != nil, false, false)
	differs("mirror", is.Mirror != nil, false, false)
	if is.RePublish == nil {
		differs("republish", "none", want.RePublish.Destination, false)
	} else {
		differs("republish source", is.RePublish.Source, want.RePublish.Source, false)
		differs("republish destination", is.RePublish.Destination, want.RePublish.Destination, false)
		differs("republish headers_only", is.RePublish.HeadersOnly, false, false)
	}
	return d
}

// mismatch is the error for the differences; nil when there are none.
func (s *stream) mismatch(d []difference) error {
	if len(d) == 0 {
		return nil
	}
	parts := make([]string, len(d))
	for i, x := range d {
		switch flag := flag(x.what); {
		case x.explanation != "":
			parts[i] = x.what + " (" + x.explanation + ")"
		case flag != "":
			parts[i] = fmt.Sprintf("%s %s, wanted %s (%s)", x.what, x.is, x.want, flag)
		default:
			parts[i] = fmt.Sprintf("%s %s, wanted %s", x.what, x.is, x.want)
		}
	}
	return fmt.Errorf("stream %s has %s", s.name, strings.Join(parts, "; "))
}

func survivable(d []difference) bool {
	return !slices.ContainsFunc(d, func(x difference) bool { return !x.survivable })
}

// info asks the stream's leader who it is and where it ends.
func (s *stream) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	answer, err := api(ctx, s.l.caller, opInfo, s.l.cfg.api()+"STREAM.INFO."+s.name, nil, leaderless)
	if err != nil {
		return nil, fmt.Errorf("ask for stream %s: %w", s.name, err)
	}
	if answer.Config.Name != s.name {
		return nil, fmt.Errorf("ask for stream %s: an answer about %q", s.name, answer.Config.Name)
	}
	if leaderless(answer) {
		return nil, fmt.Errorf("stream %s %w", s.name, errNoLeader)
	}
	return answer, nil
}

// leaderless reports whether a stream has no leader, as far as whoever answers knows: any
// replica does then, with what it happens to have.
func leaderless(info *jetstream.StreamInfo) bool {
	return info.Cluster != nil && info.Cluster.Leader == ""
}

// reach tells the first sequence and the end of the log of an epoch.
func (s *stream) reach(ctx context.Context, epoch string) (first uint64, end hub.Position, err error) {
	info, err := s.info(ctx)
	if err != nil {
		return 0, hub.Position{}, err
	}
	if info.Config.Metadata[metaEpoch] != epoch {
		return 0, hub.Position{}, errMoved
	}
	return info.State.FirstSeq, endOf(info), nil
}

// endOf is where a stream ends. The record there may have been removed.
func endOf(info *jetstream.StreamInfo) hub.Position {
	p := hub.Position{Seq: info.State.LastSeq}
	if at := info.State.LastTime; p.Seq > 0 && !at.IsZero() {
		p.At = max(at.UnixMilli(), 0)
	}
	return p
}

// create makes the stream. That another node was faster is no error.
func (s *stream) create(ctx context.Context) error {
	epoch := newEpoch()
	_, err := api[jetstream.StreamInfo](ctx, s.l.caller, opCreate, s.l.cfg.api()+"STREAM.CREATE."+s.name, s.wanted(epoch), nil)
	switch {
	case isCode(err, codeStreamNameInUse):
		return nil
	case isCode(err, codeNotSupported), isCode(err, codeNoPeers):
		return fmt.Errorf("create stream %s with %d replicas (%s): %w", s.name, s.l.cfg.Replicas, flag(whatReplicas), err)
	case err != nil:
		return fmt.Errorf("create stream %s: %w", s.name, err)
	}
	s.l.log.Info("stream created", "stream", s.name, "epoch", epoch, "replicas", s.l.cfg.Replicas)
	return nil
}

// identity is which stream a stream is.
type identity struct {
	epoch   string
	created time.Time
}

var (
	errWaiting  = errors.New("waiting for the first partition")
	errNoLeader = errors.New("has no leader")
)

// bind finds the stream, or makes it. A new set of streams is begun with partition
// 0: the number of partitions that its metadata pin is thus seen before anything is
// created.
func (s *stream) bind(ctx context.Context) (*jetstream.StreamInfo, error) {
	info, err := s.info(ctx)
	if !isCode(err, codeStreamNotFound) {
		return info, err
	}
	if first := s.l.logs[0]; s != first && first.identity().epoch == "" {
		return nil, fmt.Errorf("stream %s: %w", s.name, errWaiting)
	}
	if s.identity().epoch != "" {
		s.l.log.Warn("stream is gone; making it anew", "stream", s.name)
	}
	if err := s.create(ctx); err != nil {
		return nil, err
	}
	return s.info(ctx)
}

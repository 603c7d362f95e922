package natslog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// newEpoch is the identity of a stream that is about to be created: 60 random
// bits, [a-z2-7]{12}.
func newEpoch() string { return strings.ToLower(rand.Text()[:12]) }

// wanted is the configuration of the stream when its epoch is that.
func (s *stream) wanted(epoch string) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:              s.name,
		Description:       "Kansei: the events of rooms",
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
		Metadata: map[string]string{
			metaEpoch:      epoch,
			metaPartitions: strconv.Itoa(s.l.cfg.Partitions),
		},
	}
	s.shape(&c, epoch)
	if s.isState() {
		c.Description = "Kansei: the state of rooms"
		c.MaxMsgsPerSubject, c.MaxAge, c.Duplicates = 1, 0, dedupeWindow
	}
	return c
}

// info asks the stream's leader who it is and where it ends.
func (s *stream) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	answer, err := natsconn.API(ctx, s.l.conn, opInfo, s.l.cfg.api()+"STREAM.INFO."+s.name, nil, leaderless)
	if err != nil {
		return nil, fmt.Errorf("ask for stream %s: %w", s.name, explained(err, 0))
	}
	if answer.Config.Name != s.name {
		return nil, fmt.Errorf("ask for stream %s: an answer about %q", s.name, answer.Config.Name)
	}
	if leaderless(answer) {
		return nil, s.noLeader(answer)
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
	_, err := natsconn.API[jetstream.StreamInfo](ctx, s.l.conn, opCreate, s.l.cfg.api()+"STREAM.CREATE."+s.name, s.wanted(epoch), nil)
	switch {
	case natsconn.IsCode(err, natsconn.CodeStreamNameInUse):
		return nil
	case err != nil:
		return fmt.Errorf("create stream %s: %w", s.name, explained(err, s.l.cfg.Replicas))
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
	// errNeverCreate follows the name of the stream.
	errNeverCreate = errors.New("is not there, and --log-create=never: restore it, or have one node make it with --log-create=auto")
)

// bind finds the stream, or makes it. A new set of streams is begun with partition
// 0: the number of partitions that its metadata pin is thus seen before anything is
// created.
func (s *stream) bind(ctx context.Context) (*jetstream.StreamInfo, error) {
	info, err := s.info(ctx)
	if !natsconn.IsCode(err, natsconn.CodeStreamNotFound) {
		return info, err
	}
	if s.l.cfg.NeverCreate {
		// What is written to it meanwhile is refused at once.
		return nil, s.refuse(fmt.Errorf("stream %s %w", s.name, errNeverCreate))
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

// accept takes the stream for what it says it is, if it is what it should be. It reports
// whether that is another stream than before.
func (s *stream) accept(info *jetstream.StreamInfo) (other bool, err error) {
	differences := s.compare(info.Config)
	mismatch := s.mismatch(differences)
	id := identity{info.Config.Metadata[metaEpoch], info.Created}
	s.tellDifferences(differences)
	s.tellReplicas(info)
	if err := checkLeader(info); err != nil {
		return false, s.refuse(fmt.Errorf("stream %s: %w", s.name, err))
	}

	s.mu.Lock()
	if !survivable(differences) {
		s.usable = false
		s.mu.Unlock()
		return false, mismatch
	}
	// A server that was paused may tell of the stream that was there before.
	if s.id.epoch != "" && s.id.epoch != id.epoch && id.created.Before(s.id.created) && s.denials < 3 {
		s.denials++
		s.mu.Unlock()
		return false, fmt.Errorf("stream %s: an answer about one that is older", s.name)
	}
	s.denials = 0
	s.replicated.Store(info.Config.Replicas > 1)
	first := !s.usable
	other = s.id.epoch != id.epoch
	if other && s.id.epoch != "" {
		s.l.log.Warn("a stream of the room log was replaced by another one: its rooms begin anew, their viewers get a gap and what the new one has",
			"stream", s.name, "epoch", id.epoch, "before", s.id.epoch)
	}
	s.usable, s.err, s.id = true, mismatch, id
	s.domain.Store(info.Domain)
	if other {
		s.tip = endOf(info)
		s.pos, s.high, s.gone, s.shorter, s.doubts = s.tip.Seq, hub.Position{}, 0, time.Time{}, 0
		s.doubted = nil
	}
	s.mu.Unlock()

	if other {
		s.overtaken = make(map[*follow]bool)
		s.startAnew()
	}
	// The others wait for the first partition, rooms for the states.
	if first && (s == s.l.logs[0] || s.isState()) {
		for _, t := range s.l.streams() {
			if t != s {
				t.hurry()
			}
		}
	}
	return other, nil
}

// refuse has the stream not be used until it is accepted again; it returns the reason.
func (s *stream) refuse(why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.usable = false
	return why
}

// startAnew has every room begin anew.
func (s *stream) startAnew() {
	for _, f := range s.follows() {
		if !s.isState() {
			f.pasts.Add(1)
		}
		f.wake(s.anew())
	}
}

// anew is what a follow has to do when the stream is not the one that it was.
func (s *stream) anew() task {
	if s.isState() {
		return taskStateAnew
	}
	return taskWarm
}

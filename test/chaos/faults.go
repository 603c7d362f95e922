//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/kansei-live/kansei/loadtest/audit"
	"github.com/kansei-live/kansei/test/localcluster"
)

// fault is one way to break a cluster. do breaks it, waits, and mends it.
type fault struct {
	name string
	what string
	do   func(context.Context, *strike) error
}

// strike is one time that a fault happens: what was drawn for it.
type strike struct {
	*lab
	rng    *rand.Rand
	phases []audit.Window // in which viewers were sent away
}

// lasts is how long a time is in this run, which may be a short one.
func (s *strike) lasts(d time.Duration) time.Duration {
	return time.Duration(float64(d) * s.cfg.Pace)
}

// wait waits for a time, shortened as the run is.
func (s *strike) wait(ctx context.Context, d time.Duration) error {
	return sleep(ctx, s.lasts(d))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *strike) edge() *localcluster.Edge {
	return s.cluster.Edges[s.rng.IntN(len(s.cluster.Edges))]
}

func (s *strike) stream() string { return s.streams()[s.rng.IntN(s.cfg.Partitions)] }

// faults are all there are.
var faults = []fault{
	{"kill-edge", "SIGKILL of a node, started again after 3 s", func(ctx context.Context, s *strike) error {
		e := s.edge()
		if err := e.Kill(); err != nil {
			return err
		}
		return errors.Join(s.wait(ctx, 3*time.Second), e.Restart(ctx))
	}},
	{"kill-leader", "SIGKILL of the NATS server that leads a partition, started again after 5 s", func(ctx context.Context, s *strike) error {
		leader, _, err := s.leader(ctx, s.stream())
		if err != nil {
			return err
		}
		if err := leader.Kill(); err != nil {
			return err
		}
		return errors.Join(s.wait(ctx, 5*time.Second), leader.Restart(ctx))
	}},
	{"step-down", "the leaders of all partitions step down, ten times in 10 s", func(ctx context.Context, s *strike) error {
		for range 10 {
			for _, stream := range s.streams() {
				s.stepDown(stream)
			}
			if err := s.wait(ctx, time.Duration(500+s.rng.IntN(1000))*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}},
	{"pause-leader", "SIGSTOP of the NATS server that leads a partition, for 20 s", func(ctx context.Context, s *strike) error {
		leader, _, err := s.leader(ctx, s.stream())
		if err != nil {
			return err
		}
		return s.pause(ctx, leader.Process)
	}},
	{"pause-follower", "SIGSTOP of a NATS server that follows, for 20 s", func(ctx context.Context, s *strike) error {
		_, follower, err := s.leader(ctx, s.stream())
		if err != nil {
			return err
		}
		return s.pause(ctx, follower.Process)
	}},
	{"split-leader", "the NATS server that leads a partition is cut off from the other servers for 15 s", func(ctx context.Context, s *strike) error {
		leader, _, err := s.leader(ctx, s.stream())
		if err != nil {
			return err
		}
		return s.cut(ctx, leader.Name(), "nats-", 15*time.Second)
	}},
	{"all-nats", "SIGKILL of all NATS servers, started again after 5 s", func(ctx context.Context, s *strike) error {
		var errs []error
		for _, n := range s.cluster.NATS {
			errs = append(errs, n.Kill())
		}
		errs = append(errs, s.wait(ctx, 5*time.Second))
		var starting sync.WaitGroup
		starts := make([]error, len(s.cluster.NATS))
		for i, n := range s.cluster.NATS {
			starting.Go(func() { starts[i] = n.Restart(ctx) }) // each is ready with a quorum
		}
		starting.Wait()
		return errors.Join(append(errs, starts...)...)
	}},
	{"cut-nats", "a node is cut off from all NATS servers for 15 s", func(ctx context.Context, s *strike) error {
		return s.cut(ctx, s.edge().Name(), "nats-", 15*time.Second)
	}},
	{"cut-redis", "a node is cut off from Redis for 15 s, longer than its lease", func(ctx context.Context, s *strike) error {
		return s.cut(ctx, s.edge().Name(), "redis", max(15*time.Second, time.Duration(8/s.cfg.Pace*float64(time.Second))))
	}},
	{"empty-redis", "Redis is started again, empty", func(ctx context.Context, s *strike) error {
		return s.cluster.Redis.Restart(ctx)
	}},
	{"redis-failover", "Redis dies, and its replica takes over, which lacks what was written in the last 5 s", failover},
	{"full-redis", "Redis is at maxmemory for 10 s, and a node is killed meanwhile", fullRedis},
	{"lost-keys", "Redis loses keys here and there, for 10 s", lostKeys},
	{"bad-links", "all links are slow (100 ± 80 ms), and connections are reset here and there, for 15 s", badLinks},
	{"deaf", "a node loses half of what NATS republishes to it, for 10 s, and then all of it, for 5 s", deaf},
	{"overflow", "floods of comments, until the channel of live messages has overflowed on some node", overflow},
	{"drain", "a rolling restart: the nodes are drained one after the other, by SIGTERM and by POST /drain", rollingRestart},
}

// pause freezes a process for 20 s.
func (s *strike) pause(ctx context.Context, p *localcluster.Process) error {
	if err := p.Stop(); err != nil {
		return err
	}
	return errors.Join(s.wait(ctx, 20*time.Second), p.Cont())
}

// cut has nothing pass between two kinds of processes for a time.
func (s *strike) cut(ctx context.Context, a, b string, d time.Duration) error {
	defer spoil(s.links.of(a, b), weather{cut: true})()
	return s.wait(ctx, d)
}

func badLinks(ctx context.Context, s *strike) error {
	all := s.links.of("", "")
	defer spoil(all, weather{delay: 100 * time.Millisecond, jitter: 80 * time.Millisecond})()
	for end := time.Now().Add(s.lasts(15 * time.Second)); time.Now().Before(end); {
		if err := sleep(ctx, time.Duration(300+s.rng.IntN(1500))*time.Millisecond); err != nil {
			return err
		}
		all[s.rng.IntN(len(all))].reset()
	}
	return nil
}

func deaf(ctx context.Context, s *strike) error {
	node := s.edge().Name()
	var mu sync.Mutex // several connections ask
	before := s.links.deafen(node, func(subject string) bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.HasPrefix(subject, liveSubjects) && s.rng.IntN(2) == 0
	})
	err := s.wait(ctx, 10*time.Second)
	s.links.deafen(node, func(subject string) bool { return strings.HasPrefix(subject, liveSubjects) })
	if err == nil {
		err = s.wait(ctx, 5*time.Second)
	}
	if lost := s.links.deafen(node, nil) - before; err == nil && lost == 0 {
		err = errors.New("no message was lost: nothing was tested")
	}
	return err
}

// liveSubjects is what the subjects of republished messages begin with.
const liveSubjects = "kansei.live."

func overflow(ctx context.Context, s *strike) error {
	overflows := func() float64 { return s.metric(ctx, "kansei_nats_errors_total", "op", "slow_consumer") }
	before := overflows()
	room := s.cfg.rooms()[s.rng.IntN(s.cfg.Rooms)]
	for range maxFloods {
		s.crowd.Flood(room, 400)
		if overflows() > before {
			return nil
		}
	}
	return fmt.Errorf("no channel of %d messages overflowed in %d floods: nothing was tested", liveBuffer, maxFloods)
}

func rollingRestart(ctx context.Context, s *strike) error {
	byRequest := s.rng.IntN(2)
	for i, e := range s.cluster.Edges {
		var ask func() error // nil: by SIGTERM
		if i%2 == byRequest {
			ask = func() error { return s.post(ctx, e.Ops+"/drain") }
		}
		if err := s.replace(ctx, e, ask, ""); err != nil {
			return err
		}
	}
	return nil
}

// replace drains a node and starts it again, as another program unless that is empty.
func (s *strike) replace(ctx context.Context, e *localcluster.Edge, ask func() error, program string) error {
	began := s.journal.Now()
	limit, cancel := context.WithTimeout(ctx, s.cfg.Drain+drainGrace)
	status, err := e.End(limit, ask)
	cancel()
	if err != nil {
		return err
	}
	s.phases = append(s.phases, audit.Window{From: began, To: s.journal.Now() + afterDrain})
	if status != 0 {
		return fmt.Errorf("%s ended with status %d", e.Name(), status)
	}
	if program != "" {
		e.Use(program)
	}
	if err := e.Restart(ctx); err != nil {
		return err
	}
	// Until what stands before the nodes has seen that it is ready.
	return sleep(ctx, 2*time.Second)
}

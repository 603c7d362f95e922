package watchlog

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// The senders store batches, those of a room one after the other.
const (
	senders    = 4
	storeTime  = 5 * time.Second
	firstRetry = 250 * time.Millisecond
	lastRetry  = 5 * time.Second
)

type packet struct {
	room string
	id   string
	body []byte
	rows int
}

// sender stores the batches of a tracker, and knows which rooms have something for the next ones.
type sender struct {
	cfg     *Config
	dropped func(room string)

	mu      sync.Mutex
	rooms   []*room // that have something to say
	queues  [senders][]packet
	pending int      // bytes in queues
	spare   [][]byte // bodies of batches that were stored, for others: thousands of rows may come at once
	closing bool
	told    time.Time // when it was last logged that batches wait

	wakes [senders]chan struct{}
	ctx   context.Context
	stop  context.CancelFunc
	all   sync.WaitGroup
}

func newSender(cfg *Config, dropped func(string)) *sender {
	s := &sender{cfg: cfg, dropped: dropped}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for i := range senders {
		s.wakes[i] = make(chan struct{}, 1)
		s.all.Go(func() { s.run(i) }) // ends with close
	}
	return s
}

// wake notes a room that has something for the next batch.
func (s *sender) wake(r *room) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rooms = append(s.rooms, r)
}

func (s *sender) woken() []*room {
	s.mu.Lock()
	defer s.mu.Unlock()
	rooms := s.rooms
	s.rooms = nil
	return rooms
}

// mostSpare is how many bodies are kept, and largestSpare how many bytes each may have.
const (
	mostSpare    = 4
	largestSpare = 512 << 10
)

// buffer returns an empty body with room for so many bytes.
func (s *sender) buffer(size int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range s.spare {
		if cap(b) >= size {
			s.spare = slices.Delete(s.spare, i, i+1)
			return b[:0]
		}
	}
	return make([]byte, 0, size)
}

// add has a batch stored. One that finds too many before it is dropped, and its room tells all anew later; what that cannot say is
// lost: the ends of those who have left meanwhile.
func (s *sender) add(room, id string, body []byte, rows int) {
	p := packet{room, id, body, rows}
	i := hashOf(room) % senders
	s.mu.Lock()
	full := s.pending > 0 && s.pending+len(p.body) > s.cfg.MaxPending
	if !full {
		s.pending += len(p.body)
		s.queues[i] = append(s.queues[i], p)
		s.cfg.Metrics.pending.Set(float64(s.pending))
	}
	s.mu.Unlock()
	if full {
		s.cfg.Metrics.dropped.Add(float64(p.rows))
		go s.dropped(room) // the room is held
		return
	}
	s.cfg.Metrics.rows.Add(float64(p.rows))
	select {
	case s.wakes[i] <- struct{}{}:
	default:
	}
}

func (s *sender) run(i int) {
	for {
		p, ok := s.next(i)
		if !ok {
			s.mu.Lock()
			closing := s.closing
			s.mu.Unlock()
			if closing {
				return
			}
			select {
			case <-s.wakes[i]:
			case <-s.ctx.Done():
				return
			}
			continue
		}
		if !s.store(p) {
			return
		}
		s.mu.Lock()
		s.queues[i][0] = packet{}
		s.queues[i] = s.queues[i][1:]
		s.pending -= len(p.body)
		if len(s.spare) < mostSpare && cap(p.body) <= largestSpare {
			s.spare = append(s.spare, p.body)
		}
		s.cfg.Metrics.pending.Set(float64(s.pending))
		s.mu.Unlock()
	}
}

func (s *sender) next(i int) (packet, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queues[i]) == 0 {
		return packet{}, false
	}
	return s.queues[i][0], true
}

// store stores a packet, however long that takes; false when the sender ends.
func (s *sender) store(p packet) bool {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		ctx, cancel := context.WithTimeout(s.ctx, storeTime)
		err := s.cfg.Store(ctx, p.room, p.id, p.body)
		cancel()
		if err == nil {
			s.cfg.Metrics.batches.Inc()
			return true
		}
		s.cfg.Metrics.errors.Inc()
		s.tell(err)
		select {
		case <-s.ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// tell logs once a minute that batches wait.
func (s *sender) tell(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.told) > time.Minute && s.ctx.Err() == nil {
		s.told = now
		s.cfg.Logger.Log(s.ctx, slog.LevelWarn, "the watch log cannot be written: its rows wait in memory", "bytes", s.pending, "error", err)
	}
}

var errUnsent = errors.New("watchlog: rows were not stored")

// close stores what waits, within ctx.
func (s *sender) close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	for _, w := range s.wakes {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	done := make(chan struct{})
	go func() { s.all.Wait(); close(done) }()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = errUnsent
	}
	s.stop()
	<-done
	return err
}

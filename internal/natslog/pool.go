package natslog

import "sync"

// pool works for follows, for each at most once at a time: a bounded number of
// goroutines, which exist while there is work. The queue is bounded by the number
// of follows, since a follow is in one queue at the most.
type pool struct {
	limit int // goroutines
	work  func(*follow)

	mu      sync.Mutex
	urgent  []*follow // of the queue, what goes first
	queue   []*follow
	workers int
	closed  bool
	wg      sync.WaitGroup
}

func newPool(limit int, work func(*follow)) *pool { return &pool{limit: limit, work: work} }

// add queues a follow. After close it does nothing.
func (p *pool) add(f *follow, urgent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if urgent {
		p.urgent = append(p.urgent, f)
	} else {
		p.queue = append(p.queue, f)
	}
	if p.workers < p.limit {
		p.workers++
		// Ends when the queue is empty or the pool is closed; close waits for it.
		p.wg.Go(p.run)
	}
}

func (p *pool) run() {
	for {
		p.mu.Lock()
		from := &p.queue
		if len(p.urgent) > 0 {
			from = &p.urgent
		}
		if p.closed || len(*from) == 0 {
			p.workers--
			p.mu.Unlock()
			return
		}
		f := (*from)[0]
		(*from)[0] = nil
		*from = (*from)[1:]
		p.mu.Unlock()
		p.work(f)
	}
}

// close drops what is queued and waits for what is under way.
func (p *pool) close() {
	p.mu.Lock()
	p.closed, p.urgent, p.queue = true, nil, nil
	p.mu.Unlock()
	p.wg.Wait()
}

package descriptors

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// Reserve holds descriptors back. A caller that must have one when there is none left borrows it:
// the reserve lets go of one, and whatever is opened next gets it. It takes them back when
// there are some again. A nil Reserve holds nothing.
type Reserve struct {
	mu     sync.Mutex
	size   int
	spare  []*os.File
	closed bool
}

// NewReserve holds back so many descriptors.
func NewReserve(size int) (*Reserve, error) {
	r := &Reserve{size: size}
	for range size {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("descriptors in reserve: %w", err), r.Close())
		}
		r.spare = append(r.spare, f)
	}
	return r, nil
}

// Lend lets go of one descriptor. It returns false if there is none.
func (r *Reserve) Lend() bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	last := len(r.spare) - 1
	if last < 0 {
		return false
	}
	_ = r.spare[last].Close() // nothing was written
	r.spare = r.spare[:last]
	return true
}

// Refill takes back what was lent, as far as there are descriptors, and reports whether the
// reserve is whole.
func (r *Reserve) Refill() bool {
	if r == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.closed && len(r.spare) < r.size {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return false
		}
		r.spare = append(r.spare, f)
	}
	return true
}

// Empty reports whether no descriptor is left for anybody: some are lent and cannot be had
// back, or there is none beside those in reserve.
func (r *Reserve) Empty() bool {
	if r == nil {
		return false
	}
	if !r.Refill() {
		return true
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		return Exhausted(err)
	}
	_ = f.Close() // nothing was written
	return false
}

// Close lets go of all.
func (r *Reserve) Close() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, f := range r.spare {
		errs = append(errs, f.Close())
	}
	r.spare, r.closed = nil, true
	return errors.Join(errs...)
}

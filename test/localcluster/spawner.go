//go:build unix

package localcluster

import (
	"errors"
	"runtime"
	"sync"
)

var errClosed = errors.New("the cluster is closed")

// spawner starts processes from one thread that lives as long as they do: the kernel
// ends them when the thread that started them dies, and Go's threads come and go.
type spawner struct {
	work chan func()
	quit chan struct{}
	done chan struct{}
	once sync.Once
}

func newSpawner() *spawner {
	s := &spawner{work: make(chan func()), quit: make(chan struct{}), done: make(chan struct{})}
	// Ends with close, which waits for it.
	go func() {
		defer close(s.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for {
			select {
			case f := <-s.work:
				f()
			case <-s.quit:
				return
			}
		}
	}()
	return s
}

// do calls f on the thread and returns its error.
func (s *spawner) do(f func() error) error {
	result := make(chan error, 1)
	select {
	case s.work <- func() { result <- f() }:
		return <-result
	case <-s.quit:
		return errClosed
	}
}

func (s *spawner) close() {
	s.once.Do(func() { close(s.quit) })
	<-s.done
}

package natsconn

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

// TestPacedReads: reads are paced once there are many small ones, wait 2 ms at the
// most, and not at all behind a large one.
func TestPacedReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close() //nolint:errcheck // a pipe
		defer far.Close()  //nolint:errcheck // a pipe
		c := &pacedConn{Conn: near, pace: rate.NewLimiter(readRate, readBurst)}
		size := make(chan int)
		go func() { // ends when size is closed
			for n := range size {
				_, _ = far.Write(make([]byte, n))
			}
		}()
		defer close(size)
		read := func(n int) time.Duration {
			began := time.Now()
			size <- n
			if got, err := c.Read(make([]byte, 32<<10)); got != n || err != nil {
				t.Fatalf("read %d, %v, want %d", got, err, n)
			}
			return time.Since(began)
		}
		for range readBurst {
			if d := read(10); d != 0 {
				t.Fatalf("one of the first reads waited %v", d)
			}
		}
		for range 20 {
			if d := read(10); d != time.Second/readRate {
				t.Fatalf("a read among many waited %v, want %v", d, time.Second/readRate)
			}
		}
		read(readMuch)
		for range 20 {
			if d := read(readMuch); d != 0 {
				t.Fatalf("a read behind a large one waited %v", d)
			}
		}
		time.Sleep(time.Second)
		read(10)
		if d := read(10); d != 0 {
			t.Fatalf("a read after silence waited %v", d)
		}
	})
}

package socket

import (
	"compress/flate"
	"errors"
	"io"
	"sync"
)

// inflaters are the inflaters of a server: 40 KiB each, in use only while a
// message is being inflated.
type inflaters struct{ pool sync.Pool }

// inflater inflates one message at a time.
type inflater struct {
	from   payload
	stream io.ReadCloser // reads from
}

// maxFinalBlocks bounds how often one message may start a new DEFLATE stream. Who
// sends messages like that (RFC 7692, section 7.2.3.4) does it once.
const maxFinalBlocks = 8

// inflate appends what p inflates to, at most limit bytes. An error is a *breach.
func (s *inflaters) inflate(dst, p []byte, limit int) ([]byte, error) {
	f, _ := s.pool.Get().(*inflater)
	if f == nil {
		f = new(inflater)
		f.stream = flate.NewReader(&f.from)
	}
	out, err := f.inflate(dst, p, limit)
	f.from = payload{}
	s.pool.Put(f)
	return out, err
}

func (f *inflater) inflate(dst, p []byte, limit int) ([]byte, error) {
	f.from = payload{p: p}
	base := len(dst)
	for range maxFinalBlocks {
		// A stream that follows a final block may refer to what came before it.
		if err := f.stream.(flate.Resetter).Reset(&f.from, dst[base:]); err != nil {
			return dst, badData("a message is not deflated properly")
		}
		for {
			if len(dst) == cap(dst) {
				dst = append(dst, 0)[:len(dst)]
			}
			// One byte beyond the limit tells that it is too big.
			free := dst[len(dst):min(cap(dst), base+limit+1)]
			n, err := f.stream.Read(free)
			dst = dst[:len(dst)+n]
			if len(dst)-base > limit {
				return dst, tooBig(limit)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return dst, badData("a message is not deflated properly")
			}
		}
		if f.from.done() {
			return dst, nil
		}
	}
	return dst, badData("a message has too many final DEFLATE blocks")
}

// deflateTail completes the last block of a message, of which the sender has cut
// off the end, and ends the stream, so that the end can be told from a block that
// is cut short.
const deflateTail = "\x00\x00\xff\xff" + "\x01\x00\x00\xff\xff"

// payload reads a message and then the tail. It gives single bytes, so that an
// inflater takes no more than it needs.
type payload struct {
	p  []byte
	at int
}

// done reports whether the stream that has ended was the message's last: the one
// that the tail ends, or one of which the sender has not cut off anything.
func (s *payload) done() bool {
	return s.at == len(s.p) || s.at == len(s.p)+len(deflateTail)
}

func (s *payload) ReadByte() (byte, error) {
	at := s.at
	switch {
	case at < len(s.p):
		s.at++
		return s.p[at], nil
	case at-len(s.p) < len(deflateTail):
		s.at++
		return deflateTail[at-len(s.p)], nil
	}
	return 0, io.EOF
}

func (s *payload) Read(p []byte) (n int, err error) {
	if s.at < len(s.p) {
		n = copy(p, s.p[s.at:])
	} else if n = copy(p, deflateTail[s.at-len(s.p):]); n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	s.at += n
	return n, nil
}

// buffer is pooled memory. Pools take pointers, so that giving it back allocates
// nothing.
type buffer struct{ b []byte }

// bufferSize is what a buffer begins with: what is read at once, and what is
// written at once by a goroutine.
const bufferSize = 4 << 10

// maxPooled is the largest buffer worth keeping.
const maxPooled = 64 << 10

// buffers is the pool of a server's buffers.
type buffers struct{ pool sync.Pool }

func (s *buffers) get() *buffer {
	if b, ok := s.pool.Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, bufferSize)}
}

func (s *buffers) put(b *buffer) {
	if cap(b.b) <= maxPooled {
		b.b = b.b[:cap(b.b)]
		s.pool.Put(b)
	}
}

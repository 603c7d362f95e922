package socket

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/klauspost/compress/flate"

	"github.com/kansei-live/kansei/hub"
)

var _ hub.Framer = Prepare

// deflateLevel is the level at which frames are deflated, once for everybody: of
// this encoder's levels the last cheap one. On comments it is within 2 % of the
// standard library's level 6, in less than half of the time.
const deflateLevel = 5

// minDeflate is the least length in bytes at which deflating is tried; this encoder
// looks for no repetition in less.
const minDeflate = 128

// maxHeader is the most bytes that the header of a server's frame can have.
const maxHeader = 10

// deflaters is a cache of what holds no state between uses; it is the package's
// and not a server's because frames are prepared once for all connections.
var deflaters sync.Pool

// deflater deflates one message at a time. It keeps its window and its output.
type deflater struct {
	w   *flate.Writer
	out []byte
}

func (d *deflater) Write(p []byte) (int, error) {
	d.out = append(d.out, p...)
	return len(p), nil
}

// Prepare makes the frame of one text message: unmasked, not fragmented, ready
// to be written to any number of connections. If deflate is set and it makes the
// frame smaller, it is made deflated as well, without reference to other messages.
func Prepare(message []byte, deflate bool) hub.Frame {
	f := hub.Frame{Plain: textFrame(message, 0)}
	if !deflate || len(message) < minDeflate {
		return f
	}
	d, _ := deflaters.Get().(*deflater)
	if d == nil {
		d = new(deflater)
		w, err := flate.NewWriter(d, deflateLevel)
		if err != nil { // the level is not one
			return f
		}
		d.w = w
	}
	d.out = d.out[:0]
	d.w.Reset(d)
	_, err := d.w.Write(message)
	if err == nil {
		err = d.w.Flush()
	}
	// Flush ends with an empty stored block, of which RFC 7692 leaves out 00 00 ff ff.
	if out, ok := bytes.CutSuffix(d.out, []byte("\x00\x00\xff\xff")); ok && err == nil && len(out) < len(message) {
		f.Deflated = textFrame(out, rsv1Bit)
	}
	if cap(d.out) > maxPooled {
		d.out = nil
	}
	deflaters.Put(d)
	return f
}

// textFrame is a server's frame with the payload of one text message.
func textFrame(payload []byte, rsv byte) []byte {
	first, n := byte(finBit|opText)|rsv, len(payload)
	var head [maxHeader]byte
	b := append(head[:0], first)
	switch {
	case n <= 125:
		b = append(b, byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	f := make([]byte, len(b)+n)
	copy(f[copy(f, b):], payload)
	return f
}

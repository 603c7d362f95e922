package socket

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/klauspost/compress/flate"

	"github.com/kansei-live/kansei/hub"
)

// The forms of a WebSocket: each message is a text frame, unmasked and not fragmented, so
// that the bytes can be written to any number of connections. Deflated ones are for peers
// that have agreed to permessage-deflate, without reference to other messages.
var (
	Plain    = &hub.Form{Encode: encodePlain}
	Deflated = &hub.Form{Encode: encodeDeflated, Instead: Plain}
)

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

// encodePlain points each message into its frame.
func encodePlain(messages [][]byte) []byte {
	size := 0
	for _, m := range messages {
		size += maxHeader + len(m)
	}
	b := make([]byte, 0, size)
	for i, m := range messages {
		b = appendTextFrame(b, m, 0)
		messages[i] = b[len(b)-len(m) : len(b) : len(b)]
	}
	return b
}

// encodeDeflated deflates the messages that get smaller; it returns nil when none does.
func encodeDeflated(messages [][]byte) []byte {
	d, _ := deflaters.Get().(*deflater)
	if d == nil {
		d = new(deflater)
		w, err := flate.NewWriter(d, deflateLevel)
		if err != nil { // the level is not one
			return nil
		}
		d.w = w
	}
	var b []byte
	smaller := false
	for _, m := range messages {
		if out, ok := d.deflate(m); ok {
			b, smaller = appendTextFrame(b, out, rsv1Bit), true
		} else {
			b = appendTextFrame(b, m, 0)
		}
	}
	if cap(d.out) > maxPooled {
		d.out = nil
	}
	deflaters.Put(d)
	if !smaller {
		return nil
	}
	return b
}

// deflate returns a message deflated, valid until the next call, and whether that is
// smaller.
func (d *deflater) deflate(message []byte) ([]byte, bool) {
	if len(message) < minDeflate {
		return nil, false
	}
	d.out = d.out[:0]
	d.w.Reset(d)
	if _, err := d.w.Write(message); err != nil {
		return nil, false
	}
	if err := d.w.Flush(); err != nil {
		return nil, false
	}
	// Flush ends with an empty stored block, of which RFC 7692 leaves out 00 00 ff ff.
	out, ok := bytes.CutSuffix(d.out, []byte("\x00\x00\xff\xff"))
	return out, ok && len(out) < len(message)
}

// appendTextFrame appends a server's frame with the payload of one text message.
func appendTextFrame(b, payload []byte, rsv byte) []byte {
	first, n := byte(finBit|opText)|rsv, len(payload)
	if b == nil {
		b = make([]byte, 0, maxHeader+n)
	}
	switch {
	case n <= 125:
		b = append(b, first, byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, first, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, first, 127), uint64(n))
	}
	return append(b, payload...)
}

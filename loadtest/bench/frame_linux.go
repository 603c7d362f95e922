package bench

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"

	"github.com/kansei-live/kansei/protocol"
)

// The parts of a frame's first two bytes, RFC 6455 section 5.2.
const (
	finBit   = 0x80
	rsv1Bit  = 0x40 // deflated, RFC 7692
	maskBit  = 0x80
	opText   = 0x1
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xA
	opBits   = 0x0f
	maxFrame = 1 << 20 // longer than any message of a server
)

// clientFrame is a frame as a client sends it. The mask is always the same: it is
// there to be taken off.
func clientFrame(first byte, payload []byte) []byte {
	mask := [4]byte{0x5a, 0x0f, 0xa5, 0xc3}
	f := append(make([]byte, 0, len(payload)+8), first|finBit)
	if len(payload) <= 125 {
		f = append(f, maskBit|byte(len(payload)))
	} else {
		f = binary.BigEndian.AppendUint16(append(f, maskBit|126), uint16(len(payload)))
	}
	f = append(f, mask[:]...)
	for i, b := range payload {
		f = append(f, b^mask[i%4])
	}
	return f
}

// deflated is a client's text frame, deflated.
func deflated(payload []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(payload); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	return clientFrame(opText|rsv1Bit, bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))), nil
}

// inflate is the other way round, of a payload.
func inflate(payload []byte) ([]byte, error) {
	r := flate.NewReader(io.MultiReader(bytes.NewReader(payload), bytes.NewReader([]byte("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
	out, err := io.ReadAll(io.LimitReader(r, maxFrame))
	if err != nil {
		return nil, fmt.Errorf("message does not inflate: %w", err)
	}
	return out, nil
}

// serverFrame splits p into the first frame and what follows; ok is false when the
// frame has not come whole.
func serverFrame(p []byte) (first byte, payload, rest []byte, ok bool, err error) {
	if len(p) < 2 {
		return 0, nil, nil, false, nil
	}
	size, head := uint64(p[1]&^maskBit), 2
	switch {
	case p[1]&maskBit != 0:
		return 0, nil, nil, false, fmt.Errorf("a server's frame is masked")
	case size == 126:
		head = 4
	case size == 127:
		head = 10
	}
	if len(p) < head {
		return 0, nil, nil, false, nil
	}
	switch head {
	case 4:
		size = uint64(binary.BigEndian.Uint16(p[2:]))
	case 10:
		size = binary.BigEndian.Uint64(p[2:])
	}
	if size > maxFrame {
		return 0, nil, nil, false, fmt.Errorf("a frame of %d bytes", size)
	}
	end := head + int(size)
	if len(p) < end {
		return 0, nil, nil, false, nil
	}
	return p[0], p[head:end], p[end:], true, nil
}

// told is what a message says that many viewers get.
type told struct {
	window   uint32
	numbers  []uint32 // of the comments in it
	comments bool
	history  bool
	withheld int64 // comments that it says it leaves out
	message  protocol.Message
}

// tell reads a message.
func tell(payload []byte) (*told, error) {
	m, err := protocol.Decode(payload)
	if err != nil {
		return nil, err
	}
	t := &told{message: m}
	c, ok := m.(*protocol.Comments)
	if !ok {
		return t, nil
	}
	t.comments, t.history, t.withheld = true, c.History, int64(max(c.Of-c.Shown, 0))
	for i := range c.Items {
		w, n, ok := unmark(c.Items[i].Text)
		if !ok {
			continue
		}
		t.window = w
		t.numbers = append(t.numbers, n)
	}
	t.message = nil // the numbers are what is left of it
	return t, nil
}

// floorFrame is a server's frame of that many bytes in all with one comment in it, or
// the least that there can be.
func floorFrame(window uint32, n, size int) []byte {
	const before, after = `{"type":"comments","cursor":"f","items":[{"id":"f","at":0,"user":{"id":"f"},"text":"`, `"}]}`
	payload := append([]byte(before), mark(window, n)...)
	payload = append(payload, ' ')
	for len(payload)+len(after)+4 < size {
		payload = append(payload, '8')
	}
	payload = append(payload, after...)
	f := []byte{finBit | opText}
	switch {
	case len(payload) <= 125:
		f = append(f, byte(len(payload)))
	case len(payload) <= 0xffff:
		f = binary.BigEndian.AppendUint16(append(f, 126), uint16(len(payload)))
	default:
		f = binary.BigEndian.AppendUint64(append(f, 127), uint64(len(payload)))
	}
	return append(f, payload...)
}

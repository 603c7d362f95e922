package socket

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/kansei-live/kansei/protocol"
)

// The parts of a frame header.
const (
	finBit  = 0x80
	rsv1Bit = 0x40
	rsvBits = 0x70
	opBits  = 0x0f
	maskBit = 0x80
	lenBits = 0x7f

	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa

	// maxControl is the most bytes that the payload of a control frame can have.
	maxControl = 125
)

// breach is what a peer did wrong, and how the connection is closed for it.
type breach struct {
	kind Kind
	code protocol.CloseCode
	text string
}

func (b *breach) Error() string { return b.text }

func protocolError(format string, a ...any) error {
	return &breach{ProtocolError, protocol.CloseProtocol, fmt.Sprintf(format, a...)}
}

func badData(text string) error { return &breach{BadData, protocol.CloseInvalidData, text} }

func tooBig(limit int) error {
	return &breach{TooBig, protocol.CloseTooBig, fmt.Sprintf("a message has more than %d bytes", limit)}
}

// sink takes what a decoder finds. The bytes are valid during the call only. Each
// call tells whether to go on.
type sink interface {
	message(p []byte) bool // one text message, inflated, valid UTF-8
	ping(p []byte) bool
	closed(code int, reason string) bool // the last call
}

// decoder finds messages and control frames in the bytes that a client sent,
// in pieces of any size. It holds buffers only while a frame or a message is
// unfinished. Whoever reads the connection owns it.
type decoder struct {
	env *decoding
	// part is a frame of which some bytes are missing, as it came.
	part *buffer
	// open is the payload so far of a message of which frames are missing;
	// openDeflated tells whether it is deflated.
	open         *buffer
	openDeflated bool
	deflates     bool // permessage-deflate is agreed on
	// rested: the latest piece had a point where nothing was unfinished.
	rested bool
}

// decoding is what all decoders of a server share.
type decoding struct {
	limit     int // bytes of a message
	buffers   buffers
	inflaters inflaters
}

func newDecoding(limit int) *decoding { return &decoding{limit: limit} }

// wireLimit bounds the payload of a message before it is inflated: a deflater
// adds 5 bytes to each stored block at worst.
func (e *decoding) wireLimit(deflated bool) int {
	if deflated {
		return e.limit + e.limit/8 + 64
	}
	return e.limit
}

// unfinished tells whether bytes of a frame or of a message are missing.
func (d *decoder) unfinished() bool { return d.part != nil || d.open != nil }

// feed takes the next bytes of the stream, which become the decoder's to change
// for the time of the call. An error is a *breach; after it, and after a sink has
// said to stop, the decoder must not be fed again.
func (d *decoder) feed(in []byte, to sink) error {
	d.rested = !d.unfinished()
	for len(in) > 0 {
		if d.part == nil {
			h, err := d.header(in)
			if err != nil {
				return err
			}
			if !h.whole || len(in) < h.size {
				d.part = d.env.buffers.get()
				d.part.b = append(d.part.b[:0], in...)
				return nil
			}
			frame := in[:h.size]
			in = in[h.size:]
			if more, err := d.frame(h, frame, to); err != nil || !more {
				return err
			}
			continue
		}
		// The frame began in an earlier piece: take what completes its header, then
		// what completes it.
		h, err := d.header(d.part.b)
		if err != nil {
			return err
		}
		n := min(h.size-len(d.part.b), len(in))
		d.part.b = append(d.part.b, in[:n]...)
		in = in[n:]
		if h, err = d.header(d.part.b); err != nil {
			return err
		}
		if !h.whole || len(d.part.b) < h.size {
			continue
		}
		part := d.part
		d.part = nil
		more, err := d.frame(h, part.b, to)
		d.env.buffers.put(part)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// release gives back what the decoder holds.
func (d *decoder) release() {
	if d.part != nil {
		d.env.buffers.put(d.part)
	}
	if d.open != nil {
		d.env.buffers.put(d.open)
	}
	d.part, d.open = nil, nil
}

// header is the beginning of a frame.
type header struct {
	first byte // FIN, RSV and the opcode
	whole bool // all of the header is there
	head  int  // its bytes
	size  int  // the bytes of header and payload; as many of the header as are known to be missing while it is not whole
}

// header reads the header of the frame that p begins with and refuses it as soon
// as the bytes that are wrong are there.
func (d *decoder) header(p []byte) (h header, err error) {
	h.first = p[0]
	if err := d.checkFirst(h.first); err != nil {
		return h, err
	}
	if len(p) < 2 {
		h.size = 2
		return h, nil
	}
	op, short := h.first&opBits, int(p[1]&lenBits)
	if p[1]&maskBit == 0 {
		return h, protocolError("a frame is not masked")
	}
	if op >= opClose && short > maxControl {
		return h, protocolError("a control frame has more than %d bytes", maxControl)
	}
	h.head = 2 + 4
	switch short {
	case 126:
		h.head += 2
	case 127:
		h.head += 8
	}
	if len(p) < h.head {
		h.size = h.head
		if short == 127 && len(p) > 2 && p[2]&0x80 != 0 {
			return h, protocolError("a length has its highest bit set")
		}
		return h, nil
	}
	length := uint64(short)
	switch short {
	case 126:
		length = uint64(binary.BigEndian.Uint16(p[2:]))
	case 127:
		length = binary.BigEndian.Uint64(p[2:])
	}
	switch {
	case length>>63 != 0:
		return h, protocolError("a length has its highest bit set")
	case short == 126 && length < 126, short == 127 && length <= 0xffff:
		return h, protocolError("a length of %d is not written in the fewest bytes", length)
	}
	if op < opClose {
		room, deflated := 0, h.first&rsv1Bit != 0
		if d.open != nil {
			room, deflated = len(d.open.b), d.openDeflated
		}
		if length > uint64(d.env.wireLimit(deflated)-room) {
			return h, tooBig(d.env.limit)
		}
	}
	h.whole, h.size = true, h.head+int(length)
	return h, nil
}

// checkFirst checks the first byte of a frame against what may come now.
func (d *decoder) checkFirst(first byte) error {
	op := first & opBits
	switch op {
	case opContinuation:
		if d.open == nil {
			return protocolError("a continuation without a message")
		}
	case opText, opBinary:
		if d.open != nil {
			return protocolError("a new message within an unfinished one")
		}
	case opClose, opPing, opPong:
		if first&finBit == 0 {
			return protocolError("a control frame is fragmented")
		}
	default:
		return protocolError("opcode %d is reserved", op)
	}
	allowed := byte(0)
	if d.deflates && (op == opText || op == opBinary) {
		allowed = rsv1Bit
	}
	if first&rsvBits&^allowed != 0 {
		return protocolError("a reserved bit is set")
	}
	if op == opBinary {
		return &breach{Binary, protocol.CloseUnsupported, "binary messages are not taken"}
	}
	return nil
}

// frame takes a whole frame.
func (d *decoder) frame(h header, p []byte, to sink) (more bool, err error) {
	payload := p[h.head:]
	unmask(payload, p[h.head-4:h.head])
	fin := h.first&finBit != 0
	switch h.first & opBits {
	case opPing:
		return to.ping(payload), nil
	case opPong:
		return true, nil
	case opClose:
		return d.close(payload, to)
	}
	if fin && d.open == nil {
		d.rested = true
		return d.message(payload, h.first&rsv1Bit != 0, to)
	}
	if d.open == nil {
		d.open, d.openDeflated = d.env.buffers.get(), h.first&rsv1Bit != 0
		d.open.b = d.open.b[:0]
	}
	d.open.b = append(d.open.b, payload...)
	if !fin {
		return true, nil
	}
	d.rested = true
	open := d.open
	d.open = nil
	more, err = d.message(open.b, d.openDeflated, to)
	d.env.buffers.put(open)
	return more, err
}

// message hands on the payload of a whole message.
func (d *decoder) message(p []byte, deflated bool, to sink) (more bool, err error) {
	if deflated {
		out := d.env.buffers.get()
		defer d.env.buffers.put(out)
		if out.b, err = d.env.inflaters.inflate(out.b[:0], p, d.env.limit); err != nil {
			return false, err
		}
		p = out.b
	}
	if !utf8.Valid(p) {
		return false, badData("a text message is not UTF-8")
	}
	return to.message(p), nil
}

// close hands on a close frame.
func (d *decoder) close(p []byte, to sink) (more bool, err error) {
	if len(p) == 0 {
		return to.closed(codeNoStatus, ""), nil
	}
	if len(p) == 1 {
		return false, protocolError("a close frame has 1 byte")
	}
	code, reason := int(binary.BigEndian.Uint16(p)), p[2:]
	if !validCode(code) {
		return false, protocolError("close code %d is reserved", code)
	}
	if !utf8.Valid(reason) {
		return false, badData("the reason of a close frame is not UTF-8")
	}
	return to.closed(code, string(reason)), nil
}

// unmask undoes the masking of a client's payload in place.
func unmask(p, key []byte) {
	k := binary.LittleEndian.Uint32(key)
	k8 := uint64(k)<<32 | uint64(k)
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^k8)
		p = p[8:]
	}
	for i := range p {
		p[i] ^= key[i&3]
	}
}

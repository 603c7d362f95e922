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

	// maxIdle is how many frames that bring no message a peer may send within a tick of
	// the wheel: control frames, empty pieces of a message, and whatever comes once the
	// connection is being closed. Messages are for the handler to count, and what is in
	// their pieces is bounded with them. A browser sends a few frames like that in an
	// hour; this is for peers that send what has come together while a network stood
	// still.
	maxIdle = 500
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

func tooMany() error {
	return &breach{Flood, protocol.CloseTooMany, protocol.CloseReason("too many frames that bring no message", 1000)}
}

func tooBig(limit int) error {
	return &breach{TooBig, protocol.CloseTooBig, fmt.Sprintf("a message has more than %d bytes", limit)}
}

// sink takes what is found. The bytes are valid during the call only.
type sink interface {
	message(p []byte) // one text message, inflated, valid UTF-8
	ping(p []byte)
	deaf() bool                     // only a close frame matters
	closed(code int, reason string) // the last call
}

// decoder is how far decoding has come in the bytes that a client sent, in pieces
// of any size. It holds buffers only while a frame or a message is unfinished. Whoever
// reads the connection owns it.
type decoder struct {
	// part is a frame of which some bytes are missing, as it came.
	part *buffer
	// open is the payload so far of a message of which frames are missing;
	// openDeflated reports whether it is deflated.
	open         *buffer
	openDeflated bool
	deflates     bool   // permessage-deflate is agreed on
	rested       bool   // the latest piece had a point where nothing was unfinished
	pinged       bool   // the latest piece had a ping
	over         bool   // nothing that comes matters any more
	long         bool   // the peer may send longer messages than others
	idle         uint16 // the frames that brought no message, since who feeds it reset it
}

// decoding finds messages and control frames. It is shared by all connections of a
// server.
type decoding struct {
	limit     int // bytes of a message
	longLimit int // the same of a peer that may send longer ones
	buffers   buffers
	inflaters inflaters
}

func newDecoding(limit, long int) *decoding {
	return &decoding{limit: limit, longLimit: max(limit, long)}
}

// limitOf is how many bytes a message may have.
func (e *decoding) limitOf(d *decoder) int {
	if d.long {
		return e.longLimit
	}
	return e.limit
}

// wireLimit bounds the payload of a message before it is inflated: a deflater
// adds 5 bytes to each stored block at worst.
func (e *decoding) wireLimit(d *decoder, deflated bool) int {
	limit := e.limitOf(d)
	if deflated {
		return limit + limit/8 + 64
	}
	return limit
}

// unfinished reports whether bytes of a frame or of a message are missing.
func (d *decoder) unfinished() bool { return d.part != nil || d.open != nil }

// feed takes the next bytes of the stream, which become the decoder's to change
// for the time of the call. An error is a *breach. After it, and after a close frame,
// nothing is taken any more.
func (e *decoding) feed(d *decoder, in []byte, to sink) error {
	d.rested, d.pinged = !d.unfinished(), false
	for len(in) > 0 && !d.over {
		n, err := e.next(d, in, to)
		if err != nil {
			d.over = true
			return err
		}
		in = in[n:]
	}
	return nil
}

// next takes a frame, or what there is of it, and returns how many bytes that is.
func (e *decoding) next(d *decoder, in []byte, to sink) (n int, err error) {
	if d.part == nil {
		h, err := e.header(d, in)
		if err != nil {
			return 0, err
		}
		if !h.whole || len(in) < h.size {
			d.part = e.buffers.get()
			d.part.b = append(d.part.b[:0], in...)
			return len(in), nil
		}
		return h.size, e.frame(d, h, in[:h.size], to)
	}
	// The frame began in an earlier piece: take what completes its header, then what
	// completes it.
	h, err := e.header(d, d.part.b)
	if err != nil {
		return 0, err
	}
	n = min(h.size-len(d.part.b), len(in))
	d.part.b = append(d.part.b, in[:n]...)
	if h, err = e.header(d, d.part.b); err != nil {
		return 0, err
	}
	if !h.whole || len(d.part.b) < h.size {
		return n, nil
	}
	part := d.part
	d.part = nil
	err = e.frame(d, h, part.b, to)
	e.buffers.put(part)
	return n, err
}

// release gives back what the decoder holds.
func (e *decoding) release(d *decoder) {
	if d.part != nil {
		e.buffers.put(d.part)
	}
	if d.open != nil {
		e.buffers.put(d.open)
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
func (e *decoding) header(d *decoder, p []byte) (h header, err error) {
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
		if length > uint64(e.wireLimit(d, deflated)-room) {
			return h, tooBig(e.limitOf(d))
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
func (e *decoding) frame(d *decoder, h header, p []byte, to sink) error {
	payload := p[h.head:]
	fin := h.first&finBit != 0
	if h.first&opBits > opClose || len(payload) == 0 && !fin || to.deaf() && h.first&opBits != opClose {
		if d.idle++; d.idle > maxIdle {
			return tooMany()
		}
	}
	unmask(payload, p[h.head-4:h.head])
	switch h.first & opBits {
	case opPing:
		d.pinged = true
		to.ping(payload)
		return nil
	case opPong:
		return nil
	case opClose:
		d.over = true
		return closed(payload, to)
	}
	if fin && d.open == nil {
		d.rested = true
		return e.message(payload, h.first&rsv1Bit != 0, e.limitOf(d), to)
	}
	if d.open == nil {
		d.open, d.openDeflated = e.buffers.get(), h.first&rsv1Bit != 0
		d.open.b = d.open.b[:0]
	}
	d.open.b = append(d.open.b, payload...)
	if !fin {
		return nil
	}
	d.rested = true
	open := d.open
	d.open = nil
	err := e.message(open.b, d.openDeflated, e.limitOf(d), to)
	e.buffers.put(open)
	return err
}

// message hands on the payload of a whole message.
func (e *decoding) message(p []byte, deflated bool, limit int, to sink) (err error) {
	if to.deaf() {
		return nil // to inflate it would be the peer's to have done
	}
	if deflated {
		out := e.buffers.get()
		defer e.buffers.put(out)
		if out.b, err = e.inflaters.inflate(out.b[:0], p, limit); err != nil {
			return err
		}
		p = out.b
	}
	if !utf8.Valid(p) {
		return badData("a text message is not UTF-8")
	}
	to.message(p)
	return nil
}

// closed hands on a close frame.
func closed(p []byte, to sink) error {
	if len(p) == 0 {
		to.closed(codeNoStatus, "")
		return nil
	}
	if len(p) == 1 {
		return protocolError("a close frame has 1 byte")
	}
	code, reason := int(binary.BigEndian.Uint16(p)), p[2:]
	if !validCode(code) {
		return protocolError("close code %d is reserved", code)
	}
	if !utf8.Valid(reason) {
		return badData("the reason of a close frame is not UTF-8")
	}
	to.closed(code, string(reason))
	return nil
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

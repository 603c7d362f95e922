package loadtest

import (
	"bytes"
	"encoding/binary"
	"net"
)

// meter is a connection that watches the WebSocket frames that it reads, so that
// the size of a message can be told as it was on the wire: the payload, as
// compressed. It belongs to the goroutine that reads.
type meter struct {
	net.Conn

	ended  int     // bytes of the blank line that ends the HTTP answer; 4: it has ended
	header []byte  // of the frame that begins
	rest   uint64  // of the payload of the frame under way
	data   uint64  // payload of the message under way
	sizes  []int32 // of messages that were read but not taken
}

// Read reads, and looks at what came.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.scan(p[:n])
	return n, err
}

// take returns the size of the oldest message that was not taken yet.
func (m *meter) take() int {
	if len(m.sizes) == 0 {
		return 0
	}
	n := m.sizes[0]
	m.sizes = append(m.sizes[:0], m.sizes[1:]...)
	return int(n)
}

func (m *meter) scan(p []byte) {
	p = p[m.skipAnswer(p):]
	for len(p) > 0 {
		if m.rest > 0 {
			n := min(m.rest, uint64(len(p)))
			m.rest -= n
			p = p[n:]
			continue
		}
		m.header = append(m.header, p[0])
		p = p[1:]
		if size, ok := frameSize(m.header); ok {
			m.begin(m.header[0], size)
			m.header = m.header[:0]
		}
	}
}

const blankLine = "\r\n\r\n"

// skipAnswer returns how many bytes of p belong to the answer to the upgrade.
func (m *meter) skipAnswer(p []byte) int {
	if m.ended == 0 {
		if n := bytes.Index(p, []byte(blankLine)); n >= 0 {
			m.ended = len(blankLine)
			return n + len(blankLine)
		}
	}
	n := 0
	for ; n < len(p) && m.ended < len(blankLine); n++ {
		switch p[n] {
		case blankLine[m.ended]:
			m.ended++
		case '\r':
			m.ended = 1
		default:
			m.ended = 0
		}
	}
	return n
}

// frameSize reads the payload's size from a frame's header, once it is complete.
func frameSize(h []byte) (size uint64, complete bool) {
	if len(h) < 2 {
		return 0, false
	}
	size = uint64(h[1] & 0x7f)
	want := 2
	switch size {
	case 126:
		want = 4
	case 127:
		want = 10
	}
	if h[1]&0x80 != 0 {
		want += 4 // a mask, which no server should use
	}
	if len(h) < want {
		return 0, false
	}
	switch size {
	case 126:
		size = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		size = binary.BigEndian.Uint64(h[2:])
	}
	return size, true
}

// begin takes the first byte of a frame's header and the size of its payload.
func (m *meter) begin(first byte, size uint64) {
	m.rest = size
	if control := first&0x08 != 0; control {
		return
	}
	m.data += size
	if final := first&0x80 != 0; final {
		m.sizes = append(m.sizes, int32(min(m.data, 1<<31-1)))
		m.data = 0
	}
}

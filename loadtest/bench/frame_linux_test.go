package bench

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kansei-live/kansei/protocol"
)

func TestMarks(t *testing.T) {
	t.Parallel()
	for n := range 30 {
		if w, m, ok := unmark(text(7, n)); !ok || w != 7 || m != uint32(n) {
			t.Errorf("%q: %d %d %t", text(7, n), w, m, ok)
		}
	}
	for _, s := range []string{"", "#", "#1", "#1.", "1.2", "#x.2", "#1.x", "#99999999999.1", "#1.99999999999"} {
		if _, _, ok := unmark(s); ok {
			t.Errorf("%q is taken for a mark", s)
		}
	}
}

// What the floor writes is what a node would: a comment that the crowd can time, in a
// frame of the size that was asked for.
func TestFloorFrame(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 125, 126, 127, 200, 1000, 65535, 65536, 70000} {
		f := floorFrame(3, 41, size)
		first, payload, rest, ok, err := serverFrame(f)
		if !ok || err != nil || len(rest) > 0 || first != finBit|opText {
			t.Fatalf("%d: %#x %t %v", size, first, ok, err)
		}
		if size > 125 && (len(f) < size-4 || len(f) > size+8) {
			t.Errorf("%d bytes instead of %d", len(f), size)
		}
		m, err := tell(payload)
		if err != nil || !m.comments || m.window != 3 || len(m.numbers) != 1 || m.numbers[0] != 41 {
			t.Errorf("%d: %+v %v", size, m, err)
		}
	}
}

// A frame is taken when it is there whole, and never before.
func TestServerFrameInPieces(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 130, 70000} {
		f := floorFrame(1, 1, size)
		for n := range f {
			if _, _, _, ok, err := serverFrame(f[:n]); ok || err != nil {
				t.Fatalf("%d of %d bytes: %t %v", n, len(f), ok, err)
			}
		}
		if _, _, rest, ok, err := serverFrame(append(f, 0x8a)); !ok || err != nil || !bytes.Equal(rest, []byte{0x8a}) {
			t.Errorf("%t %v %x", ok, err, rest)
		}
	}
	for _, bad := range [][]byte{{0x81, 0x80}, {0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0}} {
		if _, _, _, ok, err := serverFrame(bad); ok || err == nil {
			t.Errorf("%x is taken", bad)
		}
	}
}

func TestClientFrame(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "short", strings.Repeat("long", 100)} {
		f := clientFrame(opText, []byte(text))
		head := 6
		if len(text) > 125 {
			head = 8
		}
		mask, body := f[head-4:head], bytes.Clone(f[head:])
		for i := range body {
			body[i] ^= mask[i%4]
		}
		if f[0] != finBit|opText || f[1]&maskBit == 0 || string(body) != text {
			t.Errorf("%q: % x", text, f)
		}
	}
}

func TestInflate(t *testing.T) {
	t.Parallel()
	const text = `{"type":"beat","visible":true}`
	f, err := deflated([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if f[0] != finBit|opText|rsv1Bit {
		t.Errorf("begins with %#x", f[0])
	}
	body := bytes.Clone(f[6:])
	for i := range body {
		body[i] ^= f[2+i%4]
	}
	if got, err := inflate(body); err != nil || string(got) != text {
		t.Errorf("%q %v", got, err)
	}
	if _, err := inflate([]byte("\xff\xff\xff")); err == nil {
		t.Error("garbage inflates")
	}
}

func TestTell(t *testing.T) {
	t.Parallel()
	m, err := tell(protocol.Encode(&protocol.Comments{Cursor: "c", Shown: 2, Of: 9, Items: []protocol.Comment{
		{ID: "1", Text: text(5, 10)}, {ID: "2", Text: "somebody else's"}, {ID: "3", Text: text(5, 12)},
	}}))
	if err != nil || m.window != 5 || len(m.numbers) != 2 || m.numbers[1] != 12 || m.withheld != 7 || m.history {
		t.Errorf("%+v %v", m, err)
	}
	if m, err = tell(protocol.Encode(&protocol.Gap{Missed: 3, Cursor: "c"})); err != nil || m.comments {
		t.Errorf("%+v %v", m, err)
	}
	if _, err := tell([]byte("{")); err == nil {
		t.Error("garbage is taken")
	}
}

func FuzzServerFrame(f *testing.F) {
	f.Add(floorFrame(1, 2, 200))
	f.Add([]byte{0x81, 126, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		_, payload, rest, ok, err := serverFrame(p)
		if ok && (err != nil || len(payload)+len(rest)+2 > len(p)) {
			t.Fatalf("%d bytes: %d and %d, %v", len(p), len(payload), len(rest), err)
		}
	})
}

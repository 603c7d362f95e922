package socket

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kansei-live/kansei/hub"
)

// parseFrame takes a server's frame apart.
func parseFrame(t testing.TB, f []byte) (first byte, payload []byte) {
	t.Helper()
	p := &peer{t: t, br: bufio.NewReader(bytes.NewReader(f))}
	first, payload, err := p.read()
	if err != nil || p.br.Buffered() > 0 {
		t.Fatalf("not a frame: % .20x (%v)", f, err)
	}
	return first, payload
}

func TestForms(t *testing.T) {
	t.Parallel()
	random := make([]byte, 70000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	var wg sync.WaitGroup
	for range 4 { // deflaters are shared
		wg.Go(func() {
			for _, n := range []int{0, 1, 10, 47, 48, 100, 125, 126, 127, 500, 65535, 65536, 70000} {
				text := []byte(strings.Repeat("comment ", n/8+1)[:n])
				for _, m := range [][]byte{text, random[:n]} {
					full := Plain.Encode([][]byte{m})
					if first, payload := parseFrame(t, full); first != 0x81 || !bytes.Equal(payload, m) {
						t.Errorf("%d bytes: plain frame %#x with %d", n, first, len(payload))
					}
					small := Deflated.Encode([][]byte{m})
					if small == nil {
						if n >= 500 && bytes.Equal(m, text) {
							t.Errorf("%d bytes: not deflated", n)
						}
						continue
					}
					if len(small) >= len(full) {
						t.Errorf("%d bytes: %d deflated, %d plain", n, len(small), len(full))
					}
					first, payload := parseFrame(t, small)
					inflated, err := new(inflaters).inflate(nil, payload, 1<<20)
					if first != 0xc1 || err != nil || !bytes.Equal(inflated, m) {
						t.Errorf("%d bytes: deflated frame %#x inflates to %d (%v)", n, first, len(inflated), err)
					}
				}
			}
		})
	}
	wg.Wait()
}

// Several messages are one piece of bytes, each a frame of its own, deflated where that
// makes it smaller.
func TestFormsOfSeveralMessages(t *testing.T) {
	t.Parallel()
	long := []byte(strings.Repeat("comment ", 100))
	want := [][]byte{long, []byte("{}"), long}
	for form, firsts := range map[*hub.Form][]byte{Plain: {0x81, 0x81, 0x81}, Deflated: {0xc1, 0x81, 0xc1}} {
		messages := slices.Clone(want)
		p := &peer{t: t, br: bufio.NewReader(bytes.NewReader(form.Encode(messages)))}
		for i := range want {
			first, payload, err := p.read()
			if first == 0xc1 && err == nil {
				payload, err = new(inflaters).inflate(nil, payload, 1<<20)
			}
			if err != nil || first != firsts[i] || !bytes.Equal(payload, want[i]) || !bytes.Equal(messages[i], want[i]) {
				t.Errorf("message %d: %#x, %.20q, %v", i, first, payload, err)
			}
		}
		if p.br.Buffered() > 0 {
			t.Error("there is more")
		}
	}
	if Deflated.Encode([][]byte{[]byte("{}"), []byte("[]")}) != nil {
		t.Error("deflated though that gains nothing")
	}
}

// comments is a message like those that rooms get, with n comments.
func comments(n int) []byte {
	type user struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	type item struct {
		ID   string `json:"id"`
		At   int64  `json:"at"`
		User user   `json:"user"`
		Text string `json:"text"`
	}
	words := []string{"うぽつ", "88888888", "www", "伝説の始まり", "毎日来て弾幕作れよ！", "あけおめえええええええ", "先生の声が聞こえません", "なるほど"}
	r := rand.New(rand.NewPCG(uint64(n), 3))
	var items []item
	for i := range n {
		items = append(items, item{
			ID: fmt.Sprintf("%x", 0x1000+i), At: 1790000000000 + int64(i)*37 + r.Int64N(30),
			User: user{fmt.Sprintf("u%08x", r.Uint32()), fmt.Sprintf("viewer %d", r.IntN(50000))},
			Text: words[r.IntN(len(words))],
		})
	}
	b, err := json.Marshal(map[string]any{"type": "comments", "cursor": "AAAAaGVsbG8tMTIzNDU2", "items": items})
	if err != nil {
		panic(err)
	}
	return b
}

func BenchmarkForms(b *testing.B) {
	for _, n := range []int{1, 2, 11, 40} {
		m := comments(n)
		for deflate, form := range map[bool]*hub.Form{false: Plain, true: Deflated} {
			b.Run(fmt.Sprintf("comments=%d/deflate=%v", n, deflate), func(b *testing.B) {
				b.SetBytes(int64(len(m)))
				b.ReportAllocs()
				size := 0
				for b.Loop() {
					size = len(form.Encode([][]byte{m}))
				}
				b.ReportMetric(float64(size)/float64(n), "B/comment")
			})
		}
	}
}

// nowhere is a sink that keeps nothing.
type nowhere struct{}

func (nowhere) message([]byte)     {}
func (nowhere) ping([]byte)        {}
func (nowhere) deaf() bool         { return false }
func (nowhere) closed(int, string) {}

func BenchmarkDecode(b *testing.B) {
	beat := `{"type":"beat","visible":true,"media_ms":123456}`
	comment := `{"type":"comment","ref":"17","text":"` + strings.Repeat("歓声", 20) + `"}`
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"beat", text(beat)},
		{"comment", text(comment)},
		{"comment deflated", frame(0xc1, deflated(b, comment))},
		{"ping", frame(finBit|opPing, "x")},
	} {
		b.Run(c.name, func(b *testing.B) {
			d, e := decoder{deflates: true}, newDecoding(8192, 0)
			in := make([]byte, len(c.frame))
			b.ReportAllocs()
			for b.Loop() {
				copy(in, c.frame) // a decoder unmasks in place
				if err := e.feed(&d, in, nowhere{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestDecodeAllocatesNothing is not parallel: it counts the allocations of the
// whole process.
func TestDecodeAllocatesNothing(t *testing.T) {
	d, e := decoder{deflates: true}, newDecoding(8192, 0)
	for _, f := range [][]byte{
		text("hello"),
		frame(0xc1, deflated(t, strings.Repeat("hello ", 100))),
		append(frame(opText, "hel"), frame(0x80, "lo")...),
	} {
		in := make([]byte, len(f))
		allowed := 0.0
		if raceEnabled {
			allowed = 30 // what the pools drop
		}
		got := testing.AllocsPerRun(1000, func() {
			copy(in, f)
			half := len(in) / 2
			if e.feed(&d, in[:half], nowhere{}) != nil || e.feed(&d, in[half:], nowhere{}) != nil {
				t.Error("refused")
			}
		})
		if got > allowed {
			t.Errorf("decoding % .10x allocates %.1f times", f, got)
		}
		if d.unfinished() {
			t.Error("something is unfinished")
		}
	}
}

// TestIdleHoldsNothing: after whole messages a decoder holds no memory.
func TestIdleHoldsNothing(t *testing.T) {
	t.Parallel()
	d, e := decoder{}, newDecoding(8192, 0)
	stream := append(frame(opText, "a"), frame(0x80, "b")...)
	for i := range stream {
		if i > 0 && !d.unfinished() {
			t.Fatalf("nothing is unfinished after %d bytes", i)
		}
		if err := e.feed(&d, stream[i:i+1], nowhere{}); err != nil {
			t.Fatal(err)
		}
	}
	if d.part != nil || d.open != nil {
		t.Error("it holds a buffer")
	}
	// Unfinished ones are given back when the connection ends.
	if err := e.feed(&d, append(frame(opText, "a"), binary.BigEndian.AppendUint16(nil, 0x80fe)...), nowhere{}); err != nil {
		t.Fatal(err)
	}
	if d.part == nil || d.open == nil {
		t.Fatal("nothing is unfinished")
	}
	if e.release(&d); d.unfinished() {
		t.Error("release leaves something")
	}
}

// A peer that may send longer messages may do so up to its own limit, deflated or not.
func TestLongMessages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		long bool
		n    int
		ok   bool
	}{{false, 100, true}, {false, 101, false}, {true, 101, true}, {true, 200, true}, {true, 201, false}} {
		frame := append([]byte{finBit | opText, maskBit | 126, byte(c.n >> 8), byte(c.n), 0, 0, 0, 0}, bytes.Repeat([]byte("x"), c.n)...)
		if c.n < 126 {
			frame = append([]byte{finBit | opText, maskBit | byte(c.n), 0, 0, 0, 0}, bytes.Repeat([]byte("x"), c.n)...)
		}
		to := &listener{}
		err := newDecoding(100, 200).feed(&decoder{long: c.long}, frame, to)
		if (err == nil) != c.ok {
			t.Errorf("%d bytes, long %v: %v", c.n, c.long, err)
		}
	}
}

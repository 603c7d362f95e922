package socket

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	coder "github.com/coder/websocket"
)

// fuzzLimit is small, so that fuzzing meets it.
const fuzzLimit = 200

// transcript is a sink that writes down what it gets.
type transcript struct {
	messages []string
	all      []string // messages, pings and the close frame
}

func (s *transcript) message(p []byte) {
	s.messages = append(s.messages, string(p))
	s.all = append(s.all, "message "+string(p))
}

func (s *transcript) ping(p []byte) {
	s.all = append(s.all, "ping "+string(p))
}

func (s *transcript) deaf() bool { return false }

func (s *transcript) closed(code int, reason string) {
	s.all = append(s.all, fmt.Sprint("close ", code, reason))
}

// decode feeds a stream in pieces, whose lengths come from cuts over and over; no
// cuts: in one.
func decode(stream []byte, deflates bool, cuts []byte) (*transcript, *decoder, error) {
	d, e := &decoder{deflates: deflates}, newDecoding(fuzzLimit, 0)
	to := new(transcript)
	rest := bytes.Clone(stream)
	for i := 0; len(rest) > 0; i++ {
		n := len(rest)
		if len(cuts) > 0 {
			n = min(n, 1+int(cuts[i%len(cuts)]))
		}
		// A copy that is wiped afterwards: a decoder must not keep what it was fed.
		piece := bytes.Clone(rest[:n])
		rest = rest[n:]
		err := e.feed(d, piece, to)
		for j := range piece {
			piece[j] = 0xee
		}
		if err != nil {
			return to, d, err
		}
		if k := len(to.all); k > 0 && strings.HasPrefix(to.all[k-1], "close") {
			return to, d, nil
		}
	}
	return to, d, nil
}

// tape is a connection that plays a stream and takes everything.
type tape struct {
	io.Reader
	net.Conn
}

func (t tape) Read(p []byte) (int, error)       { return t.Reader.Read(p) }
func (tape) Write(p []byte) (int, error)        { return len(p), nil }
func (tape) Close() error                       { return nil }
func (tape) SetDeadline(time.Time) error        { return nil }
func (tape) SetWriteDeadline(t time.Time) error { return nil }

// oracle has coder/websocket read the stream.
func oracle(t *testing.T, stream []byte, deflates bool) (messages []string, binary bool, err error) {
	t.Helper()
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
		"Connection":            {"Upgrade"},
		"Upgrade":               {"websocket"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}}
	o := new(coder.AcceptOptions)
	if deflates {
		r.Header.Set(headerExtensions, "permessage-deflate")
		o.CompressionMode = coder.CompressionNoContextTakeover
	}
	c, err := coder.Accept(&hijackable{header: http.Header{}, nc: tape{Reader: bytes.NewReader(stream)}}, r, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(fuzzLimit)
	for {
		typ, r, err := c.Reader(context.Background())
		if err != nil {
			return messages, false, err
		}
		if typ == coder.MessageBinary {
			return messages, true, nil
		}
		p, err := io.ReadAll(r)
		if err != nil {
			return messages, false, err
		}
		messages = append(messages, string(p))
	}
}

// FuzzDecoder checks that the decoder finds in a stream what coder/websocket finds
// there, and finds the same however the stream is cut.
func FuzzDecoder(f *testing.F) {
	zip := func(s string) string { return deflated(f, s) }
	for _, s := range [][][]byte{
		{text("hello")},
		{text(""), text("歓声"), closing(1000, "bye"), text("more")},
		{frame(opText, "a"), frame(finBit|opPing, "p"), frame(0, "b"), frame(0x80, "c")},
		{text(strings.Repeat("x", 125)), text(strings.Repeat("x", 126)), text(strings.Repeat("x", 200))},
		{text(strings.Repeat("x", 201))},
		{frame(0xc1, zip("hello")), text("plain"), frame(0xc1, zip(strings.Repeat("x", 200)))},
		{frame(0xc1, zip(strings.Repeat("x", 201)))},
		{frame(0x41, zip("hello")[:2]), frame(finBit|opPong, ""), frame(0x80, zip("hello")[2:])},
		{frame(0xc1, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), text("b")},
		{frame(0xc1, "\xff\xff")},
		{frame(0x82, "x")},
		{text("\xff")},
		{frame(opText, "a"), text("b")},
		{frame(0x80, "a")},
		{{finBit | opText, 1, 'x'}},
		{frame(0xf1, "x")},
		{frame(finBit|opClose, "")},
		{frame(finBit|opClose, "x")},
		{closing(1005, "")},
		{frame(0x83, "")},
		{{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}},
		{{0x81, 0xfe, 0, 5, 1, 2, 3, 4, 'h', 'e', 'l', 'l', 'o'}},
	} {
		for _, deflates := range []bool{false, true} {
			f.Add(bytes.Join(s, nil), deflates, []byte{0})
			f.Add(bytes.Join(s, nil), deflates, []byte{2, 0, 6})
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, deflates bool, cuts []byte) {
		if len(stream) > maxIdle*len(frame(finBit|opPing, "")) {
			return // it may have more frames that bring nothing than are taken; coder takes any number
		}
		check(t, stream, deflates, cuts)
	})
}

// check decodes a stream in one piece and cut, and compares both with coder's
// reading of it.
func check(t *testing.T, stream []byte, deflates bool, cuts []byte) {
	t.Helper()
	whole, d, err := decode(stream, deflates, nil)
	cut, dCut, cutErr := decode(stream, deflates, cuts)
	if !slices.Equal(whole.all, cut.all) || fmt.Sprint(err) != fmt.Sprint(cutErr) {
		t.Fatalf("in one piece: %q, %v\ncut: %q, %v", whole.all, err, cut.all, cutErr)
	}
	if err == nil && d.unfinished() != dCut.unfinished() {
		t.Fatalf("unfinished: %v in one piece, %v cut", d.unfinished(), dCut.unfinished())
	}
	compare(t, stream, deflates, whole, d.unfinished(), err)
}

// FuzzFrames is FuzzDecoder on streams that are made of frames: most of them right.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x81\x05hello\x01\x02ab\x89\x01p\x80\x01c\xc1\x20hello hello hello hello hello\x88\x02\x03\xe8"), []byte{3})
	f.Add([]byte("\x41\x08comment comment\x00\x02ab\x80\x03cde\xc1\x00"), []byte{0, 9})
	f.Add([]byte("\xc1\x7fx\x81\x7ey\x01\xc8zzzzz\x80\x01"), []byte{1})
	f.Fuzz(func(t *testing.T, script, cuts []byte) {
		var stream []byte
		var zipped string // what is left of a deflated message whose first frame was not its last
		for frames := 0; len(script) >= 2 && frames < 30; frames++ {
			first, n := script[0], int(script[1])
			script = script[2:]
			// The payload is what the script has, over and over.
			have := string(script[:min(n, len(script), 40)])
			script = script[len(have):]
			payload := strings.Repeat(have, n/max(len(have), 1)+1)
			payload = payload[:min(n, len(payload))]
			switch {
			case first&opBits == opContinuation && zipped != "":
				if payload = zipped; first&finBit == 0 {
					payload = zipped[:len(zipped)/2]
				}
				zipped = zipped[len(payload):]
			case first&opBits == opText && first&rsv1Bit != 0:
				if zipped = deflated(t, payload); zipped == "" {
					zipped = "\x00"
				}
				payload = zipped
				if first&finBit == 0 {
					payload = zipped[:len(zipped)/2]
				}
				zipped = zipped[len(payload):]
			}
			stream = append(stream, frame(first, payload)...)
		}
		check(t, stream, true, cuts)
		check(t, stream, false, cuts)
	})
}

// compare holds ours against coder's reading of the same stream. The two differ on
// purpose, or because coder is wrong, in this:
//   - ours refuses binary messages, text that is not UTF-8, lengths that are not
//     minimal and DEFLATE data that is cut short;
//   - ours refuses what is too big as soon as it is announced, before it is inflated
//     too, while coder waits for it; coder refuses DEFLATE data that is corrupt
//     before the message is whole;
//   - coder loses its place behind a final DEFLATE block, and may take a message for
//     whole when the stream ends within it.
func compare(t *testing.T, stream []byte, deflates bool, ours *transcript, unfinished bool, err error) {
	t.Helper()
	if deflates && hasFinalBlock(stream) {
		return
	}
	b, refused := errors.AsType[*breach](err)
	if refused && (b.kind == ProtocolError || b.kind == Binary) {
		// Ours may refuse a header before it is whole.
		stream = append(bytes.Clone(stream), make([]byte, 16)...)
	}
	theirs, binary, theirErr := oracle(t, stream, deflates)
	n := len(ours.messages)
	fail := func(what string) {
		t.Helper()
		t.Fatalf("%s\nours: %q, %v\ncoder: %q, binary %v, %v", what, ours.all, err, theirs, binary, theirErr)
	}
	if len(theirs) < n || !slices.Equal(ours.messages, theirs[:n]) {
		fail("other messages")
	}
	theyClosed := coder.CloseStatus(theirErr) != -1
	ended := errors.Is(theirErr, io.EOF) || errors.Is(theirErr, io.ErrUnexpectedEOF)
	_, corrupt := errors.AsType[flate.CorruptInputError](theirErr)
	weClosed := len(ours.all) > 0 && strings.HasPrefix(ours.all[len(ours.all)-1], "close")
	more := len(theirs) > n
	switch {
	case !refused && weClosed:
		if !theyClosed || more {
			fail("coder sees no close frame here")
		}
	case !refused && unfinished && len(theirs) == n+1:
	case !refused:
		if theyClosed || binary || more || !ended && !corrupt && !errors.Is(theirErr, coder.ErrMessageTooBig) {
			fail("coder does not wait for more")
		}
	case strings.Contains(b.text, "fewest"), strings.Contains(b.text, "125 bytes"):
		// The lengths of control frames that are not minimal are of both kinds.
	case b.kind == ProtocolError:
		if theyClosed || binary || more || ended {
			fail("coder does not refuse")
		}
	case b.kind == Binary:
		if !binary && ended || theyClosed || more { // or something else is wrong with it too
			fail("coder sees no binary message here")
		}
	case b.kind == TooBig && !deflates:
		if theyClosed || len(theirs) > n+1 {
			fail("coder takes what ours refuses")
		}
	}
}

// hasFinalBlock reports whether a deflated message of the stream has a final DEFLATE
// block. It takes no notice of breaches.
func hasFinalBlock(stream []byte) bool {
	var message []byte
	deflated := false
	for len(stream) >= 6 {
		n, head := int(stream[1]&lenBits), 6
		switch {
		case n == 126 && len(stream) >= 8:
			n, head = int(stream[2])<<8|int(stream[3]), 8
		case n >= 126: // too big for the limit in any case
			return false
		}
		op := stream[0] & opBits
		whole := len(stream) >= head+n
		payload := bytes.Clone(stream[head:min(head+n, len(stream))])
		unmask(payload, stream[head-4:head])
		if op < opClose {
			if op != opContinuation {
				message, deflated = nil, stream[0]&rsv1Bit != 0
			}
			message = append(message, payload...)
			if deflated {
				from := bytes.NewReader(append(bytes.Clone(message), "\x00\x00\xff\xff"...))
				if _, err := io.Copy(io.Discard, flate.NewReader(from)); err == nil {
					return true
				}
			}
		}
		if !whole {
			return false
		}
		stream = stream[head+n:]
	}
	return false
}

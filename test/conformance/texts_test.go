package conformance

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kansei-live/kansei/internal/socket"
)

// plain is a text of n bytes that deflates to next to nothing.
func plain(n int) string { return strings.Repeat("kansei ", n/7+1)[:n] }

// noise is a text of n bytes that deflates by a quarter at best.
func noise(n int) string { return noiseOf(7, n) }

func noiseOf(seed uint64, n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[r.IntN(len(letters))]
	}
	return string(b)
}

// comments is a text of n bytes with characters of every length.
func comments(n int) string {
	s := strings.Repeat("歓声 888888 きたー！ 👏👏🏽 ﾟ∀ﾟ é 神回 🇯🇵 ", n/20+1)[:n]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + strings.Repeat("w", n-len(s))
}

// texts are such that a decoder could get wrong.
func texts() []string {
	return []string{
		"歓声が上がる。うぽつ、88888888、ｷﾀ━━━(ﾟ∀ﾟ)━━━!!",
		"👩‍👩‍👧‍👦 👏🏽 🇯🇵 ❤️ 🏴󠁧󠁢󠁳󠁣󠁴󠁿 1️⃣",
		"が と か\u3099, e\u0301, 葛\U000e0100, 𠮷野家",
		"\ufeffa mark at the beginning, \ufeff within",
		"\x00 \x01 \x7f \u0080 \u07ff \u0800 \ud7ff \ue000 \ufffd \uffff \U00010000 \U0010ffff",
		"\u2028\u2029\r\n\t\"\\</script>",
		"مرحبا שלום สวัสดี नमस्ते 안녕",
		comments(1000),
	}
}

// deflatedTo is a text whose deflated frame has a payload of exactly n bytes.
func deflatedTo(t *testing.T, n int) string {
	t.Helper()
	length := n
	for seed := range uint64(1000) {
		text := plain(128) + noiseOf(seed, length) // another seed: sizes that no length gives are given by one
		frame := socket.Deflated.Encode([][]byte{[]byte(text)})
		if frame == nil {
			t.Fatalf("a text of %d bytes is not deflated", len(text))
		}
		size := payloadSize(frame)
		if size == n {
			return text
		}
		length = max(length+n-size, 1)
	}
	t.Fatalf("no text deflates to %d bytes", n)
	return ""
}

// payloadSize is what the header of a server's frame says.
func payloadSize(frame []byte) int {
	switch frame[1] {
	case 126:
		return int(binary.BigEndian.Uint16(frame[2:]))
	case 127:
		return int(binary.BigEndian.Uint64(frame[2:]))
	}
	return int(frame[1])
}

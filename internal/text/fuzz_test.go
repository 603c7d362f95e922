package text

import (
	"errors"
	"math/rand/v2"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

func seeds(f *testing.F) {
	for _, s := range []string{
		"hello", "\xff", "か\u3099", "👨‍👩‍👧‍👦 1️⃣ 🏴\U000E0067\U000E0062\U000E007F", "a\u202Eb\u200F", "\u2ADC\uFE00",
		"Z\u0335\u0322\u0308\u0335\u0322\u0308", "می\u200Cخواهم", "\r\n\t ", "\u3164\uFE0F", "שלום\u200F!", "\u1100\u0301\u1161",
	} {
		f.Add(s)
	}
}

// check fails the test if s is not what cleaning promises.
func check(t *testing.T, in, s string) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Fatalf("%+q became %+q, which is not UTF-8", in, s)
	}
	if !norm.NFC.IsNormalString(s) {
		t.Fatalf("%+q became %+q, which is not in NFC", in, s)
	}
	marks := 0
	var prev rune
	for _, r := range s {
		switch {
		case r != '\n' && unicode.IsControl(r),
			r >= 0x202A && r <= 0x202E, r >= 0x2060 && r <= 0x206F, r == 0x200B, r == 0xFEFF, r == cgj, r == 0xE0001,
			r >= 0xFDD0 && r <= 0xFDEF, r&0xFFFE == 0xFFFE:
			t.Fatalf("%+q became %+q, which has %U", in, s, r)
		case isSelector(r) && isSelector(prev), isJoiner(r) && isJoiner(prev), isBidiMark(r) && isBidiMark(prev):
			t.Fatalf("%+q became %+q, which has %U behind %U", in, s, r, prev)
		case unicode.In(r, unicode.Mn, unicode.Me) && !isSelector(r):
			if marks++; marks > MaxMarks {
				t.Fatalf("%+q became %+q, which has more than %d marks on a character", in, s, MaxMarks)
			}
		case !unicode.Is(unicode.M, r):
			marks = 0
		}
		prev = r
	}
}

// TestCleanAnyMixture puts together what the byte-wise mutations of a fuzzer hardly
// ever do: runes of every class that the filter and the normalizer know.
func TestCleanAnyMixture(t *testing.T) {
	t.Parallel()
	pool := []rune{
		'a', 'e', '=', '1', '#', ' ', '\n', '\r', '\t', 0, 0x85, 0xA0, 0x3000, 0x200B, 0xAD, 0x2028, cgj,
		0x300, 0x301, 0x316, 0x323, 0x338, 0x344, 0x345, 0x20DD, 0x20E3, 0x3099, 0x309A, 0xFF9E, 0x302E,
		'か', 'ｶ', '葛', 0xFA10, 0x2F800, 0x212B, 0x2126, 0x2ADC, 0x2329, 0x2260, 0x2190, 0x2800, 0x3164, 0x115F,
		0x1100, 0x1161, 0x11A8, 0xAC00, 0xD7B0, zwj, zwnj, 0xFE00, 0xFE0E, 0xFE0F, 0xE0100, 0x180B, 0x180E,
		0x200E, 0x200F, 0x61C, 0x202E, 0x2066, 0x5D0, 0x5B0, 0x5BC, 0x627, 0x653, 0x64B, 0x651, 0x600, 0xFB1D, 0xFB2A,
		0x915, 0x93C, 0x94D, 0x958, 0x903, 0x9C7, 0x9BE, 0x9D7, 0xB47, 0xB56, 0xDD9, 0xDCF, 0xDCA, 0x1025, 0x102E,
		0xF40, 0xF71, 0xF72, 0xF73, 0xF90, 0xE01, 0xE33, 0xE49, 0x1820, 0x11099, 0x110BA, 0x1D157, 0x1D165, 0x1D16E,
		0x1F468, 0x1F3FD, 0x2764, blackFlag, 0x1F1EF, 0xE0067, 0xE0032, cancelTag, 0xE0001, 0xFEFF, 0xFFFE, 0xFDD0,
		0xE000, 0x10FFFF, 0x13430,
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 8_000 {
		runes := make([]rune, 1+rng.IntN(24))
		for i := range runes {
			if runes[i] = pool[rng.IntN(len(pool))]; i > 0 && rng.IntN(4) == 0 {
				runes[i] = runes[i-1]
			}
		}
		in := string(runes)
		s, err := Clean(in, 100)
		if err == nil {
			check(t, in, s)
			if again, err := Clean(s, 100); err != nil || again != s {
				t.Fatalf("%+q became %+q, and that %+q, %v", in, s, again, err)
			}
		} else if !errors.Is(err, ErrEmpty) && !errors.Is(err, ErrTooLong) {
			t.Fatalf("Clean(%+q): %v", in, err)
		}
		n := CleanName(in, 8)
		check(t, in, n)
		if again := CleanName(n, 8); again != n {
			t.Fatalf("name %+q became %+q, and that %+q", in, n, again)
		}
	}
}

func FuzzClean(f *testing.F) {
	seeds(f)
	const limit = 300
	f.Fuzz(func(t *testing.T, in string) {
		s, err := Clean(in, limit)
		if err != nil {
			if s != "" {
				t.Fatalf("Clean(%+q) = %+q with %v", in, s, err)
			}
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrEmpty) && !errors.Is(err, ErrTooLong) {
				t.Fatalf("Clean(%+q): %v", in, err)
			}
			return
		}
		check(t, in, s)
		if n := utf8.RuneCountInString(s); n > limit {
			t.Fatalf("%+q became %d code points", in, n)
		}
		if again, err := Clean(s, limit); err != nil || again != s {
			t.Fatalf("%+q became %+q, and that %+q, %v", in, s, again, err)
		}
	})
}

func FuzzCleanName(f *testing.F) {
	seeds(f)
	const limit = 8
	f.Fuzz(func(t *testing.T, in string) {
		s := CleanName(in, limit)
		check(t, in, s)
		if n := utf8.RuneCountInString(s); n > limit {
			t.Fatalf("%+q became %d code points", in, n)
		}
		if again := CleanName(s, limit); again != s {
			t.Fatalf("%+q became %+q, and that %+q", in, s, again)
		}
	})
}

func BenchmarkClean(b *testing.B) {
	for name, s := range map[string]string{
		"ascii":    "this is what most people type into a chat",
		"japanese": "うぽつです！今日も楽しみにしてました",
		"family":   "👨‍👩‍👧‍👦 最高 👏🏽",
		"nfd":      "か\u3099んは\u3099れ cafe\u0301",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Clean(s, 200); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

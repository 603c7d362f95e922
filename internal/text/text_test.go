package text

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	t.Parallel()
	// A drawing as danmaku sites know them: its spaces are what holds it together.
	drawing := "　　∧＿∧\n　 （´∀｀）＜ わーい\n　 （　　　 ）\n  | | |  \n （_＿）＿）　"
	tests := []struct{ name, in, want string }{
		{"ASCII", "hello, world", "hello, world"},
		{"line feeds", "a\r\nb\rc\nd", "a\nb\nc\nd"},
		{"line and paragraph separators", "a\u2028b\u2029c", "a\nb\nc"},
		{"tab", "a\tb", "a b"},
		{"controls", "a\x00b\x07c\x1b[31md\x7f", "abc[31md"},
		{"C1 controls", "a\u0085b\u009bc", "abc"},
		{"spaces stay", "  a　 b  ", "  a　 b  "},
		{"drawing", drawing, drawing},
		{"braille drawing", "⠀⣴⣿\n⠀⠀⢿", "⠀⣴⣿\n⠀⠀⢿"},
		{"kaomoji with a mark on a space", "( ͡° ͜ʖ ͡°)", "( ͡° ͜ʖ ͡°)"},

		{"dakuten", "か\u3099は\u309A", "がぱ"},
		{"dakuten that composes with nothing", "あ\u3099", "あ\u3099"},
		{"half-width kana stays", "ｶﾞﾝﾊﾞﾚ", "ｶﾞﾝﾊﾞﾚ"},
		{"Vietnamese", "Tie\u0302\u0301ng Vie\u0323\u0302t", "Tiếng Việt"},
		{"angstrom sign", "\u212B", "Å"},
		{"Hangul", "\u1112\u1161\u11AB", "한"},
		{"composes over what was removed", "e\u200B\u0301", "é"},
		{"ideographic variation", "葛\U000E0100飾区", "葛\U000E0100飾区"},
		{"Thai", "น้ำใจดีจ๊ะ", "น้ำใจดีจ๊ะ"},
		{"pointed Hebrew", "בְּרֵאשִׁ֖ית", "בְּרֵאשִׁ֖ית"},
		{"Arabic with vowels", "بِسْمِ ٱللَّهِ", "بِسْمِ ٱللَّهِ"},

		{"Zalgo", "Z" + strings.Repeat("\u0335\u0322\u0308", 20) + "a", "Z\u0335\u0335\u0335\u0335a"},
		{"enclosing marks count", "a" + strings.Repeat("\u20DD", 9), "a" + strings.Repeat("\u20DD", MaxMarks)},
		{"Zalgo behind removed runes", "a" + strings.Repeat("\u0316\u200B", 9), "a" + strings.Repeat("\u0316", MaxMarks)},

		{"emoji family", "👨‍👩‍👧‍👦", "👨‍👩‍👧‍👦"},
		{"emoji with skin tone and profession", "👩🏽‍🚀", "👩🏽‍🚀"},
		{"emoji with selector and joiner", "❤️‍🔥 🏳️‍🌈 🧑‍⚕️", "❤️‍🔥 🏳️‍🌈 🧑‍⚕️"},
		{"flags", "🇯🇵🇰🇷", "🇯🇵🇰🇷"},
		{"flag of tags", "🏴\U000E0067\U000E0062\U000E0073\U000E0063\U000E0074\U000E007F", "🏴\U000E0067\U000E0062\U000E0073\U000E0063\U000E0074\U000E007F"},
		{"pirate flag", "🏴‍☠️", "🏴‍☠️"},
		{"keycaps", "1️⃣#️⃣*️⃣", "1️⃣#️⃣*️⃣"},
		{"text presentation", "☀︎", "☀︎"},

		{"hidden tags", "hi\U000E0068\U000E0069", "hi"},
		{"hidden tags behind a flag", "🏴\U000E0067\U000E0062", "🏴"},
		{"tags beyond a region", "🏴" + strings.Repeat("\U000E0061", 16) + "\U000E007F", "🏴"},
		{"language tag", "a\U000E0001b", "ab"},
		{"selectors that select nothing", "a\uFE0Fb\uFE0Fc", "abc"},
		{"selectors in a row", "☀\uFE0F\uFE0E\U000E0101", "☀\uFE0F"},
		{"joiner in Latin", "b\u200Da\u200Cd", "bad"},
		{"joiner at an end", "🔥\u200D", "🔥"},
		{"joiners in a row", "👩\u200D\u200D🚀", "👩\u200D🚀"},
		{"zero-width spaces", "a\u200Bb\u2060c\uFEFFd\u00ADe", "abcde"},
		{"grapheme joiner", "a\u034Fb", "ab"},
		{"noncharacters", "a\uFDD0b\uFFFEc\U0001FFFFd", "abcd"},
		{"Arabic number sign is drawn", "\u0600١", "\u0600١"},

		{"Persian non-joiner", "می\u200Cخواهم", "می\u200Cخواهم"},
		{"Arabic joiner at an end", "ه\u200D", "ه\u200D"},
		{"Devanagari joiners", "क्\u200Dष क्\u200Cष", "क्\u200Dष क्\u200Cष"},
		{"bidi override", "a\u202Eb\u202Cc", "abc"},
		{"bidi embeddings and isolates", "\u202Aa\u202B\u202D\u2066\u2067b\u2068\u2069", "ab"},
		{"bidi mark in Hebrew", "שלום C++\u200F!", "שלום C++\u200F!"},
		{"bidi mark in Latin", "a\u200E\u200F\u061Cb", "ab"},
		{"bidi marks in a row", "ש\u200F\u200F\u200F!", "ש\u200F!"},
		{"newest emoji and private use", "\U0001FAEA\uE000", "\U0001FAEA\uE000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Clean(tt.in, 200)
			if err != nil || got != tt.want {
				t.Errorf("Clean(%+q) = %+q, %v; want %+q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestCleanRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		want     error
	}{
		{"not UTF-8", "a\xff", ErrInvalid},
		{"surrogate", "\xed\xa0\x80", ErrInvalid},
		{"overlong", "\xc0\xaf", ErrInvalid},
		{"nothing", "", ErrEmpty},
		{"spaces", " \t\n　\u00a0", ErrEmpty},
		{"zero width", "\u200B\u200D\uFEFF\U000E0041", ErrEmpty},
		{"fillers", "\u3164\u115F\uFFA0\u2800", ErrEmpty},
		{"marks alone", "\u0301\u0302", ErrEmpty},
		{"too long", strings.Repeat("あ", 11), ErrTooLong},
		{"too long in ASCII", strings.Repeat("a", 11), ErrTooLong},
		{"too many lines", "a" + strings.Repeat("\n", MaxLineFeeds+1), ErrTooLong},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			limit := 10
			if strings.Contains(tt.in, "\n") {
				limit = 100
			}
			if got, err := Clean(tt.in, limit); !errors.Is(err, tt.want) || got != "" {
				t.Errorf("Clean(%+q) = %+q, %v; want %v", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestCleanCounts(t *testing.T) {
	t.Parallel()
	_, err := Clean(strings.Repeat("あ", 12), 10)
	e, ok := errors.AsType[*LimitError](err)
	if !ok || *e != (LimitError{What: "code points", Have: 12, Max: 10}) {
		t.Errorf("error %v; want 12 code points of 10", err)
	}
	_, err = Clean("a"+strings.Repeat("\r\n", 25), 100)
	e, ok = errors.AsType[*LimitError](err)
	if !ok || *e != (LimitError{What: "line feeds", Have: 25, Max: MaxLineFeeds}) {
		t.Errorf("error %v; want 25 line feeds of %d", err, MaxLineFeeds)
	}
	// The length counts what is left, in NFC.
	if got, err := Clean(strings.Repeat("か\u3099\u200B", 10), 10); err != nil || utf8.RuneCountInString(got) != 10 {
		t.Errorf("Clean = %+q, %v; want 10 code points", got, err)
	}
}

func TestCleanName(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"plain", "Alice", "Alice"},
		{"Japanese", "葛\U000E0100飾　花子", "葛\U000E0100飾 花子"},
		{"blanks", "  A \t\n b\u3164 ", "A b"},
		{"nothing to see", " \u200B\u3164\u0301", ""},
		{"nothing", "", ""},
		{"not UTF-8", "A\xffb", "Ab"},
		{"bidi marks", "\u200Fשלום\u200E", "שלום"},
		{"override", "\u202Eadmin", "admin"},
		{"cut", "0123456789abc", "0123456789"},
		{"cut at a space", "012345678 abc", "012345678"},
		{"cut in a family", "01234567👨‍👩‍👧", "01234567"},
		{"cut before a mark", "012345678x\u0323\u0307\u0300", "012345678"},
		{"cut before a skin tone", "012345678👍🏽", "012345678"},
		{"as long as may be", "01234567か\u3099は", "01234567がは"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := CleanName(tt.in, 10); got != tt.want {
				t.Errorf("CleanName(%+q) = %+q; want %+q", tt.in, got, tt.want)
			}
		})
	}
}

func TestCleanDoesNotAllocate(t *testing.T) {
	for _, s := range []string{"hello, world\nagain", "こんにちは、世界！", "葛󠄀飾区 👩🏽‍🚀 é", "שלום C++\u200F!"} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := Clean(s, 200); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("Clean(%q) allocates %v times", s, n)
		}
	}
}

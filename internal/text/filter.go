package text

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// kind is what a text is for.
type kind int

const (
	comment kind = iota
	name
)

// filter removes and replaces runes of s, which is in NFC, and returns s itself
// when there is nothing to do.
func filter(s string, k kind) string {
	var (
		b       strings.Builder // what was kept, once it differs from s
		changed bool
		prev    rune // the last rune that was kept; 0 at the start
		base    rune // the last one that was no mark
		marks   int  // stacked on base
		run     int  // of runes that belong to base
		bidi    = k == comment && hasRightToLeft(s)
	)
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if isOrdinary(r) {
			if changed {
				b.WriteString(s[i : i+size])
			}
			i += size
			prev, base, marks, run = r, r, 0, 0
			continue
		}
		next, _ := utf8.DecodeRuneInString(s[i+size:])
		keep := r
		switch {
		case r == '\r' && next == '\n':
			keep = drop
		case r == '\r', r == '\u2028', r == '\u2029':
			keep = '\n'
		case r == '\t':
			keep = ' '
		case r == '\n':
		case isBidiMark(r):
			if !bidi || isBidiMark(prev) {
				keep = drop
			}
		case isJoiner(r):
			if !joins(r, prev, base, next) {
				keep = drop
			}
		case isSelector(r):
			if !hasVariants(prev) {
				keep = drop
			}
		case isTag(r):
			size = tagLen(s[i:])
			if prev != blackFlag || !isTagSequence(s[i:i+size]) {
				keep = drop
			}
		case isRemoved(r):
			keep = drop
		case trails(r):
			if isStacked(r) {
				marks++
			}
			if run++; run > maxRun || marks > MaxMarks {
				keep = drop
			}
		}
		switch {
		case keep == drop || keep != r:
			if !changed {
				changed = true
				b.Grow(len(s))
				b.WriteString(s[:i])
			}
			if keep != drop {
				b.WriteRune(keep)
			}
		case changed:
			b.WriteString(s[i : i+size])
		}
		i += size
		if keep == drop {
			continue
		}
		switch prev = keep; {
		case isTag(keep):
			prev = cancelTag
		case !trails(keep) && !isJoiner(keep):
			base, marks, run = keep, 0, 0
		}
	}
	if !changed {
		return s
	}
	return b.String()
}

// drop stands for a rune that is not kept.
const drop = rune(-1)

// maxRun is how many runes may belong to one character. Syllables of Myanmar and
// Tibetan have fewer than ten; at thirty the normalizer would begin to put grapheme
// joiners between them.
const maxRun = 20

const (
	zwnj      = '\u200C'
	zwj       = '\u200D'
	blackFlag = '\U0001F3F4' // what the flags that are spelled with tags start with
	cancelTag = '\U000E007F'
	cgj       = '\u034F'
)

// isOrdinary tells of most of what is typed that it is drawn, by itself, without
// looking it up in tables: printable ASCII, kana, common ideographs, Hangul.
func isOrdinary(r rune) bool {
	return r > ' ' && r < 0x7F || r >= 0x3041 && r <= 0x3096 || r >= 0x30A1 && r <= 0x30FF ||
		r >= 0x4E00 && r <= 0x9FFF || r >= 0xAC00 && r <= 0xD7A3
}

func isJoiner(r rune) bool   { return r == zwnj || r == zwj }
func isBidiMark(r rune) bool { return r == '\u200E' || r == '\u200F' || r == '\u061C' }
func isTag(r rune) bool      { return r >= 0xE0020 && r <= cancelTag }

// isSelector reports whether r chooses a variant of the character before it.
func isSelector(r rune) bool {
	return (r >= 0xFE00 && r <= 0xFE0F) || (r >= 0xE0100 && r <= 0xE01EF) || (r >= 0x180B && r <= 0x180D) || r == 0x180F
}

// isRemoved reports whether r goes wherever it stands, as the filter asks after all
// that may stay: controls, format characters, noncharacters, and marks and fillers
// that are not drawn.
func isRemoved(r rune) bool {
	if r < 0x80 {
		return r < ' ' || r == 0x7F
	}
	switch {
	case r == cgj, r == 0x17B4, r == 0x17B5, r >= 0xFDD0 && r <= 0xFDEF, r&0xFFFE == 0xFFFE:
		return true
	case r >= 0xE0000 && r <= 0xE0FFF, r == 0x2065, r >= 0xFFF0 && r <= 0xFFF8: // not drawn, though unassigned
		return true
	case isPrependedMark(r):
		return false
	}
	return unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r)
}

// isPrependedMark tells of the format characters that are drawn: Arabic, Syriac and
// Kaithi number signs, and the controls with which hieroglyphs are stacked.
func isPrependedMark(r rune) bool {
	return unicode.Is(unicode.Prepended_Concatenation_Mark, r) || (r >= 0x13430 && r <= 0x1343F)
}

// trails reports whether r belongs to the character before it: marks, the vowels and
// finals of conjoining Hangul, half-width voicing marks.
func trails(r rune) bool {
	return r >= 0x300 && unicode.Is(unicode.M, r) || (r >= 0x1160 && r <= 0x11FF) || (r >= 0xD7B0 && r <= 0xD7FB) ||
		r == 0xFF9E || r == 0xFF9F
}

// isStacked reports whether r, which trails, is drawn over, under or in the character
// before it. Spacing marks, which take a place of their own in the line, count only
// if they take part in canonical ordering.
func isStacked(r rune) bool {
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return true
	}
	return unicode.Is(unicode.Mc, r) && norm.NFC.PropertiesString(string(r)).CCC() != 0
}

// joins reports whether the joiner r does something between prev, whose base
// character is base, and next.
func joins(r, prev, base, next rune) bool {
	if isJoiner(prev) || isBidiMark(prev) {
		return false
	}
	if isJoiningScript(base) {
		return true
	}
	return r == zwj && isEmoji(next) && (isEmoji(prev) || (isEmoji(base) && (isSelector(prev) || prev == cancelTag)))
}

// isJoiningScript reports whether r is a letter of a script that joins its letters or
// stacks them, so that joiners change how it looks.
func isJoiningScript(r rune) bool {
	return r >= 0x600 && unicode.IsLetter(r) && unicode.In(r,
		unicode.Arabic, unicode.Syriac, unicode.Nko, unicode.Mandaic, unicode.Mongolian, unicode.Adlam,
		unicode.Hanifi_Rohingya, unicode.Phags_Pa,
		unicode.Devanagari, unicode.Bengali, unicode.Gurmukhi, unicode.Gujarati, unicode.Oriya, unicode.Tamil,
		unicode.Telugu, unicode.Kannada, unicode.Malayalam, unicode.Sinhala, unicode.Tibetan, unicode.Khmer,
		unicode.Myanmar, unicode.Balinese, unicode.Javanese, unicode.Sundanese, unicode.Chakma, unicode.Newa,
		unicode.Kaithi, unicode.Tai_Tham)
}

// isEmoji reports whether r may be a part of an emoji joined by [zwj]: the blocks that
// hold Unicode's Extended_Pictographic, which are a little more.
func isEmoji(r rune) bool {
	switch {
	case r < 0x2190:
		return r == 0xA9 || r == 0xAE || r == 0x203C || r == 0x2049 || r == 0x2122 || r == 0x2139
	case r == 0x2329 || r == 0x232A: // not in NFC
		return false
	case r <= 0x21FF, r >= 0x2300 && r <= 0x23FF, r >= 0x24B6 && r <= 0x27BF, r >= 0x2900 && r <= 0x297F,
		r >= 0x2B00 && r <= 0x2BFF:
		return true
	}
	return r == 0x3030 || r == 0x303D || r == 0x3297 || r == 0x3299 || (r >= 0x1F000 && r <= 0x1FAFF)
}

// hasVariants reports whether a variation selector behind r can mean anything: the
// keycaps of ASCII, symbols, punctuation and digits beyond it, ideographs, and the
// few scripts with variants of letters.
func hasVariants(r rune) bool {
	if r < 0x80 {
		return r >= '0' && r <= '9' || r == '#' || r == '*'
	}
	if isBlankLetter(r) || unicode.Is(unicode.M, r) {
		return false
	}
	return isEmoji(r) || unicode.In(r, unicode.Han, unicode.S, unicode.P, unicode.N,
		unicode.Mongolian, unicode.Phags_Pa, unicode.Myanmar, unicode.Manichaean)
}

// tagLen is the length in bytes of the run of tags at the start of s, to the first
// [cancelTag].
func tagLen(s string) int {
	for i, r := range s {
		if !isTag(r) {
			return i
		}
		if r == cancelTag {
			return i + utf8.RuneLen(r)
		}
	}
	return len(s)
}

// isTagSequence reports whether a run of tags spells a region: letters and digits,
// at most 15 with the cancel tag that ends them.
func isTagSequence(s string) bool {
	n := 0
	for i, r := range s {
		n++
		if r == cancelTag {
			return n > 1 && n <= 16 && i+utf8.RuneLen(r) == len(s)
		}
		if c := r - 0xE0000; (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return false
}

// hasRightToLeft reports whether s has a letter that is written from right to left.
func hasRightToLeft(s string) bool {
	for _, r := range s {
		if r >= 0x590 && unicode.IsLetter(r) && (r <= 0x8FF || (r >= 0xFB1D && r <= 0xFEFC) ||
			(r >= 0x10800 && r <= 0x10FFF) || (r >= 0x1E800 && r <= 0x1EFFF)) {
			return true
		}
	}
	return false
}

// isVisible reports whether r shows something by itself.
func isVisible(r rune) bool {
	if isOrdinary(r) {
		return true
	}
	return !unicode.IsSpace(r) && !isBlankLetter(r) && !unicode.In(r, unicode.Mn, unicode.Me, unicode.Z, unicode.Cc) &&
		(isPrependedMark(r) || !unicode.Is(unicode.Cf, r))
}

// isBlankLetter tells of the letters and symbols that are drawn as nothing: fillers
// of Hangul and the empty Braille cell.
func isBlankLetter(r rune) bool {
	switch r {
	case 0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800, 0x1D159:
		return true
	}
	return false
}

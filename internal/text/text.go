// Package text makes what people type fit to be shown to a crowd: one spelling of
// each character, nothing invisible that could hide or reorder other text, and
// nothing that leaves its line. [Clean] does it for comments, [CleanName] for
// names.
//
// What survives is what somebody can see, plus what scripts and emoji need to be
// seen rightly:
//
//   - Text becomes NFC, so that one character has one spelling and a length.
//   - CR and CRLF, U+2028 and U+2029 become line feeds, a tab becomes a space, all
//     other controls of C0 and C1 go. Spaces of every width stay, at either end
//     too: drawings are made of them.
//   - Bidi embeddings, overrides and isolates (U+202A–202E, U+2066–2069) go: they
//     reorder text beyond themselves, and what shows a comment isolates it anyway.
//     The bidi marks (U+200E, U+200F, U+061C) have no scope and Hebrew and Arabic
//     need them around punctuation; they stay in a comment that has letters written
//     from right to left, and go elsewhere, where they would only hide.
//   - Zero-width joiner and non-joiner stay where a script joins letters, and the
//     joiner between emoji. Variation selectors stay, one at a time, behind what has
//     variants; tags stay in the flags that are spelled with them. All other format
//     characters go, and so do noncharacters. Private use and unassigned code points
//     stay: they are next year's emoji.
//   - Of the marks on one character the first [MaxMarks] stay.
//
// Cleaning what is clean changes nothing, and allocates nothing.
package text

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	// MaxMarks is how many nonspacing marks one character keeps. Vietnamese and
	// Arabic stack two or three, pointed Hebrew and Tibetan four.
	MaxMarks = 4
	// MaxLineFeeds is how many line feeds a comment may have; the tallest drawings
	// of danmaku sites have fewer lines.
	MaxLineFeeds = 20
)

// Errors of [Clean].
var (
	ErrInvalid = errors.New("text is not valid UTF-8")
	ErrEmpty   = errors.New("text has nothing to see in it")
	// ErrTooLong is what every [LimitError] is.
	ErrTooLong = errors.New("text is too long")
)

// LimitError says by how much a text is too long.
type LimitError struct {
	What      string // "code points" or "line feeds"
	Have, Max int
}

// Error names both numbers.
func (e *LimitError) Error() string {
	return fmt.Sprintf("text is too long: %d %s, at most %d", e.Have, e.What, e.Max)
}

// Is makes a LimitError an [ErrTooLong].
func (e *LimitError) Is(target error) bool { return target == ErrTooLong }

// Clean makes s fit to be shown as a comment. Its result has at most limit code
// points. The error is [ErrInvalid], [ErrEmpty] or a *[LimitError].
func Clean(s string, limit int) (string, error) {
	s, err := normalize(s, comment)
	if err != nil {
		return "", err
	}
	length, feeds, visible := 0, 0, false
	for _, r := range s {
		length++
		if r == '\n' {
			feeds++
		}
		visible = visible || isVisible(r) // rarely looks further than the first rune
	}
	switch {
	case !visible:
		return "", ErrEmpty
	case length > limit:
		return "", &LimitError{What: "code points", Have: length, Max: limit}
	case feeds > MaxLineFeeds:
		return "", &LimitError{What: "line feeds", Have: feeds, Max: MaxLineFeeds}
	}
	return s, nil
}

// CleanName makes s fit to be shown as a name: cleaned like a comment, on one
// line, without bidi marks and without blanks but single spaces between words, and
// cut to limit code points where no character is cut apart. A name of which nothing
// is left to see is empty: a name is a courtesy, and no reason to turn somebody away.
func CleanName(s string, limit int) string {
	s, _ = normalize(strings.ToValidUTF8(s, ""), name) // which cannot fail on valid UTF-8
	s = cut(singleSpaced(s), limit)
	for _, r := range s {
		if isVisible(r) {
			return s
		}
	}
	return ""
}

// normalize brings s into NFC and filters it.
func normalize(s string, k kind) (string, error) {
	if isPlain(s) {
		return s, nil
	}
	if !utf8.ValidString(s) {
		return "", ErrInvalid
	}
	// NFC comes first because it takes some characters apart, and again because the
	// filter may have removed what kept two of them apart.
	s = nfc(s)
	if t := filter(s, k); t != s {
		s = nfc(t)
	}
	return s, nil
}

func nfc(s string) string {
	if norm.NFC.QuickSpanString(s) == len(s) { // allocates nothing
		return s
	}
	return norm.NFC.String(s)
}

// isPlain reports whether s consists of printable ASCII and line feeds.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' && c != '\n') || c > '~' {
			return false
		}
	}
	return true
}

// singleSpaced is s with its words one space apart and none at either end.
func singleSpaced(s string) string {
	spaced := func(r rune) bool { return unicode.IsSpace(r) || isBlankLetter(r) }
	clean, last := true, ' '
	for _, r := range s {
		if spaced(r) && (r != ' ' || last == ' ') {
			clean = false
			break
		}
		last = r
	}
	if clean && last != ' ' {
		return s
	}
	return nfc(strings.Join(strings.FieldsFunc(s, spaced), " "))
}

// cut shortens s to limit code points or a few less, so that no character loses a
// part of itself.
func cut(s string, limit int) string {
	n := 0
	for end, r := range s {
		if n < limit {
			n++
			continue
		}
		for end > 0 {
			before, size := utf8.DecodeLastRuneInString(s[:end])
			if !extends(r) && before != zwj {
				break
			}
			r, end = before, end-size
		}
		return strings.TrimRight(s[:end], " ")
	}
	return s
}

// extends reports whether r belongs to the character before it.
func extends(r rune) bool {
	return trails(r) || isJoiner(r) || isTag(r) || (r >= 0x1F3FB && r <= 0x1F3FF) // skin tones
}

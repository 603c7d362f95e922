package text

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Skeleton is what is left of a text when it does not matter how it is written: its letters and digits, in lower case and
// of ordinary width, without accents, spaces and signs. Of a text without letters and digits it is the signs.
func Skeleton(s string) string {
	var words, signs strings.Builder
	for _, r := range norm.NFKD.String(s) {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r):
			words.WriteRune(unicode.ToLower(r))
		case unicode.IsSymbol(r), unicode.IsPunct(r):
			signs.WriteRune(r)
		}
	}
	if words.Len() == 0 {
		return signs.String()
	}
	return words.String()
}

// Contains reports whether a text has another one in it, however both are written: see [Skeleton].
func Contains(s, sub string) bool {
	sub = Skeleton(sub)
	if sub == "" {
		return false
	}
	if strings.Contains(Skeleton(s), sub) {
		return true
	}
	r := []rune(sub)[0]
	if unicode.IsLetter(r) || unicode.IsDigit(r) {
		return false
	}
	return strings.Contains(norm.NFKD.String(s), sub) // signs, beside words
}

package text

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the table of cleaned texts anew")

// table is read by the tests of the SDK too, whose measure must count as [Clean] does.
const table = "../../protocol/testdata/text.json"

// texts is what the table holds.
type texts struct {
	MaxLineFeeds int    `json:"max_line_feeds"`
	Cases        []text `json:"cases"`
}

type text struct {
	Name      string `json:"name"`
	Text      string `json:"text"`
	Clean     string `json:"clean"`
	Length    int    `json:"length"` // of Clean, in code points
	LineFeeds int    `json:"line_feeds"`
	Empty     bool   `json:"empty"` // there is nothing to see in it
}

// TestTable compares the table with what Clean does. Its cases are those of a browser's
// text box and worse, and some that are drawn by lot out of what Clean decides about.
func TestTable(t *testing.T) {
	t.Parallel()
	want := texts{MaxLineFeeds: MaxLineFeeds}
	for _, c := range append(namedTexts(), drawnTexts()...) {
		clean, err := normalize(c.Text, comment)
		if err != nil {
			t.Fatalf("%q: %v", c.Text, err)
		}
		_, err = Clean(c.Text, 1<<20)
		c.Clean, c.Length, c.LineFeeds, c.Empty = clean, utf8.RuneCountInString(clean), strings.Count(clean, "\n"), errors.Is(err, ErrEmpty)
		want.Cases = append(want.Cases, c)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(table, b.Bytes(), 0o644); err != nil { // #nosec G306 -- a file of the repository
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(table); err != nil || !bytes.Equal(got, b.Bytes()) {
		t.Errorf("%s is not what Clean does (go test ./internal/text -update writes it): %v", table, err)
	}
}

func namedTexts() []text {
	return []text{
		{Name: "ASCII", Text: "hello"}, {Name: "nothing", Text: ""}, {Name: "spaces alone", Text: "  \u3000\t "},
		{Name: "spaces at the ends count", Text: "  hi "}, {Name: "ten thousand spaces", Text: "hi" + strings.Repeat(" ", 10_000)},
		{Name: "line ends of all systems", Text: "a\r\nb\rc\nd\u2028e\u2029f"}, {Name: "21 line feeds", Text: "a" + strings.Repeat("\n", 21) + "b"},
		{Name: "line feeds alone", Text: "\n\n\n"},
		{Name: "decomposed", Text: "Tie\u0302\u0301ng か\u3099"}, {Name: "NFC takes apart", Text: "\u0958\u2ADC\uFB2A"},
		{Name: "invisible between", Text: "a\u200B\u2060\uFEFF\u00ADb"}, {Name: "invisible alone", Text: "\u200B\u200D\u2060"},
		{Name: "fillers", Text: "\u3164\u115F\u1160\uFFA0\u2800"}, {Name: "fillers in text", Text: "a\u3164\u3164b"},
		{Name: "zalgo", Text: "Z" + strings.Repeat("\u0335\u0322\u0308", 20)}, {Name: "marks alone", Text: "\u0301\u0301"},
		{Name: "family", Text: "👨‍👩‍👧‍👦"}, {Name: "astronaut", Text: "👩🏽‍🚀"}, {Name: "heart on fire", Text: "❤️‍🔥"}, {Name: "flag of England", Text: "🏴\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F!"},
		{Name: "tags behind nothing", Text: "hi\U000E0068\U000E0069\U000E007F"}, {Name: "keycaps", Text: "1️⃣ #️⃣"}, {Name: "selectors behind letters", Text: "a\uFE0Fb\uFE0F"},
		{Name: "joiners", Text: "क्\u200Dष می\u200Cخواهم b\u200Da"}, {Name: "joiner at the end", Text: "क्\u200D"},
		{Name: "right-to-left with marks", Text: "שלום\u200F!\u200F"}, {Name: "marks without right-to-left", Text: "a\u200E\u200Fb"},
		{Name: "overrides", Text: "\u202Eabc\u202C\u2066d\u2069"}, {Name: "controls", Text: "a\x00\x07\x1b[31m\x7f\u0085\u009b"},
		{Name: "Arabic number sign", Text: "\u0600\u06F1"}, {Name: "noncharacters", Text: "a\uFFFE\uFDD0\U0010FFFFb"},
		{Name: "Hangul by hand", Text: "\u1112\u1161\u11AB"}, {Name: "half-width", Text: "ｶﾞﾝ"}, {Name: "ideographic variation", Text: "葛\U000E0100"},
		{Name: "drawing", Text: "　　∧＿∧\n　 （´∀｀）\n  | | |"}, {Name: "braille", Text: "⠀⣴⣿"},
	}
}

// drawnTexts are made of the code points that Clean decides about.
func drawnTexts() []text {
	alphabet := []rune("aé1#*か゛葛한 \u3000\n\r\t\u200B\u200C\u200D\u200E\u200F\u061C\uFE0E\uFE0F\U000E0100\u0301\u0335\u20DD\u3099\u0E49\u05D0\u0628\u0915\u094D\u1B44\u302E" +
		"\u1112\u1161\u11A8\uFF9E\u034F\u202E\u2066\u00AD\u3164\u2800\u2028❤☀👩🚀🏽🏴\U000E0067\U000E0031\U000E007F🇯\u0600\u06DD\x00\x7f\u0085\uFFFD")
	r := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- the same texts each time
	var out []text
	for range 300 {
		var b strings.Builder
		for range 1 + r.IntN(24) {
			b.WriteRune(alphabet[r.IntN(len(alphabet))])
		}
		out = append(out, text{Name: "drawn", Text: b.String()})
	}
	return out
}

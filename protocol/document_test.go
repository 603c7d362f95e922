package protocol

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// PROTOCOL.md says what the code does: its examples are messages, and its tables of
// codes and colors are complete and right.
func TestDocument(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)

	examples := 0
	for line := range strings.Lines(doc) {
		line = strings.TrimSuffix(line, "\n")
		if p, ok := strings.CutPrefix(line, "← "); ok {
			m, err := Decode([]byte(p))
			if err != nil || m == nil || string(Encode(m)) != p {
				t.Errorf("%s: decoded as %+v, %v", p, m, err)
			}
			examples++
		}
		if p, ok := strings.CutPrefix(line, "→ "); ok {
			if _, err := DecodeRequest([]byte(p)); err != nil {
				t.Errorf("%s: %v", p, err)
			}
			examples++
		}
	}
	if examples < 10 {
		t.Errorf("only %d examples", examples)
	}
	for _, m := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(doc, -1) {
		if !json.Valid([]byte(m[1])) {
			t.Errorf("not JSON: %s", m[1])
		}
	}

	codes := ErrorCodes()
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|.*\\| (yes|no) \\| ([0-9]{3}) \\|$").FindAllStringSubmatch(doc, -1) {
		c := ErrorCode(row[1])
		i := slices.Index(codes, c)
		if i < 0 || c.Retry() != (row[2] == "yes") || strconv.Itoa(c.HTTPStatus()) != row[3] {
			t.Errorf("the document is wrong about %s", c)
			continue
		}
		codes = slices.Delete(codes, i, i+1)
	}
	if len(codes) > 0 {
		t.Errorf("the document does not know %q", codes)
	}

	closes := []CloseCode{
		CloseNormal, CloseGoingAway, CloseProtocol, CloseUnsupported, CloseInvalidData, CloseTooBig, CloseInternal,
		CloseRestart, CloseMalformed, CloseUnauthorized, CloseBanned, CloseNoRoom, CloseTooSlow, CloseTooMany, 1005, 1006,
	}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d{4})(?:, (\d{4}))? \|.*\| (yes|no)[^|]*\|$`).FindAllStringSubmatch(doc, -1) {
		for _, n := range row[1:3] {
			code, err := strconv.Atoi(n)
			if err != nil {
				continue // the row has one
			}
			i := slices.Index(closes, CloseCode(code))
			if i < 0 || CloseCode(code).Reconnect() != (row[3] == "yes") {
				t.Errorf("the document is wrong about %d", code)
				continue
			}
			closes = slices.Delete(closes, i, i+1)
		}
	}
	if len(closes) > 0 {
		t.Errorf("the document does not know %d", closes)
	}

	colors := regexp.MustCompile("`([a-z]+)`\\s(#[0-9a-f]{6})").FindAllStringSubmatch(doc, -1)
	if len(colors) != 10 {
		t.Errorf("the document knows %d colors", len(colors))
	}
	for _, c := range colors {
		if got := colorValue(c[1]); got != c[2] {
			t.Errorf("%s is %q, not %s", c[1], got, c[2])
		}
	}

	for _, m := range serverMessages {
		if name := "**`" + m.messageType() + "`**"; !strings.Contains(doc, name) {
			t.Errorf("the document does not describe %s", name)
		}
	}
}

package protocol

import (
	"strings"
	"testing"
)

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	for _, p := range []string{
		"", "null", "[]", "7", `"beat"`, "{}", `{"type":null}`, `{"type":7}`, `{"type":""}`, `{"TYPE":"beat"}`,
		`{"type":"beat","now":"x"}`, `{"type":"beat","now":1`, `{"type":"beat"`, `{"type":"of a later version",`,
		`{"type":"later","x":}`, `{"type":"comments","cursor":"c","items":{}}`, `{"type":"state","rev":-1}`,
		"{\"type\":\"beat\xff\"}",
	} {
		if m, err := Decode([]byte(p)); err == nil {
			t.Errorf("%s: decoded as %+v", p, m)
		} else if !strings.HasPrefix(err.Error(), "protocol: decode ") {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestAppendItem(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"user":{"id":"u"},"text":"x"}`: `{"id":"1c","at":7,"user":{"id":"u"},"text":"x"}`,
		`{}`:                             `{"id":"1c","at":7}`,
		``:                               `{"id":"1c","at":7}`,
	} {
		if got := string(AppendItem(nil, "1c", 7, []byte(body))); got != want {
			t.Errorf("AppendItem of %s = %s, not %s", body, got, want)
		}
	}
}

func TestAppendSample(t *testing.T) {
	t.Parallel()
	items := [][]byte{[]byte(`{"id":"1"}`), []byte(`{"id":"2"}`)}
	for _, tt := range []struct {
		items [][]byte
		of    int
		want  string
	}{
		{items, 9, `{"type":"comments","cursor":"c","items":[{"id":"1"},{"id":"2"}],"shown":2,"of":9}`},
		{items, 2, `{"type":"comments","cursor":"c","items":[{"id":"1"},{"id":"2"}]}`},
		{nil, 9, `{"type":"comments","cursor":"c","items":[],"of":9}`},
	} {
		if got := string(AppendSample(nil, "c", tt.of, tt.items)); got != tt.want {
			t.Errorf("%d of %d: %s, not %s", len(tt.items), tt.of, got, tt.want)
		}
	}
}

// Encoding does not change what the caller has.
func TestEncodeLeavesNil(t *testing.T) {
	t.Parallel()
	c, w := new(Comments), new(Welcome)
	if got, want := string(Encode(c)), `{"type":"comments","cursor":"","items":[]}`; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if got := string(Encode(w)); !strings.Contains(got, `"can":[]`) {
		t.Errorf("no list in %s", got)
	}
	if c.Items != nil || w.You.Can != nil {
		t.Error("the message was changed")
	}
}

// Putting shared parts together costs nothing but the room for them.
func TestAppendAllocations(t *testing.T) {
	c := serverMessages["comments_full"].(*Comments)
	body := EncodeBody(c.Items[0])
	dst := make([]byte, 0, 4096)
	items := [][]byte{AppendItem(nil, "1d", 7, body), AppendItem(nil, "1e", 8, body)}
	if n := testing.AllocsPerRun(100, func() {
		dst = AppendItem(dst[:0], "1d", 7, body)
		dst = AppendComments(dst[:0], cursor, true, items)
		dst = AppendSample(dst[:0], cursor, 9, items)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

package protocol

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestStateKeepsWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	s := State{Rev: 7, Status: StatusEnded, Title: "t"}
	for _, c := range []struct{ doc, message, merged string }{
		{``, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"status":"live","broadcast":1}`},
		{`no JSON`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"status":"live","broadcast":1}`},
		{`[1]`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"status":"live","broadcast":1}`},
		{`{}`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"status":"live","broadcast":1}`},
		{`{"status":"ended","title":"t","rev":1,"type":"x","degraded":true}`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"status":"live","broadcast":1}`},
		{`{"status":"ended","title":"t","slow_ms":3000,"data":{"a":"<b>"}}`,
			`{"type":"state","rev":7,"status":"ended","title":"t","data":{"a":"<b>"},"slow_ms":3000}`,
			`{"status":"live","broadcast":1,"data":{"a":"<b>"},"slow_ms":3000}`},
	} {
		if got := string(EncodeState([]byte(c.doc), s)); got != c.message {
			t.Errorf("%s:\n got %s\nwant %s", c.doc, got, c.message)
		}
		got := string(MergeState([]byte(c.doc), []byte(`{"status":"live"}`)))
		if got != c.merged || !json.Valid([]byte(got)) {
			t.Errorf("%s:\n got %s\nwant %s", c.doc, got, c.merged)
		}
	}
}

func TestMergeState(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ doc, set, want string }{
		{`{"a":1,"b":[{}],"title":"t"}`, `{"status":"ended"}`, `{"status":"ended","a":1,"b":[{}]}`},
		{`{"a":1}`, `{"a":2}`, `{"a":2}`},
		// What makes a room live begins its next broadcast; what leaves it so does not.
		{``, `{"status":"live"}`, `{"status":"live","broadcast":1}`},
		{``, `{"status":"scheduled"}`, `{"status":"scheduled"}`},
		{`{"status":"scheduled"}`, `{"status":"live"}`, `{"status":"live","broadcast":1}`},
		{`{"status":"live","broadcast":4}`, `{"status":"live","title":"t"}`, `{"status":"live","title":"t","broadcast":4}`},
		{`{"status":"live","broadcast":4}`, `{"status":"ended"}`, `{"status":"ended","broadcast":4}`},
		{`{"status":"ended","broadcast":4,"a":1}`, `{"status":"live"}`, `{"status":"live","broadcast":5,"a":1}`},
		{`null`, `{"a":2}`, `{"a":2}`},
		{`{"a":1}`, `null`, `null`},
		{`{"a":1}`, `no object`, `no object`},
		{`{"a":1}`, `{}`, `{}`},
	} {
		if got := string(MergeState([]byte(c.doc), []byte(c.set))); got != c.want {
			t.Errorf("%s after %s is %s, want %s", c.set, c.doc, got, c.want)
		}
	}
}

// A field that is added to State is one that this version knows.
func TestStateFields(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"type": true}
	for f := range reflect.TypeFor[State]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		known[name] = true
	}
	for _, name := range stateFields {
		if !known[name] {
			t.Errorf("%s is no field", name)
		}
		delete(known, name)
	}
	if len(known) > 0 {
		t.Errorf("not listed: %v", known)
	}
}

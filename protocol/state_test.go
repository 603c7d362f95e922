package protocol

import (
	"encoding/json"
	"testing"
)

func TestStateKeepsWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	s := State{Rev: 7, Status: StatusEnded, Title: "t"}
	for _, c := range []struct{ doc, message, merged string }{
		{``, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"status":"live"}`},
		{`no JSON`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"status":"live"}`},
		{`[1]`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"status":"live"}`},
		{`{}`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"status":"live"}`},
		{`{"status":"ended","title":"t","rev":1,"type":"x","degraded":true}`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"status":"live"}`},
		{`{"status":"ended","title":"t","slow_ms":3000,"data":{"a":"<b>"}}`,
			`{"type":"state","rev":7,"status":"ended","title":"t","data":{"a":"<b>"},"slow_ms":3000}`,
			`{"status":"live","data":{"a":"<b>"},"slow_ms":3000}`},
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

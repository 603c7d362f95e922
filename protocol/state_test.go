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
		{``, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"began_at":9,"broadcast":1,"status":"live","timed":1}`},
		{`no JSON`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"began_at":9,"broadcast":1,"status":"live","timed":1}`},
		{`[1]`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"began_at":9,"broadcast":1,"status":"live","timed":1}`},
		{`null`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"began_at":9,"broadcast":1,"status":"live","timed":1}`},
		{`{}`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"began_at":9,"broadcast":1,"status":"live","timed":1}`},
		{`{"status":"ended","rev":1,"type":"x","degraded":true}`, `{"type":"state","rev":7,"status":"ended","title":"t"}`, `{"began_at":9,"broadcast":1,"status":"live","timed":1}`},
		{`{"status":"ended","title":"t","slots":3000,"later":{"a":"<b>"}}`,
			`{"type":"state","rev":7,"status":"ended","title":"t","later":{"a":"<b>"},"slots":3000}`,
			`{"began_at":9,"broadcast":1,"later":{"a":"<b>"},"slots":3000,"status":"live","timed":1,"title":"t"}`},
	} {
		if got := string(EncodeState([]byte(c.doc), s)); got != c.message {
			t.Errorf("%s:\n got %s\nwant %s", c.doc, got, c.message)
		}
		got := string(MergeState([]byte(c.doc), []byte(`{"status":"live"}`), 9))
		if got != c.merged || !json.Valid([]byte(got)) {
			t.Errorf("%s:\n got %s\nwant %s", c.doc, got, c.merged)
		}
	}
}

func TestMergeState(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ doc, patch, want string }{
		{`{"a":1,"b":[{}],"title":"t"}`, `{"status":"ended"}`, `{"a":1,"b":[{}],"status":"ended","title":"t"}`},
		{`{"a":1,"title":"t"}`, `{"title":null}`, `{"a":1}`},
		{`{"a":1}`, `{"a":2}`, `{"a":2}`},
		// What makes a room live begins its next broadcast; what leaves it so does not.
		{``, `{"status":"live"}`, `{"began_at":9,"broadcast":1,"status":"live","timed":1}`},
		{``, `{"status":"scheduled"}`, `{"status":"scheduled"}`},
		{`{"status":"scheduled"}`, `{"status":"live"}`, `{"began_at":9,"broadcast":1,"status":"live","timed":1}`},
		{`{"broadcast":4,"status":"live"}`, `{"status":"live","title":"t"}`, `{"broadcast":4,"status":"live","title":"t"}`},
		{`{"broadcast":4,"status":"live"}`, `{"title":"t"}`, `{"broadcast":4,"status":"live","title":"t"}`},
		{`{"broadcast":4,"status":"live"}`, `{"status":"ended"}`, `{"broadcast":4,"ended_at":9,"status":"ended","timed":4}`},
		{`{"began_at":3,"broadcast":4,"ended_at":5,"status":"ended","a":1}`, `{"status":"live"}`, `{"a":1,"began_at":9,"broadcast":5,"status":"live","timed":5}`},
		// A node of an earlier version has left the times of the broadcast before.
		{`{"began_at":3,"broadcast":4,"ended_at":5,"status":"live","timed":3}`, `{"status":"ended"}`, `{"broadcast":4,"ended_at":9,"status":"ended","timed":4}`},
		{`{"began_at":3,"broadcast":4,"status":"live","timed":4}`, `{"status":"ended"}`, `{"began_at":3,"broadcast":4,"ended_at":9,"status":"ended","timed":4}`},
		// A room that was deleted is as if it had never been set, but its broadcasts are counted on.
		{`{"broadcast":4,"status":"live","a":1}`, `{"deleted":true,"status":"ended"}`, `{"a":1,"broadcast":4,"deleted":true,"ended_at":9,"status":"ended","timed":4}`},
		{`{"broadcast":4,"deleted":true,"ended_at":5,"status":"ended","a":1}`, `{"status":"live"}`, `{"began_at":9,"broadcast":5,"status":"live","timed":5}`},
		{`{"broadcast":4,"deleted":true,"status":"ended","a":1}`, `{"title":"t"}`, `{"broadcast":4,"title":"t"}`},
		// What belongs to the message is not kept.
		{`{"rev":3}`, `{"rev":4,"type":"state","degraded":true,"title":"t"}`, `{"title":"t"}`},
		{`null`, `{"a":2}`, `{"a":2}`},
		{`{"a":1}`, `null`, `null`},
		{`{"a":1}`, `no object`, `no object`},
		{`{"a":1}`, `{}`, `{"a":1}`},
	} {
		if got := string(MergeState([]byte(c.doc), []byte(c.patch), 9)); got != c.want {
			t.Errorf("%s after %s is %s, want %s", c.patch, c.doc, got, c.want)
		}
	}
}

// A client that ends a broadcast as the first version could must not wipe what it does not know.
func TestPutLeavesWhatIsNew(t *testing.T) {
	t.Parallel()
	doc := `{"status":"live","title":"t","members":true,"slow_ms":3000,"notice":"n","later":1}`
	got := string(MergeState([]byte(doc), PutPatch(&State{Status: StatusEnded}), 9))
	if want := `{"later":1,"notice":"n","slow_ms":3000,"status":"ended"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got = string(MergeState([]byte(doc), PutPatch(&State{Status: StatusEnded, Title: "u", Members: true}), 9))
	if want := `{"later":1,"members":true,"notice":"n","slow_ms":3000,"status":"ended","title":"u"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestDecodePatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ patch, want string }{
		{`{"title":"t","slow_ms":3000}`, `{"slow_ms":3000,"title":"t"}`},
		{`{"rev":7,"mode":"open","slow_ms":0,"count":true,"early_chat":true,"members":false,"notice":""}`,
			`{"count":null,"early_chat":null,"members":null,"mode":null,"notice":null,"slow_ms":null}`},
		{`{"count":false,"early_chat":false,"members":true}`, `{"count":false,"early_chat":false,"members":true}`},
		{`{"broadcast":9,"degraded":true,"later":1,"deleted":true,"type":"x"}`, `{}`},
		{`{"data":{"a":[1]},"pin":{"text":"x"}}`, `{"data":{"a":[1]},"pin":{"text":"x"}}`},
		{`{"data":null,"pin":null,"starts_at":null}`, `{"data":null,"pin":null,"starts_at":null}`},
		{`{"data":0}`, `{"data":0}`},
		{`{"pin":{"id":"x71qd"}}`, `{"pin":{"id":"x71qd"}}`},
	} {
		p, err := DecodePatch([]byte(c.patch))
		if err != nil || string(p.Encode()) != c.want {
			t.Errorf("%s: %+v, %v, want %s", c.patch, p, err, c.want)
		}
	}
	for _, patch := range []string{
		`[]`, `{"status":null}`, `{"status":"over"}`, `{"status":1}`, `{"title":1}`, `{"mode":"x"}`, `{"slow_ms":300001}`, `{"slow_ms":-1}`,
		`{"slow_ms":1.5}`, `{"slow_ms":"1"}`, `{"delay_ms":60001}`, `{"links":"some"}`, `{"media_url":"javascript:x"}`, `{"media_url":"https://a b"}`,
		`{"media_url":"//x"}`, `{"early_chat":1}`, `{"count":"no"}`, `{"text":7501}`, `{"text":-1}`, `{"keep_ms":59999}`, `{"watch":"all"}`, `{"pin":"x"}`, `{"pin":{}}`,
		`{"pin":{"id":"x71qd","text":"x"}}`, `{"pin":{"id":"X"}}`, `{"pin":{"id":1}}`, `{"title":"a","title":"b"}`, `{"rev":-1}`, `{"rev":"1"}`,
		`{"data":"` + strings.Repeat("x", MaxData) + `"}`, `{"starts_at":-1}`, `{"shield":1}`, `{"shield_preset":[]}`, `{"shield_preset":{"mode":"shut"}}`, `{"shield_preset":{"title":"x"}}`,
		`{"shield_preset":{"slow_ms":1,"slow_ms":2}}`, `{"shield_preset":{"slow_ms":300001}}`,
	} {
		p, err := DecodePatch([]byte(patch))
		if e, is := err.(*Error); p != nil || !is || e.Code != CodeBadMessage || e.Message == "" { //nolint:errorlint // it is documented to be one
			t.Errorf("%.60s: %+v, %v", patch, p, err)
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
	// Each has a check: one that is no string, number, object or truth value is refused, but for data.
	for _, name := range stateFields {
		if name != "type" && name != "rev" && name != "broadcast" && name != "began_at" && name != "ended_at" && name != "timed" && name != "under" && name != "degraded" && name != "data" && wrongField(name, []byte(`[1]`)) == "" {
			t.Errorf("%s is not checked", name)
		}
	}
	if len(known) > 0 {
		t.Errorf("not listed: %v", known)
	}
}

// Of each field that a shield lies over the stricter one counts.
func TestShielded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ state, want string }{
		{`{"slow_ms":5000}`, `{"slow_ms":5000}`},
		{`{"shield":true}`, `{"mode":"known","slow_ms":10000,"links":"none","under":{}}`},
		{`{"shield":true,"slow_ms":60000,"mode":"locked","delay_ms":1000}`,
			`{"mode":"locked","slow_ms":60000,"links":"none","delay_ms":1000,"under":{"slow_ms":60000,"mode":"locked","delay_ms":1000}}`},
		{`{"shield":true,"mode":"users"}`, `{"mode":"known","slow_ms":10000,"links":"none","under":{"mode":"users"}}`},
		{`{"shield":true,"mode":"members"}`, `{"mode":"members","slow_ms":10000,"links":"none","under":{"mode":"members"}}`},
		{`{"shield":true,"links":"none","shield_preset":{"delay_ms":5000}}`, `{"links":"none","delay_ms":5000,"under":{"links":"none"}}`},
		{`{"shield":true,"mode":"later","shield_preset":{"mode":"open"}}`, `{"mode":"later","under":{"mode":"later"}}`},
	} {
		var s, want State
		if err := json.Unmarshal([]byte(c.state), &s); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		got := s.Shielded()
		got.Shield, got.ShieldPreset = false, nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, not %+v", c.state, got, want)
		}
	}
}

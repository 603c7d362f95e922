package natslog

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

const envelope = "NATS/1.0\r\nNats-Stream: S\r\nNats-Subject: kansei.log.0.r\r\nNats-Sequence: 7\r\n" +
	"Nats-Time-Stamp: 2025-03-01T12:00:00.123456789Z\r\nNats-Last-Sequence: 6\r\n"

func TestRecordDecoding(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, header, body string
		readable           bool
		reason             skipReason
		want               hub.Event
	}{
		{"comment", envelope, `{"text":"a"}`, true, "", hub.Event{Seq: 7, At: 1740830400123, Kind: hub.KindComment, Body: []byte(`{"text":"a"}`)}},
		{"kind and audience", envelope + "Kansei-Kind: k\r\nKansei-Audience: user:a%20b\r\n", " {\"a\":1}\n", true, "",
			hub.Event{Seq: 7, At: 1740830400123, Kind: "k", Audience: "user:a b", Body: []byte(`{"a":1}`)}},
		{"the server's word is the last", "NATS/1.0\r\nNats-Sequence: 99\r\nNats-Last-Sequence: 98\r\n" + envelope[len("NATS/1.0\r\n"):], `{"a":1}`, true, "",
			hub.Event{Seq: 7, At: 1740830400123, Kind: hub.KindComment, Body: []byte(`{"a":1}`)}},
		{"no header", "NATS/1.0\r\n", `{"a":1}`, false, "", hub.Event{}},
		{"no time", strings.ReplaceAll(envelope, "2025-", "20x5-"), `{"a":1}`, false, "", hub.Event{}},
		{"negative", strings.ReplaceAll(envelope, ": 7", ": -7"), `{"a":1}`, false, "", hub.Event{}},
		{"zero", strings.ReplaceAll(envelope, ": 7", ": 0"), `{"a":1}`, false, "", hub.Event{}},
		{"huge", strings.ReplaceAll(envelope, ": 7", ": 99999999999999999999999"), `{"a":1}`, false, "", hub.Event{}},
		{"array", envelope, `[1]`, true, skipBody, hub.Event{}},
		{"no field", envelope, `{  }`, true, skipBody, hub.Event{}},
		{"two objects", envelope, `{"a":1}{"a":1}`, true, skipBody, hub.Event{}},
		{"nothing", envelope, ``, true, skipBody, hub.Event{}},
		{"a byte", envelope, `{`, true, skipBody, hub.Event{}},
		{"no kind", envelope + "Kansei-Kind:\r\n", `{"a":1}`, true, skipHeader, hub.Event{}},
		{"rate", envelope + "Kansei-Rate: 900\r\n", `{"a":1}`, true, "",
			hub.Event{Seq: 7, At: 1740830400123, Kind: hub.KindComment, Rate: 900, Body: []byte(`{"a":1}`)}},
		{"a rate that is none", envelope + "Kansei-Rate: many\r\n", `{"a":1}`, true, skipHeader, hub.Event{}},
		{"a rate below zero", envelope + "Kansei-Rate: -1\r\n", `{"a":1}`, true, skipHeader, hub.Event{}},
		{"no audience", envelope + "Kansei-Audience:\r\n", `{"a":1}`, true, skipHeader, hub.Event{}},
		{"an audience that cannot be read", envelope + "Kansei-Audience: %\r\n", `{"a":1}`, true, skipHeader, hub.Event{}},
	} {
		h, err := nats.DecodeHeadersMsg([]byte(c.header + "\r\n"))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		rec, ok := parseRecord(&nats.Msg{Header: h, Data: []byte(c.body)})
		if ok != c.readable {
			t.Errorf("%s: readable %v, wanted %v", c.name, ok, c.readable)
		}
		if !ok {
			continue
		}
		e, reason := rec.event()
		if reason != c.reason || e.Seq != c.want.Seq || e.At != c.want.At || e.Kind != c.want.Kind || e.Audience != c.want.Audience || string(e.Body) != string(c.want.Body) {
			t.Errorf("%s: %+v, %q; wanted %+v, %q", c.name, e, reason, c.want, c.reason)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(envelope+"\r\n"), []byte(`{"text":"a"}`))
	f.Add([]byte(envelope+"Kansei-Kind: k\r\nKansei-Audience: user:%20\r\n\r\n"), []byte(` {"a":1} `))
	f.Add([]byte("NATS/1.0 503\r\n\r\n"), []byte{})
	f.Add([]byte("NATS/1.0 204 EOB\r\nNats-Num-Pending: 1\r\nNats-Last-Sequence: 1\r\n\r\n"), []byte{})
	f.Add([]byte(envelope), []byte("{"))
	f.Fuzz(func(t *testing.T, header, body []byte) {
		h, err := nats.DecodeHeadersMsg(header)
		if err != nil {
			h = nil
		}
		m := &nats.Msg{Header: h, Data: body}
		_, _ = status(m), describe(m)
		rec, ok := parseRecord(m)
		if !ok {
			return
		}
		if rec.seq == 0 {
			t.Fatal("a record without a position")
		}
		e, reason := rec.event()
		if reason != "" {
			return
		}
		if e.Kind == "" || !utf8.Valid(e.Body) {
			t.Fatalf("%+v", e)
		}
		// What the hub makes of it must be one JSON object.
		item := protocol.AppendItem(nil, "id", e.At, e.Body)
		var fields map[string]any
		if err := json.Unmarshal(item, &fields); err != nil || len(fields) < 2 {
			t.Fatalf("item %s: %v", item, err)
		}
	})
}

func FuzzAudience(f *testing.F) {
	f.Add("user:a")
	f.Add(" staff\r\n%")
	f.Fuzz(func(t *testing.T, audience string) {
		if audience == hub.AudienceAll {
			return
		}
		m := encodeDraft("s", hub.Draft{ID: "i", Kind: "k", Audience: audience, Body: []byte(`{"a":1}`)})
		v := m.Header[headerAudience][0]
		if strings.ContainsAny(v, "\r\n") || strings.TrimSpace(v) != v {
			t.Fatalf("header %q", v)
		}
		e, reason := record{seq: 1, header: m.Header, data: m.Data}.event()
		if reason != "" || e.Audience != audience || e.Kind != "k" {
			t.Fatalf("%q came back as %+v, %q", audience, e, reason)
		}
	})
}

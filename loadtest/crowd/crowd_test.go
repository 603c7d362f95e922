package crowd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/loadtest"
	"github.com/kansei-live/kansei/loadtest/audit"
	"github.com/kansei-live/kansei/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"type":"gap","missed":3,"cursor":"x"}`:                "[] gap=true <nil>",
		`{"type":"viewers","connections":4,"users":3,"at":1}`:   "[] gap=false &{4 3}",
		`{"type":"state","rev":7,"items":[{"id":"1"}]}`:         "[] gap=false <nil>",
		`{"type":"comments","cursor":"x","items":[]}`:           "[] gap=false <nil>",
		`{"type":"comments","items":[{"id":"a","media_ms":7}]}`: fmt.Sprintf("[{7 a %d}] gap=false <nil>", audit.Digest("", "")),
		// One that carries no number, and what is no message at all, are nobody's comments.
		`{"type":"comments","items":[{"id":"a","text":"t","user":{"id":"u"}}]}`: fmt.Sprintf("[{0 a %d}] gap=false <nil>", audit.Digest("u", "t")),
		`{"type":"comm`: "[{0  0}] gap=false <nil>",
	} {
		f := parse([]byte(raw))
		if got := fmt.Sprint(f.items, " gap=", f.gap, " ", f.counts); got != want {
			t.Errorf("%s is %s, want %s", raw, got, want)
		}
	}
}

func TestFramesAreReadOnceAndForgotten(t *testing.T) {
	t.Parallel()
	f := newFrames()
	raw := func(n int) []byte {
		return fmt.Appendf(nil, `{"type":"comments","items":[{"id":"a","media_ms":%d}]}`, n)
	}
	first := f.read(raw(0))
	if f.read(raw(0)) != first {
		t.Error("the same bytes were read again")
	}
	for n := range 2 * maxFrames {
		if got := f.read(raw(n)).items[0].Serial; got != audit.Serial(n) {
			t.Fatalf("%d was read as %d", n, got)
		}
	}
	if len(f.known) > maxFrames || f.read(raw(0)) == first {
		t.Errorf("%d messages are remembered", len(f.known))
	}
}

// What a back end is told decides what is owed to it: only a refusal by the node itself
// says that a comment will never be there.
func TestBackEndOutcomes(t *testing.T) {
	t.Parallel()
	answers := map[string]struct {
		status int
		body   string
		want   audit.Outcome
	}{
		"taken":                {201, `{"id":"7"}`, audit.Acknowledged},
		"taken, without an id": {201, `{}`, audit.Unknown},
		"unavailable":          {503, `{"code":"unavailable","detail":"d"}`, audit.Refused},
		"too often":            {429, `{"code":"rate_limited"}`, audit.Refused},
		"unknown":              {504, `{"code":"unknown_outcome"}`, audit.Unknown},
		"of a proxy":           {503, `<html>no server</html>`, audit.Unknown},
		"a broken answer":      {201, `{"id":`, audit.Unknown},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req protocol.CommentRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || *req.MediaMS != 3 || req.Ref != "s3" {
			t.Errorf("posted %+v, %v", req, err)
		}
		a := answers[req.Text]
		w.WriteHeader(a.status)
		_, _ = w.Write([]byte(a.body))
	}))
	defer server.Close()
	c := &Crowd{cfg: Config{Front: server.URL, Secret: "secret"}, http: &http.Transport{DisableKeepAlives: true}}
	b, err := c.backEnd("r", "b", protocol.RoleBroadcaster)
	if err != nil {
		t.Fatal(err)
	}
	serial := int64(3)
	for text, a := range answers {
		o, id, why := b.say(t.Context(), protocol.CommentRequest{Text: text, Ref: "s3", MediaMS: &serial})
		if o != a.want || (id == "7") != (o == audit.Acknowledged) || (why == "") != (o == audit.Acknowledged) {
			t.Errorf("%s: outcome %d, id %q, %q", text, o, id, why)
		}
	}
	server.Close()
	if o, _, _ := b.say(t.Context(), protocol.CommentRequest{MediaMS: &serial}); o != audit.Unknown {
		t.Errorf("without a server: outcome %d", o)
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	next, err := loadtest.Texts("", 1)
	if err != nil {
		t.Fatal(err)
	}
	said := &texts{next: next}
	for n := range audit.Serial(100) {
		if req := said.comment(n); *req.MediaMS != int64(n) || req.Ref != ref(n) || req.Text == "" {
			t.Errorf("%d is %+v", n, req)
		}
	}
	if _, err := loadtest.Texts("nowhere.ndjson", 1); err == nil {
		t.Error("a trace that is not there was read")
	}
}

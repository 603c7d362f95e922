package protocol

import (
	"errors"
	"strings"
	"testing"
)

// Requests that are valid but not as this package encodes them mean the request
// beside them.
func TestLenientRequests(t *testing.T) {
	t.Parallel()
	for name, b := range testFiles(t, "lenient") {
		r, err := DecodeRequest(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		golden(t, "testdata/lenient/"+name+".want", EncodeRequest(r))
	}
}

// Every bad request is answered with the error beside it.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	for name, b := range testFiles(t, "bad") {
		r, err := DecodeRequest(b)
		e, ok := errors.AsType[*Error](err)
		if !ok || r != nil {
			t.Errorf("%s: decoded as %+v, %v", name, r, err)
			continue
		}
		golden(t, "testdata/bad/"+name+".want", Encode(e))
	}
}

// What the golden files could lose in a careless -update.
func TestBadRequestErrors(t *testing.T) {
	t.Parallel()
	bad := testFiles(t, "bad")
	for _, tt := range []struct{ name, ref, contains string }{
		{"not_utf8", "", "not UTF-8"},
		{"object_bare", "", "type"},
		{"object_with_ref", "a", "type"},
		{"array", "", "not a JSON object"},
		{"null", "", "not a JSON object"},
		{"truncated", "", "not JSON"},
		{"deep_object", "", "not JSON"},
		{"type_upper", "a", "type"},
		{"type_number", "a", "type"},
		{"ref_long", "", "ref"},
		{"ref_number", "", "ref"},
		{"text_number", "a", "text must be a string"},
		{"text_twice_escaped", "a", "text appears twice"},
		{"text_wrong_without_ref", "", "text must be a string"},
		{"media_huge", "a", "media_ms"},
		{"beat_media_negative", "", "media_ms"},
		{"beat_ref", "b", "visible"},
		{"style_color_css", "a", "style.color"},
		{"unknown_ref_empty", "", "ref"},
	} {
		b, ok := bad[tt.name]
		if !ok {
			t.Errorf("testdata/bad/%s.json is missing", tt.name)
			continue
		}
		_, err := DecodeRequest(b)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Code != CodeBadMessage || e.Ref != tt.ref || !strings.Contains(e.Message, tt.contains) {
			t.Errorf("%s: %+v, want ref %q and a text with %q", tt.name, err, tt.ref, tt.contains)
		}
	}
}

func TestBadHTTPBodies(t *testing.T) {
	t.Parallel()
	post := func(p string) error { _, err := DecodePost([]byte(p)); return err }
	put := func(p string) error { _, err := DecodeState([]byte(p)); return err }
	for _, tt := range []struct {
		decode         func(string) error
		body, ref, msg string
	}{
		{post, ``, "", "the message is not a JSON object"},
		{post, `[]`, "", "the message is not a JSON object"},
		{post, `{"text":5,"ref":"a"}`, "a", "text must be a string"},
		{post, `{"text":"x","ref":5}`, "", "ref must be a string of 1 to 64 characters"},
		{post, `{"text":"x","ref":""}`, "", "ref must be a string of 1 to 64 characters"},
		{post, `{"text":"x","user":"u"}`, "", "user must be an object"},
		{post, `{"text":"x","user":{},"ref":"a"}`, "a", "user.id must be a string of 1 to 256 bytes"},
		{post, `{"text":"x","user":{"id":5}}`, "", "user.id must be a string"},
		{post, `{"text":"x","user":{"id":"` + strings.Repeat("u", 257) + `"}}`, "", "user.id must be a string of 1 to 256 bytes"},
		{post, `{"text":"x","user":{"id":"u","name":"` + strings.Repeat("n", 65) + `"}}`, "", "user.name must be a string of at most 64 characters"},
		{post, `{"text":"x","style":{"size":"huge"}}`, "", `style.size must be small, medium or big, not "huge"`},
		{put, `true`, "", "the message is not a JSON object"},
		{put, `{}`, "", `status must be scheduled, live or ended, not ""`},
		{put, `{"status":"paused"}`, "", `status must be scheduled, live or ended, not "paused"`},
		{put, `{"status":"live","rev":-1}`, "", "rev must be a whole number, 0 or more"},
		{put, `{"status":"live","rev":"7"}`, "", "rev must be a whole number, 0 or more"},
		{put, `{"status":"live","rev":18446744073709551616}`, "", "rev must be a whole number, 0 or more"},
		{put, `{"status":"live","title":["t"]}`, "", "title must be a string"},
	} {
		err := tt.decode(tt.body)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Code != CodeBadMessage || e.Ref != tt.ref || e.Message != tt.msg {
			t.Errorf("%s: %v, want ref %q and %q", tt.body, err, tt.ref, tt.msg)
		}
	}
}

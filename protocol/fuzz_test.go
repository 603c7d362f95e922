package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"testing"
	"unicode/utf8"
)

// seed adds the golden files in these folders.
func seed(f *testing.F, dirs ...string) {
	for _, dir := range dirs {
		for _, b := range testFiles(f, dir) {
			f.Add(b)
		}
	}
}

// checkBad reports whether err is an answer to p that may be sent: small, and with
// the ref if p has one.
func checkBad(t *testing.T, p []byte, err error) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != CodeBadMessage && e.Code != CodeTooLong || e.Message == "" {
		t.Fatalf("the error is %#v", err)
	}
	if n := len(Encode(e)); n > 1024 {
		t.Errorf("the answer has %d bytes", n)
	}
	if want := refOf(p); e.Ref != want {
		t.Errorf("the answer has the ref %q, not %q", e.Ref, want)
	}
}

// refOf reads the ref of a message as encoding/json does.
func refOf(p []byte) string {
	var m map[string]json.RawMessage
	if !utf8.Valid(p) || json.Unmarshal(p, &m) != nil || m == nil {
		return ""
	}
	refs := 0
	for name := range members(p) {
		if string(name) == "ref" {
			refs++
		}
	}
	var ref string
	if refs != 1 || json.Unmarshal(m["ref"], &ref) != nil || utf8.RuneCountInString(ref) > MaxRef {
		return ""
	}
	return ref
}

func FuzzDecodeRequest(f *testing.F) {
	seed(f, "client", "lenient", "bad", "server")
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := DecodeRequest(p)
		if err != nil {
			if r != nil {
				t.Errorf("%+v beside an error", r)
			}
			checkBad(t, p, err)
			return
		}
		b := EncodeRequest(r)
		again, err := DecodeRequest(b)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%s: decoded as %+v, %v, not %+v", b, again, err, r)
		}
	})
}

func FuzzDecodePost(f *testing.F) {
	seed(f, "http", "client", "bad")
	f.Fuzz(func(t *testing.T, p []byte) {
		post, err := DecodePost(p)
		if err != nil {
			checkBad(t, p, err)
			return
		}
		var b bytes.Buffer
		appendJSON(&b, post)
		again, err := DecodePost(b.Bytes())
		if err != nil || !reflect.DeepEqual(again, post) {
			t.Errorf("%s: decoded as %+v, %v, not %+v", &b, again, err, post)
		}
	})
}

// What a back end asks for about tokens is read or refused, by name.
func FuzzDecodeAccess(f *testing.F) {
	f.Add([]byte(`{"user":"u","jti":"t","before":1767225600}`))
	f.Add([]byte(`{"role":"moderator","can":["uncounted"],"for_ms":1000,"page":"https://a.example/"}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		_, revoke := DecodeRevocation(p)
		link, err := DecodeLink(p)
		for _, err := range []error{revoke, err} {
			if e, is := errors.AsType[*Error](err); err != nil && (!is || e.Code != CodeBadMessage || e.Message == "") {
				t.Fatalf("%q: %v", p, err)
			}
		}
		if err == nil && !link.Role.Valid() {
			t.Fatalf("%q became %+v", p, link)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	seed(f, "http", "server")
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := DecodeState(p)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeBadMessage || len(e.Message) > 512 {
				t.Errorf("the error is %#v", err)
			}
			return
		}
		again, err := DecodeState(Encode(s))
		if err != nil || !reflect.DeepEqual(again, s) || !ValidStatus(s.Status) {
			t.Errorf("%+v: decoded as %+v, %v", s, again, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	seed(f, "server", "future", "client", "bad")
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := Decode(p)
		if err != nil || m == nil {
			if m != nil {
				t.Errorf("%+v beside an error", m)
			}
			if err == nil && !json.Valid(p) {
				t.Error("ignored, but it is not JSON")
			}
			return
		}
		b := Encode(m)
		again, err := Decode(b)
		if err != nil || again == nil {
			t.Fatalf("%s: decoded as %v, %v", b, again, err)
		}
		if got := Encode(again); !bytes.Equal(got, b) {
			t.Errorf("encoded again as\n%s\nnot as\n%s", got, b)
		}
	})
}

// encoding/json is the oracle of members.
func FuzzMembers(f *testing.F) {
	seed(f, "client", "lenient", "bad", "server", "future")
	f.Fuzz(func(t *testing.T, p []byte) {
		if checkObject(p) != nil {
			return
		}
		want := map[string]json.RawMessage{}
		if err := json.Unmarshal(p, &want); err != nil {
			t.Fatal(err)
		}
		got := map[string]json.RawMessage{}
		for name, value := range members(p) {
			got[string(name)] = value
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, not %q", p, got, want)
		}
	})
}

// What is put together from encoded parts is what Encode makes of the whole.
func FuzzAppendComments(f *testing.F) {
	f.Add("1c", int64(1767225600200), "u42", "さくら", "viewer", "うぽつ", int64(0), "top", uint8(2), true, 0)
	f.Add("1d", int64(0), "", "", "broadcaster", "<b>\"\n\u2028\x00\xff", int64(-1), "", uint8(0), false, 120)
	f.Fuzz(func(t *testing.T, id string, at int64, user, name, role, text string, media int64, position string, n uint8, history bool, of int) {
		if !isToken(id, MaxID) || at == 0 || n > 8 {
			return
		}
		c := Comment{ID: id, At: at, User: User{ID: user, Name: name, Role: Role(role)}, Text: text}
		if media >= 0 {
			c.MediaMS = &media
		}
		if position != "" {
			c.Style = &Style{Position: position}
		}
		body := EncodeBody(c)
		if c.User.Role == RoleViewer {
			c.User.Role = ""
		}
		want := &Comments{Cursor: "c", History: history}
		var items [][]byte
		for range n {
			want.Items = append(want.Items, c)
			items = append(items, AppendItem(nil, id, at, body))
		}
		if got := AppendComments([]byte("x"), "c", history, items); string(got) != "x"+string(Encode(want)) {
			t.Errorf("AppendComments:\n got %s\nwant %s", got, Encode(want))
		}
		want.Before, want.History = "b", true
		if got := AppendPage(nil, "c", "b", items, nil); !bytes.Equal(got, Encode(want)) {
			t.Errorf("AppendPage:\n got %s\nwant %s", got, Encode(want))
		}
		want.Before, want.History = "", false
		if of > int(n) {
			want.Shown, want.Of = int(n), of
		}
		got := AppendSample(nil, "c", of, items)
		if !bytes.Equal(got, Encode(want)) {
			t.Errorf("AppendSample:\n got %s\nwant %s", got, Encode(want))
		}
		if m, err := Decode(got); err != nil || len(m.(*Comments).Items) != int(n) {
			t.Errorf("%s: decoded as %+v, %v", got, m, err)
		}
	})
}

func FuzzCloseReason(f *testing.F) {
	f.Add("", int64(0))
	f.Add("draining retry_ms=4200", int64(7))
	f.Add("名\xff retry_ms=", int64(1<<62))
	f.Add("retry_ms=99999999999999999999999", int64(-1))
	f.Fuzz(func(t *testing.T, text string, ms int64) {
		if n := RetryMS(text); n < 0 || n > maxRetryMS {
			t.Errorf("RetryMS(%q) = %d", text, n)
		}
		reason := CloseReason(text, ms)
		if len(reason) > maxReason || !utf8.ValidString(reason) {
			t.Errorf("CloseReason(%q, %d) = %q", text, ms, reason)
		}
		if got := RetryMS(reason); ms > 0 && got != min(ms, maxRetryMS) {
			t.Errorf("RetryMS(%q) = %d, not %d", reason, got, ms)
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"", "r", "-r", "_r", "r_-9", "a b", "日本", "r\n", "lesson.7", "c2Vzc2lvbi1vbmUtMQ"} {
		f.Add(s)
	}
	room := regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\z`)
	cursor := regexp.MustCompile(`\A[A-Za-z0-9_-]{1,40}\z`)
	session := regexp.MustCompile(`\A[A-Za-z0-9_-]{16,64}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		if got := ValidRoom(s); got != room.MatchString(s) {
			t.Errorf("ValidRoom(%q) = %t", s, got)
		}
		if got := ValidCursor(s); got != cursor.MatchString(s) {
			t.Errorf("ValidCursor(%q) = %t", s, got)
		}
		if got := ValidSession(s); got != session.MatchString(s) {
			t.Errorf("ValidSession(%q) = %t", s, got)
		}
	})
}

// FuzzFields compares with encoding/json, which gives a map exact names.
func FuzzFields(f *testing.F) {
	seed(f, "client", "lenient", "bad")
	f.Add([]byte(`{"a":1,"A":{"a":[2,"}"]},"\u0061":null , "":""}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		fields, ok := Fields(p)
		var want map[string]json.RawMessage
		isObject := json.Unmarshal(p, &want) == nil && want != nil && utf8.Valid(p)
		if ok != isObject {
			t.Fatalf("Fields(%q) says %v", p, ok)
		}
		if !ok {
			return
		}
		got := map[string]json.RawMessage{}
		for name, value := range fields {
			got[string(name)] = bytes.Clone(value)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("Fields(%q) = %q, want %q", p, got, want)
		}
	})
}

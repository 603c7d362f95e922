package web

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kansei-live/kansei/protocol"
)

func handler(t *testing.T, cfg Config) http.Handler {
	t.Helper()
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, path string, header ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var dataConfig = regexp.MustCompile(`data-config="([^"]*)"`)

func configOf(t *testing.T, page string) pageConfig {
	t.Helper()
	m := dataConfig.FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("the page has no data-config:\n%s", page)
	}
	unescaped := strings.NewReplacer("&#34;", `"`, "&#39;", "'", "&lt;", "<", "&gt;", ">", "&#43;", "+", "&amp;", "&").Replace(m[1])
	var c pageConfig
	if err := json.Unmarshal([]byte(unescaped), &c); err != nil {
		t.Fatalf("data-config: %v\n%s", err, unescaped)
	}
	return c
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	h := handler(t, Config{Room: "hall"})
	long := strings.Repeat("a", 64)
	for _, c := range []struct {
		path   string
		status int
		room   string // of the page
	}{
		{"/", 200, "hall"},
		{"/r/lesson-7", 200, "lesson-7"},
		{"/r/A_b-9", 200, "A_b-9"},
		{"/r/" + long, 200, long},
		{"/studio/lesson-7", 200, "lesson-7"},
		{"/r/" + long + "a", 404, ""},
		{"/r/-a", 404, ""},
		{"/r/%E3%81%82", 404, ""},
		{"/r/a%2Fb", 404, ""},
		{"/r/%3Cscript%3E", 404, ""},
		{"/r/", 404, ""},
		{"/studio/", 404, ""},
		{"/studio/a.b", 404, ""},
		{"/nothing", 404, ""},
		{"/favicon.ico", 404, ""},
	} {
		res := get(h, c.path)
		page := body(t, res)
		if res.StatusCode != c.status {
			t.Errorf("GET %s: status %d, want %d", c.path, res.StatusCode, c.status)
		}
		if c.status != 200 {
			if strings.Contains(page, "<script") {
				t.Errorf("GET %s: the page that says there is none has a script", c.path)
			}
			continue
		}
		if got := configOf(t, page).Room; got != c.room {
			t.Errorf("GET %s: room %q, want %q", c.path, got, c.room)
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/r/a", nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /r/a: status %d, want 405", w.Code)
	}
}

func TestPageHeaders(t *testing.T) {
	t.Parallel()
	h := handler(t, Config{FrameAncestors: []string{"'self'", "https://lessons.example"}})
	for _, path := range []string{"/", "/studio/a", "/nothing"} {
		res := get(h, path)
		for name, want := range map[string]string{
			"Content-Type":           "text/html; charset=utf-8",
			"X-Content-Type-Options": "nosniff",
			"Referrer-Policy":        "no-referrer",
			"Vary":                   "Accept-Language",
			"Cache-Control":          "no-cache",
		} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("GET %s: %s: %q, want %q", path, name, got, want)
			}
		}
		policy := res.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'", "connect-src 'self' ws: wss:", "img-src 'self' data:"} {
			if !slices.Contains(strings.Split(policy, "; "), want) {
				t.Errorf("GET %s: the policy lacks %q: %s", path, want, policy)
			}
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("GET %s: %s", path, policy)
		}
		wantAncestors := "frame-ancestors 'none'"
		if path == "/" {
			wantAncestors = "frame-ancestors 'self' https://lessons.example"
		}
		if !strings.Contains(policy, wantAncestors) {
			t.Errorf("GET %s: the policy lacks %q: %s", path, wantAncestors, policy)
		}
	}
}

// What the policy forbids must not be there in the first place, and nothing may
// come from elsewhere.
func TestPagesHaveNothingInline(t *testing.T) {
	t.Parallel()
	h := handler(t, Config{Demo: func() bool { return true }, DemoStopPath: "/demo/stop"})
	bad := map[string]*regexp.Regexp{
		"an inline script":   regexp.MustCompile(`(?i)<script(?:\s+[^>]*)?>\s*[^<\s]`),
		"a script attribute": regexp.MustCompile(`(?i)\son[a-z]+\s*=`),
		"a style element":    regexp.MustCompile(`(?i)<style`),
		"a style attribute":  regexp.MustCompile(`(?i)\sstyle\s*=`),
		"a foreign address":  regexp.MustCompile(`(?i)(?:src|href)="(?:https?:)?//`),
		"a javascript link":  regexp.MustCompile(`(?i)javascript:`),
	}
	for _, path := range []string{"/", "/r/a", "/studio/a", "/nothing"} {
		page := body(t, get(h, path))
		for what, re := range bad {
			if m := re.FindString(page); m != "" {
				t.Errorf("GET %s: %s: %q", path, what, m)
			}
		}
	}
}

// Every file that a page names is there, and may be kept for ever.
func TestAssets(t *testing.T) {
	t.Parallel()
	h := handler(t, Config{})
	seen := 0
	for _, path := range []string{"/", "/studio/a", "/nothing"} {
		for _, file := range links(t, body(t, get(h, path)), path) {
			if !strings.HasPrefix(file, "/assets/") {
				continue
			}
			seen++
			res := get(h, file)
			if res.StatusCode != 200 {
				t.Errorf("GET %s: status %d", file, res.StatusCode)
				continue
			}
			if got := res.Header.Get("Cache-Control"); !strings.Contains(got, "immutable") {
				t.Errorf("GET %s: Cache-Control: %q", file, got)
			}
			if got := res.Header.Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("GET %s: X-Content-Type-Options: %q", file, got)
			}
			if again := get(h, file, "If-None-Match", res.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
				t.Errorf("GET %s again: status %d, want 304", file, again.StatusCode)
			}
		}
	}
	if seen < 7 {
		t.Errorf("the pages name %d files", seen)
	}
	// A page of another version gets what there is, and does not keep it.
	if res := get(h, "/assets/0123456789abcdef/static/viewer.js"); res.StatusCode != 200 || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("another tag: status %d, Cache-Control %q", res.StatusCode, res.Header.Get("Cache-Control"))
	}
	for _, path := range []string{"/assets/x/nothing.js", "/assets/x/locales/en.json", "/assets/x/templates/viewer.html", "/sdk/nothing.js", "/sdk/outbox.js", "/assets/x/static/list.js", "/sdk/..%2fstatic%2fviewer.js"} {
		if res := get(h, path); res.StatusCode != 404 {
			t.Errorf("GET %s: status %d, want 404", path, res.StatusCode)
		}
	}
}

func TestSDKIsForEverybody(t *testing.T) {
	t.Parallel()
	h := handler(t, Config{})
	for path, want := range map[string]string{
		"/sdk/kansei.js":   "text/javascript; charset=utf-8",
		"/sdk/stage.js":    "text/javascript; charset=utf-8",
		"/sdk/kansei.d.ts": "text/plain; charset=utf-8",
		"/sdk/stage.d.ts":  "text/plain; charset=utf-8",
	} {
		res := get(h, path)
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != want || res.Header.Get("Access-Control-Allow-Origin") != "*" ||
			res.Header.Get("ETag") == "" || strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("GET %s: status %d, headers %v", path, res.StatusCode, res.Header)
		}
	}
}

func TestPagesAreNotSentTwice(t *testing.T) {
	t.Parallel()
	h := handler(t, Config{})
	first := get(h, "/")
	if res := get(h, "/", "If-None-Match", first.Header.Get("ETag")); res.StatusCode != http.StatusNotModified {
		t.Errorf("the same page: status %d, want 304", res.StatusCode)
	}
	if res := get(h, "/", "If-None-Match", first.Header.Get("ETag"), "Accept-Language", "ja"); res.StatusCode != 200 {
		t.Errorf("the page in another language: status %d, want 200", res.StatusCode)
	}
}

func TestLanguages(t *testing.T) {
	t.Parallel()
	h := handler(t, Config{})
	for accept, want := range map[string]string{
		"":                                    "en",
		"ja":                                  "ja",
		"ja-JP,ja;q=0.9,en;q=0.8":             "ja",
		"en-GB,en;q=0.9,ja;q=0.8":             "en",
		"de,ja;q=0.5":                         "ja",
		"de, fr":                              "en",
		"*":                                   "en",
		"ja;q=0, en":                          "en",
		"nonsense;;;":                         "en",
		"\x00":                                "en",
		strings.Repeat("x-", 5000):            "en",
		strings.Repeat("ja-u-co-", 60) + "ja": "ja",
	} {
		res := get(h, "/", "Accept-Language", accept)
		page := body(t, res)
		if !strings.Contains(page, `<html lang="`+want+`">`) || res.Header.Get("Content-Language") != want || configOf(t, page).Lang != want {
			t.Errorf("Accept-Language %.40q: Content-Language %q, want %q", accept, res.Header.Get("Content-Language"), want)
		}
	}
}

// Both languages say the same things, with the same gaps to fill.
func TestLocalesAgree(t *testing.T) {
	t.Parallel()
	p, err := newPages(Config{Room: DefaultRoom}, "tag")
	if err != nil {
		t.Fatal(err)
	}
	gap := regexp.MustCompile(`\{\w+\}`)
	gaps := func(s string) []string {
		g := gap.FindAllString(s, -1)
		slices.Sort(g)
		return g
	}
	en := p.locales[0]
	for _, l := range p.locales[1:] {
		for _, part := range []struct {
			name     string
			en, text map[string]string
		}{{"page", en.Page, l.Page}, {"script", en.Script, l.Script}} {
			for key, text := range part.en {
				other, ok := part.text[key]
				if !ok || other == "" {
					t.Errorf("%s: %s.%s is missing", l.Lang, part.name, key)
				} else if !slices.Equal(gaps(text), gaps(other)) {
					t.Errorf("%s: %s.%s fills %v, in English %v", l.Lang, part.name, key, gaps(other), gaps(text))
				}
			}
			for key := range part.text {
				if _, ok := part.en[key]; !ok {
					t.Errorf("%s: %s.%s is not there in English", l.Lang, part.name, key)
				}
			}
		}
	}
}

// Every word that a script asks for is there, and none is there for nobody.
func TestScriptsAndLocalesAgree(t *testing.T) {
	t.Parallel()
	p, err := newPages(Config{Room: DefaultRoom}, "tag")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	entries, err := embedded.ReadDir("static")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".js") {
			b, err := embedded.ReadFile("static/" + e.Name())
			if err != nil {
				t.Fatal(err)
			}
			all.Write(b)
		}
	}
	scripts, words := all.String(), p.locales[0].Script
	for _, m := range regexp.MustCompile(`say\("(\w+)"`).FindAllStringSubmatch(scripts, -1) {
		if _, ok := words[m[1]]; !ok {
			t.Errorf("a script says %q, which has no words", m[1])
		}
	}
	for key := range words {
		family, _, _ := strings.Cut(key, "_")
		made := slices.Contains([]string{"status", "room", "role", "err", "mode", "done", "log", "audience"}, family) // their keys are put together
		if !made && !strings.Contains(scripts, `"`+strings.TrimSuffix(key, "_one")+`"`) {
			t.Errorf("no script says %q", key)
		}
	}
}

func TestDemoAndGuests(t *testing.T) {
	t.Parallel()
	playing := true
	h := handler(t, Config{Guests: protocol.GuestsWatch, Demo: func() bool { return playing }, DemoStopPath: "/demo/stop"})
	page := body(t, get(h, "/"))
	if c := configOf(t, page); !c.Demo || c.DemoStopURL != "./demo/stop" || c.Guests != protocol.GuestsWatch || !strings.Contains(page, `id="stop-demo"`) {
		t.Errorf("with a demo: %+v", c)
	}
	playing = false
	page = body(t, get(h, "/"))
	if c := configOf(t, page); c.Demo || c.DemoStopURL != "" || strings.Contains(page, `id="stop-demo"`) {
		t.Errorf("without a demo: %+v", c)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Config{
		"room":            {Room: "a/b"},
		"guests":          {Guests: "some"},
		"demo without":    {Demo: func() bool { return true }},
		"demo elsewhere":  {Demo: func() bool { return true }, DemoStopPath: "//evil.example/stop"},
		"frame directive": {FrameAncestors: []string{"'self'; script-src *"}},
		"frame path":      {FrameAncestors: []string{"https://a.example/page"}},
	} {
		if _, err := New(c); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: error %v, want ErrConfig", name, err)
		}
	}
}

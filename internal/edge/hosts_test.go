package edge

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/internal/quiet"
)

func TestHosts(t *testing.T) {
	t.Parallel()
	h := Hosts{Names: []string{"Node1.example"}, Flag: "ops-host", Log: quiet.New(slog.New(slog.DiscardHandler))}.
		Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for host, want := range map[string]int{
		"127.0.0.1:8081": 200, "10.1.2.3": 200, "[::1]:8081": 200, "[::1]": 200, "[fe80::1%eth0]:1": 200, "203.0.113.7:80": 200,
		"localhost": 200, "LOCALHOST:8081": 200, "localhost.:8081": 200, "kansei.localhost:8081": 200,
		"node1.example": 200, "NODE1.EXAMPLE.:8081": 200, "": 200,
		"evil.example": 421, "evil.example:8081": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421,
		"x.node1.example": 421, "notlocalhost": 421, "1": 421, "2130706433": 421, "0x7f.1": 421, "[::1": 421, "a:b:c": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d, want %d", host, w.Code, want)
		}
		if want == 421 && !strings.Contains(w.Body.String(), "--ops-host="+hostname(host)) {
			t.Errorf("%q: the answer %q does not name the flag", host, w.Body)
		}
	}
	any := Hosts{Names: []string{"*"}}.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	w := httptest.NewRecorder()
	if any.ServeHTTP(w, r); w.Code != 200 {
		t.Errorf("*: %d", w.Code)
	}
}

// What a wrong host says is cut and escaped, in the answer and in the log.
func TestHostsShown(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	h := Hosts{Flag: "host", Log: quiet.New(slog.New(slog.NewTextHandler(&log, nil)))}.Handler(nil)
	for range 1000 {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = "\x1b[31m" + strings.Repeat("x", 15_000)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if n := w.Body.Len(); n > 500 || strings.Contains(w.Body.String(), "\x1b") {
			t.Fatalf("an answer of %d bytes: %.200q", n, w.Body)
		}
	}
	if log.Len() > 1000 || log.Len() == 0 {
		t.Errorf("1000 requests have logged %d bytes", log.Len())
	}
}

// Pages of other sites may not have the node do anything, nor spend its time.
func TestOpsAsksWhereRequestsComeFrom(t *testing.T) {
	t.Parallel()
	drained := 0
	ops := new(Server).Ops(prometheus.NewRegistry(), nil, func() (int, time.Duration) { drained++; return 0, 0 }, nil)
	for _, c := range []struct {
		site, origin string
		allowed      bool
	}{
		{"", "", true}, // curl, go tool pprof
		{"none", "", true},
		{"same-origin", "", true},
		{"same-origin", "http://127.0.0.1:8081", true},
		{"", "http://127.0.0.1:8081", true},
		{"cross-site", "", false},
		{"same-site", "", false}, // another port of localhost is another program
		{"", "https://evil.example", false},
		{"", "null", false},
	} {
		for _, request := range []string{
			"POST /drain", "GET /debug/pprof/", "GET /debug/pprof/heap?gc=1", "GET /debug/pprof/profile?seconds=x",
			"GET /debug/pprof/trace?seconds=0.001", "GET /debug/pprof/cmdline", "GET /debug/pprof/symbol", "POST /debug/pprof/symbol",
		} {
			if c.allowed && strings.Contains(request, "profile") {
				continue // there is one at a time, and it takes its time
			}
			method, path, _ := strings.Cut(request, " ")
			r := httptest.NewRequest(method, path, nil)
			r.Host = "127.0.0.1:8081"
			for k, v := range map[string]string{"Sec-Fetch-Site": c.site, "Origin": c.origin} {
				if v != "" {
					r.Header.Set(k, v)
				}
			}
			w := httptest.NewRecorder()
			before := drained
			ops.ServeHTTP(w, r)
			if allowed := w.Code != http.StatusForbidden; allowed != c.allowed || !allowed && drained != before {
				t.Errorf("%s from %q, %q: %d", request, c.site, c.origin, w.Code)
			}
		}
	}
}

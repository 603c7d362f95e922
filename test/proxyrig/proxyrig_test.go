//go:build unix

package proxyrig

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProxies(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "asked "+r.Host) }))
	t.Cleanup(server.Close)
	node := strings.TrimPrefix(server.URL, "http://")
	for name, start := range map[string]func(*testing.T) string{
		"nginx": func(t *testing.T) string {
			return NGINX(t, func(a string) string {
				return fmt.Sprintf("server { listen %s; location / { proxy_pass http://%s; proxy_set_header Host from-nginx; } }", a, node)
			})
		},
		"haproxy": func(t *testing.T) string {
			return HAProxy(t, func(a string) string {
				return fmt.Sprintf("defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n"+
					"listen all\n bind %s\n http-request set-header Host from-haproxy\n server node %s\n", a, node)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + start(t))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != "asked from-"+name {
				t.Errorf("%s %v", body, err)
			}
		})
	}
}

func TestBlock(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(page, []byte("```sh\none\n```\n```nginx\nserver { a; }\n```\n```nginx\nserver { b; }\n```\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Replace(t, Block(t, page, "nginx", "b;"), "b", "c"); got != "server { c; }\n" {
		t.Errorf("%q", got)
	}
}

package edge

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestOrigins(t *testing.T) {
	t.Parallel()
	configured := []string{"https://friend.example:443", "http://plain.example/", "any.example", "tls.example:443", "port.example:8443", "HTTPS://Upper.Example"}
	for _, c := range []struct {
		host, origin string
		want         bool
	}{
		// Its own: what proxies make of Host.
		{"live.example", "https://live.example", true},
		{"live.example:443", "https://live.example", true},
		{"live.example:80", "https://live.example", true}, // TLS ends before
		{"live.example:443", "http://live.example", true}, // redirected later
		{"live.example", "https://live.example:443", true},
		{"live.example", "http://live.example:80", true},
		{"LIVE.example.", "https://live.example", true},
		{"live.example:8443", "https://live.example:8443", true},
		{"live.example:80", "https://live.example:80", true}, // of that port indeed
		{"[::1]:443", "https://[::1]", true},
		{"[2001:db8::7]", "https://[2001:db8::7]:443", true},
		{"live.example", "https://live.example:8443", false}, // $host in nginx
		{"live.example:8443", "https://live.example", false},
		{"live.example", "http://live.example:443", false}, // no default of that scheme
		{"live.example", "https://other.example", false},
		{"live.example", "https://live.example.evil.example", false},
		{"kansei", "https://live.example", false}, // the proxy's own name for the nodes
		{"", "https://live.example", false},
		// Configured.
		{"h", "https://friend.example", true},
		{"h", "https://friend.example:443", true},
		{"h", "http://friend.example", false},
		{"h", "https://friend.example:444", false},
		{"h", "http://plain.example", true},
		{"h", "https://any.example", true},
		{"h", "http://any.example", true},
		{"h", "http://any.example:8080", false},
		{"h", "https://tls.example", true},
		{"h", "http://tls.example", false},
		{"h", "https://port.example:8443", true},
		{"h", "https://port.example", false},
		{"h", "https://upper.example", true},
		{"h", "null", false},
		{"h", "", true}, // no browser
		{"h", "https://" + strings.Repeat("a", maxOrigin), false},
	} {
		s := &Server{cfg: Config{Origins: configured}, origins: parseOrigins(configured)}
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = c.host
		r.Header.Set("Origin", c.origin)
		if got := s.originAllowed(r); got != c.want {
			t.Errorf("origin %q at host %q: %v", c.origin, c.host, got)
		}
	}
	for _, o := range []string{"*", "null"} {
		s := &Server{cfg: Config{Origins: []string{o}}, origins: parseOrigins([]string{o})}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Origin", "null")
		if !s.originAllowed(r) {
			t.Errorf("--origin=%s does not allow null", o)
		}
	}
}

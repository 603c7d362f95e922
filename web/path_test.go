package web

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/proxyrig"
)

// links returns the paths that the links of a page lead to, in a browser that finds the page
// at that path.
func links(t *testing.T, page, at string) []string {
	t.Helper()
	base, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(page, -1) {
		u, err := base.Parse(m[1])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, u.EscapedPath())
	}
	return out
}

// Under a path that a proxy takes off, every link of every page stays under it, and leads to
// something.
func TestLinksUnderAPath(t *testing.T) {
	t.Parallel()
	h := handler(t, Config{})
	for _, path := range []string{"/", "/r/a", "/studio/a", "/nothing", "/r/", "/r/a/b", "/r/a%2Fb", "/a/b/c/d"} {
		page := body(t, get(h, path))
		all := links(t, page, "/live"+path)
		if len(all) < 4 {
			t.Errorf("GET %s: %d links", path, len(all))
		}
		for _, link := range all {
			under, is := strings.CutPrefix(link, "/live/")
			if !is {
				t.Errorf("GET %s: a link to %s", path, link)
			} else if res := get(h, "/"+under); res.StatusCode != 200 {
				t.Errorf("GET %s: a link to %s: status %d", path, link, res.StatusCode)
			}
		}
	}
	// A path without an end does not make an answer without one.
	deep := body(t, get(h, strings.Repeat("/a", 5000)))
	if len(deep) > 2*len(body(t, get(h, "/a"))) {
		t.Errorf("a page of %d bytes", len(deep))
	}
}

// underPath has nginx take /live off, as the operators' document says, and returns the
// address of the server from outside.
func underPath(t *testing.T, s *fakeServer) string {
	const document = "../docs/OPERATING.md"
	node := strings.TrimPrefix(s.URL, "http://")
	return "http://" + proxyrig.NGINX(t, func(address string) string {
		config := proxyrig.Replace(t, proxyrig.Block(t, document, "nginx", "server {"),
			"10.0.0.11:8080", node, "10.0.0.12:8080", node, "listen 443 ssl", "listen "+address,
			"ssl_certificate ", "# ", "ssl_certificate_key ", "# ")
		first := func(s string) string { line, _, _ := strings.Cut(s, "\n"); return line }
		_, pass, _ := strings.Cut(proxyrig.Block(t, document, "nginx", "location /live/"), "\n")
		return proxyrig.Replace(t, config, "location / {", first(proxyrig.Block(t, document, "nginx", "location /live/")),
			"proxy_pass http://kansei;", first(pass))
	}) + "/live"
}

func TestPagesUnderAPath(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	t.Run("viewer", func(t *testing.T) {
		s := newFakeServer(t, Config{Room: "lesson-7", Demo: func() bool { return true }, DemoStopPath: "/demo/stop"})
		root := underPath(t, s)
		for _, path := range []string{"", "/", "/r/lesson-7"} {
			p := open(t, browser, root+path, desktop)
			p.wait(live)
			s.say(protocol.Comment{Text: "under a path"})
			p.wait(flying + `.length >= 1`)
			p.clean()
		}
		p := open(t, browser, root+"/r/lesson-7", desktop)
		p.wait(live)
		if lines := eval[string](p, `document.getElementById("embed-code").textContent`); !strings.Contains(lines, `from "`+root+`/sdk/stage.js"`) {
			t.Errorf("the five lines are\n%s", lines)
		}
		if key := eval[string](p, `Object.keys(sessionStorage).join()`); key != "kansei.live/session.lesson-7" {
			t.Errorf("remembered as %s", key)
		}
		p.click("stop-demo")
		p.wait(`document.getElementById("stop-demo").hidden`)
		p.do(chromedp.Click(chromedp.CSS("a.brand")))
		p.wait(`location.pathname === "/live/" && document.readyState === "complete"`)
		p.wait(live)
		p.clean()
	})
	t.Run("studio", func(t *testing.T) {
		s := newStudio(t)
		root := underPath(t, s)
		p := open(t, browser, root+"/studio/lesson-7#token="+testToken, desktop)
		p.wait(live)
		if link := eval[string](p, `document.querySelector(".to-viewer").href`); link != root+"/r/lesson-7" {
			t.Errorf("the viewer page is at %s", link)
		}
		p.click("save")
		p.wait(`document.getElementById("settings-note").textContent === "Saved"`)
		s.set(func(s *fakeServer) {
			if len(s.puts) != 1 {
				t.Errorf("%d PUTs", len(s.puts))
			}
		})
		p.clean()
	})
	t.Run("somebody else's page", func(t *testing.T) {
		s := newFakeServer(t, Config{})
		root := underPath(t, s)
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = io.WriteString(w, `<!doctype html><title>Mine</title><link rel=icon href=data:,><body>`+
				`<script type=module>import { connect } from "`+root+`/sdk/kansei.js"; connect({ room: "lesson-7" }).on("welcome", () => { document.title = "in"; });</script>`)
		}))
		defer other.Close()
		p := open(t, browser, other.URL, desktop)
		p.wait(`document.title === "in"`)
		p.clean()
	})
}

package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"golang.org/x/text/language"

	"github.com/kansei-live/kansei/protocol"
)

// languages are those of the pages; the first is for everybody else.
var languages = []language.Tag{language.English, language.Japanese}

// maxAcceptLanguage bounds the work that a request can make of choosing a
// language, in bytes of the header; browsers send well under it.
const maxAcceptLanguage = 512

// locale is the text of one language: of the templates, and what the scripts show.
type locale struct {
	Lang   string            `json:"-"`
	Page   map[string]string `json:"page"`
	Script map[string]string `json:"script"`
}

type pages struct {
	cfg          Config
	assets       string // path of the files under the root, without a slash at either end
	viewerPolicy string
	studioPolicy string
	matcher      language.Matcher
	locales      []locale // in the order of languages
	templates    map[string]*template.Template
}

// pageConfig is what the scripts of a page are told, in its data-config.
type pageConfig struct {
	Room        string            `json:"room"`
	Lang        string            `json:"lang"`
	Guests      protocol.Guests   `json:"guests"`
	Demo        bool              `json:"demo,omitempty"`
	DemoStopURL string            `json:"demoStopURL,omitempty"`
	Text        map[string]string `json:"text"`
}

type pageData struct {
	Lang    string
	T       map[string]string
	Root    string // of this server, as seen from the page, with a slash at its end
	Assets  string
	Room    string
	Demo    bool
	Version string
	Config  string
}

func newPages(cfg Config, tag string) (*pages, error) {
	p := &pages{
		cfg:          cfg,
		assets:       "assets/" + tag,
		viewerPolicy: pagePolicy(cfg.FrameAncestors, cfg.AvatarHosts),
		studioPolicy: pagePolicy(nil, cfg.AvatarHosts),
		matcher:      language.NewMatcher(languages),
		templates:    make(map[string]*template.Template),
	}
	for _, tag := range languages {
		b, err := embedded.ReadFile("locales/" + tag.String() + ".json")
		if err != nil {
			return nil, fmt.Errorf("web: read locale: %w", err)
		}
		l := locale{Lang: tag.String()}
		if err := json.Unmarshal(b, &l); err != nil {
			return nil, fmt.Errorf("web: locale %s: %w", tag, err)
		}
		p.locales = append(p.locales, l)
	}
	for _, name := range []string{"viewer.html", "studio.html", "notfound.html"} {
		t, err := template.New(name).Option("missingkey=error").
			ParseFS(embedded, "templates/"+name, "templates/parts.html")
		if err != nil {
			return nil, fmt.Errorf("web: parse template: %w", err)
		}
		p.templates[name] = t
	}
	return p, nil
}

func (p *pages) viewer(w http.ResponseWriter, r *http.Request, room string) {
	p.render(w, r, "viewer.html", p.viewerPolicy, room)
}

func (p *pages) studio(w http.ResponseWriter, r *http.Request, room string) {
	p.render(w, r, "studio.html", p.studioPolicy, room)
}

func (p *pages) notFound(w http.ResponseWriter, r *http.Request) {
	p.render(w, r, "notfound.html", p.studioPolicy, "")
}

// locale chooses the text for a request.
func (p *pages) locale(r *http.Request) locale {
	accept := r.Header.Get("Accept-Language")
	if len(accept) > maxAcceptLanguage {
		return p.locales[0]
	}
	tags, _, err := language.ParseAcceptLanguage(accept)
	if err != nil || len(tags) == 0 {
		return p.locales[0]
	}
	_, i, _ := p.matcher.Match(tags...)
	return p.locales[i]
}

// maxDepth is how deep a page may lie: deeper than any does, and so shallow that nobody
// gets a long answer for a short request.
const maxDepth = 8

// rootOf is the way from the page that a request is for up to the root of this server. A proxy may
// have the pages under a path that it takes off and that the server does not know, so that
// all links are relative.
func rootOf(r *http.Request) string {
	switch depth := strings.Count(r.URL.EscapedPath(), "/") - 1; {
	case depth <= 0:
		return "./"
	case depth > maxDepth:
		return "/"
	default:
		return strings.Repeat("../", depth)
	}
}

// render answers with a page, or with the one that says there is none if room is
// not a room's name.
func (p *pages) render(w http.ResponseWriter, r *http.Request, name, policy, room string) {
	if !protocol.ValidRoom(room) {
		name, room = "notfound.html", ""
	}
	l := p.locale(r)
	root := rootOf(r)
	data := pageData{
		Lang:    l.Lang,
		T:       l.Page,
		Root:    root,
		Assets:  root + p.assets,
		Room:    room,
		Demo:    room == p.cfg.Room && p.cfg.Demo != nil && p.cfg.Demo(),
		Version: p.cfg.Version,
	}
	config := pageConfig{Room: room, Lang: l.Lang, Guests: p.cfg.Guests, Demo: data.Demo, Text: l.Script}
	if data.Demo {
		config.DemoStopURL = root + strings.TrimPrefix(p.cfg.DemoStopPath, "/")
	}
	encoded, err := json.Marshal(config)
	if err != nil {
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	data.Config = string(encoded)
	var body bytes.Buffer
	if err := p.templates[name].Execute(&body, data); err != nil {
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	pageHeaders(w.Header(), policy, l.Lang)
	if name == "notfound.html" {
		w.WriteHeader(http.StatusNotFound)
		// The client has gone if this fails; there is nobody to tell.
		_, _ = w.Write(body.Bytes())
		return
	}
	w.Header().Set("ETag", etag(body.Bytes()))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body.Bytes()))
}

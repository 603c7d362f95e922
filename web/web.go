// Package web holds what Kansei serves to people: the viewer page, the studio
// page and the browser SDK, embedded in the binary. There is no build step: the
// files in sdk/ and static/ are what the browser runs, the SDK's put together by bundle.go.
//
// [New] makes a handler of these routes:
//
//	GET /                     the viewer page of the room that the config names
//	GET /r/{room}             the viewer page of a room
//	GET /studio/{room}        the studio page of a room
//	GET /sdk/{file}           the SDK, for other people's pages too
//	GET /assets/{tag}/{file}  the same files and those of the pages, under a
//	                          name that changes with their content
//
// The parts: pages.go renders the templates in English or Japanese (locales/),
// assets.go serves files, headers.go says what a browser may do with them. All links are
// relative, so that a proxy may have everything under a path. A page
// gets its settings in the data-config attribute of its body and everything else
// from the room itself, over sdk/kansei.js. static/viewer.js and static/studio.js
// put the pages together out of list.js, composer.js, link.js and, for the viewer
// page, sdk/stage.js, which draws flying comments.
//
// Text of users and of rooms becomes text nodes only. The content security policy
// allows no inline script or style, and trusted types make the browser refuse
// what would parse such text as markup.
package web

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/kansei-live/kansei/protocol"
)

// DefaultRoom is the room of the page at "/" when the config names none.
const DefaultRoom = "lobby"

// Config is what the pages know of the server that serves them.
type Config struct {
	// Room is the room of the page at "/"; empty: [DefaultRoom].
	Room string
	// Guests is empty or one of the constants above; empty: [protocol.GuestsNone].
	Guests protocol.Guests
	// Demo reports whether a generated crowd is playing in Room; nil: never. The viewer
	// page of that room then offers to stop it with a POST to DemoStopPath, an absolute path
	// of this server.
	Demo         func() bool
	DemoStopPath string
	// FrameAncestors are the origins whose pages may show the viewer page in a
	// frame, such as "https://lessons.example" or "'self'"; empty: none may. The
	// studio is never framed.
	FrameAncestors []string
	// AvatarHosts are the hosts that pictures of users may be on.
	AvatarHosts []string
	// Version of the server, named in the head of the pages.
	Version string
}

// ErrConfig is wrapped by the errors of [New].
var ErrConfig = errors.New("web: bad config")

// A source expression of the policy must not end its directive or the header.
var frameAncestor = regexp.MustCompile(`^('self'|https?://[A-Za-z0-9.*\[\]:-]+|https?:)$`)

func (c Config) validate() error {
	if !protocol.ValidRoom(c.Room) {
		return fmt.Errorf("%w: room %q is not a room name", ErrConfig, c.Room)
	}
	switch c.Guests {
	case protocol.GuestsNone, protocol.GuestsWatch, protocol.GuestsComment:
	default:
		return fmt.Errorf("%w: guests must be none, watch or comment, not %q", ErrConfig, c.Guests)
	}
	if c.Demo != nil && (!strings.HasPrefix(c.DemoStopPath, "/") || strings.HasPrefix(c.DemoStopPath, "//")) {
		return fmt.Errorf("%w: the path that stops the demo must be absolute, not %q", ErrConfig, c.DemoStopPath)
	}
	for _, f := range c.FrameAncestors {
		if !frameAncestor.MatchString(f) {
			return fmt.Errorf("%w: frame ancestor %q is neither an origin nor 'self'", ErrConfig, f)
		}
	}
	return nil
}

// New returns the handler of the pages and the SDK. It answers every path; the
// API's own, more specific patterns take precedence in the mux that holds both.
func New(cfg Config) (http.Handler, error) {
	if cfg.Room == "" {
		cfg.Room = DefaultRoom
	}
	if cfg.Guests == "" {
		cfg.Guests = protocol.GuestsNone
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	files, err := loadFiles()
	if err != nil {
		return nil, err
	}
	p, err := newPages(cfg, files.tag)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { p.viewer(w, r, cfg.Room) })
	mux.HandleFunc("GET /r/{room}", func(w http.ResponseWriter, r *http.Request) { p.viewer(w, r, r.PathValue("room")) })
	mux.HandleFunc("GET /studio/{room}", func(w http.ResponseWriter, r *http.Request) { p.studio(w, r, r.PathValue("room")) })
	mux.HandleFunc("GET /sdk/{file...}", files.serveSDK)
	mux.HandleFunc("GET /assets/{tag}/{file...}", files.serveAsset)
	mux.HandleFunc("GET /", p.notFound)
	return mux, nil
}

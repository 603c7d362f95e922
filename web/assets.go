package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"time"
)

//go:embed sdk static templates locales
var embedded embed.FS

// files are the embedded files that browsers may fetch.
type files struct {
	byName map[string]file
	tag    string // changes with the content of any of them
}

type file struct {
	body        []byte
	contentType string
	etag        string
}

// contentTypes is not mime.TypeByExtension because that asks the machine, and a
// module of a wrong type does not run.
var contentTypes = map[string]string{
	".js":  "text/javascript; charset=utf-8",
	".css": "text/css; charset=utf-8",
	".svg": "image/svg+xml",
	".ts":  "text/plain; charset=utf-8",
}

func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// entries are the modules that pages import; the others are parts of them.
var entries = []string{"sdk/kansei.js", "sdk/stage.js", "static/viewer.js", "static/studio.js"}

// read returns a file as it is served.
func read(name string) ([]byte, error) {
	if slices.Contains(entries, name) {
		return bundle(embedded, name)
	}
	return embedded.ReadFile(name)
}

func loadFiles() (*files, error) {
	f := &files{byName: make(map[string]file)}
	all := sha256.New()
	for _, dir := range []string{"sdk", "static"} {
		err := fs.WalkDir(embedded, dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if path.Ext(name) == ".js" && !slices.Contains(entries, name) {
				return nil
			}
			contentType, ok := contentTypes[path.Ext(name)]
			if !ok {
				return fmt.Errorf("web: no content type for %s", name)
			}
			body, err := read(name)
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(all, "%s %d\n%s", name, len(body), body) // a hash takes everything
			f.byName[name] = file{body: body, contentType: contentType, etag: etag(body)}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	f.tag = hex.EncodeToString(all.Sum(nil)[:8])
	return f, nil
}

// serveAsset serves a file to the pages. A page of another version, from another
// node, names another tag: it gets what there is, but must not keep it.
func (f *files) serveAsset(w http.ResponseWriter, r *http.Request) {
	cache := "no-store"
	if r.PathValue("tag") == f.tag {
		cache = "public, max-age=31536000, immutable"
	}
	f.serve(w, r, r.PathValue("file"), cache)
}

// serveSDK serves the SDK to any page, under a name that stays.
func (f *files) serveSDK(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
	f.serve(w, r, "sdk/"+r.PathValue("file"), "public, max-age=300")
}

func (f *files) serve(w http.ResponseWriter, r *http.Request, name, cache string) {
	h := w.Header()
	commonHeaders(h, filePolicy)
	it, ok := f.byName[name]
	if !ok {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	h.Set("Content-Type", it.contentType)
	h.Set("ETag", it.etag)
	h.Set("Cache-Control", cache)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(it.body))
}

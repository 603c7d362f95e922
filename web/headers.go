package web

import (
	"net/http"
	"strings"
)

// pagePolicy is the content security policy of a page. ws: and wss: are there for
// browsers whose 'self' does not cover WebSockets.
func pagePolicy(frameAncestors, avatarHosts []string) string {
	ancestors := "'none'"
	if len(frameAncestors) > 0 {
		ancestors = strings.Join(frameAncestors, " ")
	}
	images := "img-src 'self' data:"
	for _, host := range avatarHosts {
		images += " https://" + host
	}
	return strings.Join([]string{
		"default-src 'none'",
		"script-src 'self'",
		"style-src 'self'",
		images,
		"connect-src 'self' ws: wss:",
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors " + ancestors,
		"require-trusted-types-for 'script'",
		"trusted-types 'none'",
	}, "; ")
}

// filePolicy is that of everything that is not a page, should somebody open it as one.
const filePolicy = "default-src 'none'; frame-ancestors 'none'; sandbox"

func commonHeaders(h http.Header, policy string) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}

func pageHeaders(h http.Header, policy, lang string) {
	commonHeaders(h, policy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", lang)
	h.Set("Vary", "Accept-Language")
	// The tag of the assets changes with each version, so that pages are asked for anew.
	h.Set("Cache-Control", "no-cache")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
}

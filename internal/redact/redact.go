// Package redact takes what may be secret out of addresses before anybody is shown them.
//
// A URL may hold a user and a password, or a token where the user stands, as NATS has it:
// nats://token@host. No reader of a log needs them. An address that cannot be taken apart is
// left out as a whole.
package redact

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// hidden stands for what is not shown.
const hidden = "***"

// minSecret is how long a secret of an address must be to be looked for in other texts: a
// shorter one would be found in words that have nothing to do with it.
const minSecret = 4

var (
	// credentials are those in a URL within a text, up to the last @ before a space or a
	// quotation mark: a password may have characters that should have been encoded.
	credentials = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s"'<>]*@`)
	quotation   = regexp.MustCompile(`"[^"]*"`)
	// parameters are those of a URL that hold secrets.
	parameters = regexp.MustCompile(`(?i)([a-z_]*(?:password|token|secret)=)[^&\s"'<>]*`)
)

// URL returns an address without the user, the password and the query in it.
func URL(s string) string {
	s = strings.TrimSpace(s)
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "", s
	} else {
		scheme += "://"
	}
	rest, _, _ = strings.Cut(rest, "?")
	rest, _, _ = strings.Cut(rest, "#")
	// The last @ of all: one before may be of a password that was not encoded.
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		rest, _, _ = strings.Cut(s[i+1:], "?")
		rest, _, _ = strings.Cut(rest, "#")
		return scheme + hidden + "@" + rest
	}
	return scheme + rest
}

// next is a comma behind which another URL begins.
var next = regexp.MustCompile(`,\s*([a-zA-Z][a-zA-Z0-9+.-]*://)`)

// URLs is [URL] of each of several addresses with commas between them. Of those without a
// scheme of their own what stands before the last @ is not shown, other addresses among it:
// a password may have a comma, too.
func URLs(s string) string {
	parts := strings.Split(next.ReplaceAllString(s, "\n$1"), "\n")
	for i, part := range parts {
		parts[i] = URL(part)
	}
	return strings.Join(parts, ",")
}

// Text returns a text without the users and passwords of the URLs in it.
func Text(s string) string {
	s = credentials.ReplaceAllString(s, "${1}"+hidden+"@")
	return parameters.ReplaceAllString(s, "${1}"+hidden)
}

// Secrets are those of some addresses. The zero value knows none.
type Secrets struct{ known []string }

// Of returns the secrets that are in addresses.
func Of(addresses ...string) Secrets {
	var s Secrets
	add := func(secret string) {
		if len(secret) >= minSecret && !slices.Contains(s.known, secret) {
			s.known = append(s.known, secret)
		}
	}
	for _, a := range addresses {
		_, rest, ok := strings.Cut(a, "://")
		if !ok {
			rest = a
		}
		at := strings.LastIndexByte(rest, '@')
		if at < 0 {
			continue
		}
		user, password, both := strings.Cut(rest[:at], ":")
		add(rest[:at])
		if both {
			user = password // of the two, this one is the secret
		}
		add(user)
		if decoded, err := url.PathUnescape(user); err == nil {
			add(decoded)
		}
	}
	// The longest first, lest what is left of it be shown.
	slices.SortStableFunc(s.known, func(a, b string) int { return len(b) - len(a) })
	return s
}

// Text is [Text], without the secrets wherever they stand.
func (s Secrets) Text(text string) string {
	for _, secret := range s.known {
		text = strings.ReplaceAll(text, secret, hidden)
	}
	return Text(text)
}

// Error returns err with the text that may be shown; nil for nil. It wraps err.
func (s Secrets) Error(err error) error {
	if err == nil {
		return nil
	}
	before := err.Error()
	if after := s.Text(before); after != before {
		return &shown{after, err}
	}
	return err
}

// Quoted returns err without what stands in quotation marks in its text, where that is not
// of the address behind its user and password: an error about an address that cannot be
// taken apart quotes what it takes for the host, and that may be a piece of the password.
func Quoted(err error, address string) error {
	at := strings.LastIndexByte(address, '@')
	if err == nil || at < 0 {
		return err
	}
	before := err.Error()
	after := quotation.ReplaceAllStringFunc(before, func(q string) string {
		if s := q[1 : len(q)-1]; s == "" || strings.Contains(address[at+1:], s) || strings.HasPrefix(address, s+"://") {
			return q
		}
		return hidden + " (special characters in user and password are percent-encoded)"
	})
	if after == before {
		return err
	}
	return &shown{after, err}
}

// shown is an error with another text.
type shown struct {
	text string
	err  error
}

// Error implements error.
func (e *shown) Error() string { return e.text }

// Unwrap returns the error whose text is not shown.
func (e *shown) Unwrap() error { return e.err }

package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kansei-live/kansei/protocol"
)

// Issuers is several issuers of tokens, as YAML: a list in the file of settings, or the same text
// in a variable or on the command line. It holds no secret, only names of files.
type Issuers struct {
	List []Issuer
}

// Issuer is one of them.
type Issuer struct {
	Issuer       string            `yaml:"issuer"`        // claim iss of its tokens
	Name         string            `yaml:"name"`          // what ids of its users begin with; the issuer, when left out
	Audience     oneOrMore         `yaml:"audience"`      // one of which its tokens must have as aud
	Leeway       time.Duration     `yaml:"leeway"`        // by how much its clock may differ, up to 15m
	DefaultRole  string            `yaml:"default-role"`  // of tokens without one
	DefaultRooms oneOrMore         `yaml:"default-rooms"` // of tokens without any
	JWKS         string            `yaml:"jwks"`          // file or address of its public keys
	SecretFile   string            `yaml:"secret-file"`   // file of secrets that it signs with
	Claims       map[string]string `yaml:"claims"`        // what we call a claim → what it does
	Roles        map[string]string `yaml:"roles"`         // its word for a role → ours
}

// oneOrMore is a list of text, which may be written as one.
type oneOrMore []string

// UnmarshalYAML reads it.
func (o *oneOrMore) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*o = make([]string, 1)
		return n.Decode(&(*o)[0])
	}
	return n.Decode((*[]string)(o))
}

var _ encoding.TextUnmarshaler = (*Issuers)(nil)

// UnmarshalText reads YAML. It refuses names that are not known.
func (i *Issuers) UnmarshalText(text []byte) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	var list []Issuer
	if err := d.Decode(&list); err != nil && !errors.Is(err, io.EOF) {
		var wrong *yaml.TypeError
		if errors.As(err, &wrong) {
			return fmt.Errorf("must be a list of issuers: %s", strings.Join(wrong.Errors, "; "))
		}
		return errors.New("must be a list of issuers, in YAML")
	}
	i.List = list
	return nil
}

// IssuerClaims are what claims are called here, whose names an issuer may change.
func IssuerClaims() []string {
	return []string{"user", "name", "avatar", "role", "rooms", "permissions", "members"}
}

const maxLeeway = 15 * time.Minute

func (a *Auth) validateIssuers(p *Problems) {
	roles := []string{string(protocol.RoleViewer), string(protocol.RoleMonitor), string(protocol.RoleModerator), string(protocol.RoleBroadcaster)}
	oneOf(p, "default-role", a.DefaultRole, roles...)
	within(p, "max-token-age", a.MaxTokenAge, time.Minute, 366*24*time.Hour)
	if what := wrongJWKS(a.JWKS); what != "" {
		p.add("jwks", "%s", what)
	}
	if len(a.Audience) > 0 && a.Issuer == "" && a.JWKS == "" && !a.givesAuthSecret() {
		p.add("audience", "is for tokens of your own back ends: give their --auth-secret or --jwks too")
	}
	for n, i := range a.Issuers.List {
		bad := func(key, format string, args ...any) {
			p.add("issuers", "%s of issuer %d %s", key, n+1, fmt.Sprintf(format, args...))
		}
		if i.Issuer == "" {
			bad("issuer", "is missing: the claim iss of its tokens")
		}
		if slices.ContainsFunc(a.Issuers.List[:n], func(o Issuer) bool { return o.Issuer == i.Issuer }) || i.Issuer == a.Issuer && a.Issuer != "" {
			bad("issuer", "appears twice: %q", i.Issuer)
		}
		if i.Leeway < 0 || i.Leeway > maxLeeway {
			bad("leeway", "must be 0s to %v, not %v", maxLeeway, i.Leeway)
		}
		if i.DefaultRole != "" && !slices.Contains(roles, i.DefaultRole) {
			bad("default-role", "must be %s, not %q", alternatives(roles), i.DefaultRole)
		}
		for _, r := range i.DefaultRooms {
			if prefix, many := strings.CutSuffix(r, "*"); !protocol.ValidRoom(prefix) && (!many || prefix != "") {
				bad("default-rooms", "must be names of rooms, or beginnings of names and *, not %q", r)
			}
		}
		if i.JWKS == "" && i.SecretFile == "" {
			bad("jwks", "is missing, or secret-file: how are its tokens signed?")
		}
		if what := wrongJWKS(i.JWKS); what != "" {
			bad("jwks", "%s", what)
		}
		for name := range i.Claims {
			if !slices.Contains(IssuerClaims(), name) {
				bad("claims", "has %q, not %s", name, alternatives(IssuerClaims()))
			}
		}
		for _, role := range i.Roles {
			if !slices.Contains(roles, role) {
				bad("roles", "must be %s, not %q", alternatives(roles), role)
			}
		}
	}
}

// KeysAddress returns where keys are fetched, if they are not in a file.
func KeysAddress(jwks string) (address string, is bool) { return jwks, strings.Contains(jwks, "://") }

// wrongJWKS says what is wrong with where keys are; empty if nothing is.
func wrongJWKS(jwks string) string {
	address, is := KeysAddress(jwks)
	if !is {
		return ""
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		return "must be a file, or an address such as https://login.example.com/jwks.json, without a user"
	case u.Scheme == "http" && !onThisMachine(u.Hostname()):
		return "must be fetched by https: whoever is on the way could put keys of their own in its place"
	}
	return ""
}

// onThisMachine reports whether a host of an address is this machine for sure.
func onThisMachine(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

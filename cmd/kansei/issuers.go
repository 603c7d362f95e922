package main

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/internal/health"
	"github.com/kansei-live/kansei/internal/jwks"
	"github.com/kansei-live/kansei/protocol"
)

// crewIssuer is what nodes call themselves in the tokens that they make, where they have no secret
// of the back ends' to sign with.
const crewIssuer = "kansei"

// crewKeys are the keys of such tokens: made of the node secrets, which all nodes have.
func crewKeys(nodeSecrets [][]byte) [][]byte {
	keys := make([][]byte, len(nodeSecrets))
	for i, s := range nodeSecrets {
		mac := hmac.New(sha256.New, s)
		_, _ = mac.Write([]byte("kansei: tokens of the crew")) // never fails
		keys[i] = mac.Sum(nil)
	}
	return keys
}

// issuersOf returns those whose tokens count: the one of the flags, who has secrets too, those
// of --issuers, and the nodes themselves. Keys and secrets are read from their files; those that are
// at an address are fetched later.
func issuersOf(a config.Auth, secrets, nodeSecrets [][]byte) ([]auth.Issuer, error) {
	var all []auth.Issuer
	if len(secrets) == 0 && len(nodeSecrets) > 0 {
		all = append(all, auth.Issuer{Name: crewIssuer, Keys: auth.SecretKeys(crewKeys(nodeSecrets)...)})
	}
	if len(secrets) > 0 || a.JWKS != "" {
		own := auth.Issuer{
			Claim: a.Issuer, Keys: auth.SecretKeys(secrets...), Audience: a.Audience, DefaultRole: protocol.Role(a.DefaultRole),
		}
		if err := addKeys(&own, a.JWKS); err != nil {
			return nil, fmt.Errorf("--jwks: %w", err)
		}
		all = append(all, own)
	}
	for _, c := range a.Issuers.List {
		i := auth.Issuer{
			Name: cmp.Or(c.Name, c.Issuer), Claim: c.Issuer, Audience: c.Audience, Leeway: c.Leeway,
			DefaultRole: protocol.Role(c.DefaultRole), DefaultRooms: c.DefaultRooms, Roles: map[string]protocol.Role{},
			Names: auth.Names{
				User: c.Claims["user"], Name: c.Claims["name"], Avatar: c.Claims["avatar"], Role: c.Claims["role"],
				Rooms: c.Claims["rooms"], Can: c.Claims["permissions"], Members: c.Claims["members"],
			},
		}
		for word, role := range c.Roles {
			i.Roles[word] = protocol.Role(role)
		}
		err := addKeys(&i, c.JWKS)
		if err == nil && c.SecretFile != "" {
			var secrets [][]byte
			secrets, err = auth.ReadSecrets(c.SecretFile)
			i.Keys = append(i.Keys, auth.SecretKeys(secrets...)...)
		}
		if err != nil {
			return nil, fmt.Errorf("--issuers: %s: %w", c.Issuer, err)
		}
		all = append(all, i)
	}
	if len(secrets) == 0 && a.JWKS == "" && len(a.Issuers.List) == 0 {
		return nil, errors.New("--auth-secret: there is nothing to check tokens with")
	}
	return all, nil
}

// addKeys adds the keys of a file to an issuer, or notes that they will be fetched.
func addKeys(i *auth.Issuer, from string) error {
	if _, is := config.KeysAddress(from); is || from == "" {
		i.Fetched = is
		return nil
	}
	keys, err := auth.ReadKeys(from)
	i.Keys = append(i.Keys, keys...)
	return err
}

// issuerFiles are the files of keys and secrets of issuers.
func issuerFiles(a config.Auth) []string {
	var files []string
	add := func(path string) {
		if _, is := config.KeysAddress(path); !is && path != "" {
			files = append(files, path)
		}
	}
	add(a.JWKS)
	for _, i := range a.Issuers.List {
		add(i.JWKS)
		add(i.SecretFile)
	}
	return files
}

// signerOf returns who makes tokens with these secrets; it has no secret without any.
func signerOf(a config.Auth, secrets, nodeSecrets [][]byte) *auth.Signer {
	if len(secrets) == 0 && len(nodeSecrets) > 0 {
		return &auth.Signer{Issuer: crewIssuer, Secret: crewKeys(nodeSecrets)[0], MaxAge: a.MaxTokenAge}
	}
	s := &auth.Signer{Issuer: a.Issuer, MaxAge: a.MaxTokenAge}
	if len(a.Audience) > 0 {
		s.Audience = a.Audience[0]
	}
	if len(secrets) > 0 {
		s.Secret = secrets[0]
	}
	return s
}

// source is where the keys of one issuer are fetched.
type source struct {
	name  string // of the issuer's users; empty for the default one
	shown string
	url   string
}

// sources are where keys are fetched.
func sources(a config.Auth) []source {
	var all []source
	if address, is := config.KeysAddress(a.JWKS); is {
		all = append(all, source{"", cmp.Or(a.Issuer, "default"), address})
	}
	for _, i := range a.Issuers.List {
		if address, is := config.KeysAddress(i.JWKS); is {
			all = append(all, source{cmp.Or(i.Name, i.Issuer), i.Issuer, address})
		}
	}
	return all
}

// fetchKeys begins to fetch keys, each issuer's by itself. It returns what says whether all were
// fetched once.
func (n *node) fetchKeys(reg prometheus.Registerer) []health.Part {
	all := sources(n.cfg.Auth)
	if len(all) == 0 {
		return nil
	}
	metrics := jwks.NewMetrics(reg)
	fetchers := map[string]*jwks.Fetcher{}
	for _, from := range all {
		fetchers[from.name] = jwks.New(jwks.Config{
			Issuer: from.shown, URL: from.url, Metrics: metrics, Logger: n.log,
			Keys: func(keys []auth.Key) error { return n.secrets.tokens.SetKeys(from.name, keys) },
		})
	}
	n.secrets.tokens.UnknownKey = func(issuer string) {
		if f := fetchers[issuer]; f != nil {
			f.Ask()
		}
	}
	for _, f := range fetchers {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		// Ends with cancel.
		go func() {
			defer close(done)
			f.Run(ctx)
		}()
		n.onStop("the keys of issuers", func(context.Context) error {
			cancel()
			<-done
			return nil
		})
	}
	return []health.Part{{Name: "keys", Ready: func() error {
		var errs []error
		for _, f := range fetchers {
			errs = append(errs, f.Ready())
		}
		return errors.Join(errs...)
	}}}
}

// fetchOnce fetches the keys of all issuers, for somebody who waits for them.
func fetchOnce(ctx context.Context, a config.Auth, v *auth.Verifier) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, from := range sources(a) {
		keys, err := jwks.Get(ctx, http.DefaultClient, from.url)
		if err == nil {
			err = v.SetKeys(from.name, keys)
		}
		if err != nil {
			return fmt.Errorf("the keys of %s: %w", from.shown, err)
		}
	}
	return nil
}

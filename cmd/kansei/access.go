package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kansei-live/kansei/internal/access"
	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/internal/credentials"
	"github.com/kansei-live/kansei/internal/edge"
	"github.com/kansei-live/kansei/internal/moderation"
	"github.com/kansei-live/kansei/internal/natslog"
	"github.com/kansei-live/kansei/protocol"
)

// newAccess makes what knows revocations and keys, on a table; changed is told of revocations.
func newAccess(table *natslog.Table, maxAge time.Duration, log *slog.Logger, changed func()) *access.Access {
	return access.New(access.Config{
		Put: func(ctx context.Context, e access.Entry) error { return table.Put(ctx, natslog.Entry(e)) },
		Now: table.Now, MaxTokenAge: maxAge, Changed: changed, Logger: log,
	})
}

// follow has an Access know what is in a table, from now on, and a Desk, if there is one, what holds for
// all rooms.
func follow(table *natslog.Table, a *access.Access, desk *moderation.Desk) {
	table.Follow(func(entries []natslog.Entry, anew bool) {
		all, acts := make([]access.Entry, len(entries)), make([]moderation.Entry, len(entries))
		for i, e := range entries {
			all[i], acts[i] = access.Entry(e), moderation.Entry(e)
		}
		a.Apply(all, anew)
		if desk != nil {
			desk.Apply(acts, anew)
		}
	})
}

// commandWait bounds a command that acts on a cluster.
const commandWait = 15 * time.Second

// reach is how a command reaches a cluster: by NATS, or one node by its operators' listener.
type reach struct {
	config.Reach
	config.File
}

// registrar is what commands do to a cluster, whichever way they reach it.
type registrar interface {
	NewKey(ctx context.Context, name string, scopes []access.Scope, rooms []string) (access.Key, string, error)
	Keys(ctx context.Context) ([]access.Key, error)
	RevokeKey(ctx context.Context, which string) (access.Key, error)
	Revoke(ctx context.Context, r access.Revocation) (access.Revocation, error)
	Revocations(ctx context.Context) ([]access.Revocation, error)
}

// with calls f with the cluster that the settings name.
func (c *reach) with(ctx context.Context, f func(context.Context, registrar) error) error {
	ctx, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	if c.NATS == "" {
		return f(ctx, byOps{"http://" + c.Ops})
	}
	creds, err := credentials.NewNATS(c.NATSAccess)
	if err != nil {
		return err
	}
	table, err := natslog.OpenTable(natslog.Config{
		Name: "kansei command", URLs: c.NATSServers(), Options: creds.Options(), NKey: creds.NKey(), Prefix: c.Prefix, Domain: c.NATSDomain, Replicas: c.Replicas(),
	})
	if err != nil {
		return err
	}
	defer table.Close()
	a := newAccess(table, c.MaxTokenAge, slog.New(slog.DiscardHandler), nil)
	follow(table, a, nil)
	for table.Ready() != nil {
		select {
		case <-ctx.Done():
			return table.Ready()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return f(ctx, byTable{a})
}

// byTable is a registrar that writes to NATS itself.
type byTable struct{ *access.Access }

func (b byTable) Keys(context.Context) ([]access.Key, error) { return b.Access.Keys(), nil }
func (b byTable) Revocations(context.Context) ([]access.Revocation, error) {
	return b.Access.Revocations(), nil
}

// byOps is a registrar that asks a node.
type byOps struct{ url string }

func (b byOps) NewKey(ctx context.Context, name string, scopes []access.Scope, rooms []string) (access.Key, string, error) {
	var made edge.MadeKey
	err := b.ask(ctx, http.MethodPost, "/v1/keys", edge.NewKey{Name: name, Scopes: scopes, Rooms: rooms}, &made)
	return made.Key, made.Secret, err
}

func (b byOps) Keys(ctx context.Context) ([]access.Key, error) {
	var all edge.Keys
	err := b.ask(ctx, http.MethodGet, "/v1/keys", nil, &all)
	return all.Keys, err
}

func (b byOps) RevokeKey(ctx context.Context, which string) (k access.Key, err error) {
	err = b.ask(ctx, http.MethodDelete, "/v1/keys/"+url.PathEscape(which), nil, &k)
	return k, err
}

func (b byOps) Revoke(ctx context.Context, r access.Revocation) (access.Revocation, error) {
	var made protocol.Revocation
	err := b.ask(ctx, http.MethodPost, "/v1/revocations", protocol.Revocation(r), &made)
	return access.Revocation(made), err
}

func (b byOps) Revocations(ctx context.Context) ([]access.Revocation, error) {
	var all protocol.Revocations
	err := b.ask(ctx, http.MethodGet, "/v1/revocations", nil, &all)
	out := make([]access.Revocation, len(all.Revocations))
	for i, r := range all.Revocations {
		out[i] = access.Revocation(r)
	}
	return out, err
}

// ask makes one request.
func (b byOps) ask(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		p, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(p)
	}
	req, err := http.NewRequestWithContext(ctx, method, b.url+path, body)
	if err != nil {
		return fmt.Errorf("--ops: %w", err)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		if e, is := errors.AsType[*url.Error](err); is {
			err = e.Err
		}
		return fmt.Errorf("no node answers at %s: %w (--ops HOST:PORT names its operators' listener, --nats URL the cluster)", strings.TrimPrefix(b.url, "http://"), err)
	}
	defer func() { _ = answer.Body.Close() }()
	p, err := io.ReadAll(io.LimitReader(answer.Body, 64<<20))
	if err != nil {
		return err
	}
	if answer.StatusCode >= 300 {
		var problem protocol.Problem
		if json.Unmarshal(p, &problem) == nil && problem.Detail != "" {
			return errors.New(problem.Detail)
		}
		return fmt.Errorf("%s answers %s", strings.TrimPrefix(b.url, "http://"), answer.Status)
	}
	return json.Unmarshal(p, out)
}

type keyCommand struct {
	New    keyNewCommand    `cmd:"" help:"Make an API key for a back end and print it: it is shown once."`
	List   keyListCommand   `cmd:"" help:"List all API keys, without their secrets."`
	Revoke keyRevokeCommand `cmd:"" help:"Revoke an API key."`
}

type keyNewCommand struct {
	reach
	Name  string         `required:"" placeholder:"NAME" help:"Name of the back end, 1 to 40 of A-Z a-z 0-9 _ . -. Two keys may have one name, while one replaces the other."`
	Scope []access.Scope `required:"" placeholder:"SCOPE" help:"What it is for: publish (comments of its own), publish_as (of any user), moderate (change rooms), read (what the staff may read), admin (revoke tokens, make links)."`
	Room  []string       `required:"" placeholder:"ROOM" help:"Rooms that it is for; lesson-* for all that begin so, * for all."`
}

// Run prints a key.
func (c *keyNewCommand) Run(ctx context.Context, stdout io.Writer, stderr errorStream) error {
	return c.with(ctx, func(ctx context.Context, r registrar) error {
		k, secret, err := r.NewKey(ctx, c.Name, c.Scope, c.Room)
		if err != nil {
			return plain(err)
		}
		fmt.Fprintf(stderr, "kansei: key %s of %s; keep it, nobody can show it again\n", k.ID, k.Name)
		_, err = fmt.Fprintln(stdout, secret)
		return err
	})
}

type keyListCommand struct{ reach }

// Run prints all keys.
func (c *keyListCommand) Run(ctx context.Context, stdout io.Writer) error {
	return c.with(ctx, func(ctx context.Context, r registrar) error {
		all, err := r.Keys(ctx)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tNAME\tSCOPES\tROOMS\tMADE\tREVOKED")
		for _, k := range all {
			scopes := make([]string, len(k.Scopes))
			for i, s := range k.Scopes {
				scopes[i] = string(s)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Name, strings.Join(scopes, ","), printable(strings.Join(k.Rooms, ",")), day(k.Created), day(k.Revoked))
		}
		return w.Flush()
	})
}

type keyRevokeCommand struct {
	reach
	Key string `arg:"" help:"Id of the key, or its name if only one has it."`
}

// Run revokes a key.
func (c *keyRevokeCommand) Run(ctx context.Context, stderr errorStream) error {
	return c.with(ctx, func(ctx context.Context, r registrar) error {
		k, err := r.RevokeKey(ctx, c.Key)
		if err != nil {
			return plain(err)
		}
		_, err = fmt.Fprintf(stderr, "kansei: key %s of %s is revoked; no node takes it within a second\n", k.ID, k.Name)
		return err
	})
}

type revokeCommand struct {
	reach
	User    string    `placeholder:"ID" help:"User whose tokens are revoked: those issued up to now, or up to --before."`
	JTI     string    `name:"jti" placeholder:"ID" help:"Id of the token that is revoked, its claim jti."`
	Before  time.Time `placeholder:"TIME" format:"2006-01-02T15:04:05Z07:00" help:"Revoke tokens issued up to then, such as 2026-01-02T15:04:05Z; without --user those of everybody."`
	Revoked bool      `help:"List what is revoked instead."`
}

// Validate says which flags are missing.
func (c *revokeCommand) Validate() error {
	if !c.Revoked && c.User == "" && c.JTI == "" && c.Before.IsZero() {
		return errors.New("missing flags: --user=ID, --jti=ID, --before=TIME or --revoked")
	}
	return nil
}

// Run revokes tokens, or lists what was revoked.
func (c *revokeCommand) Run(ctx context.Context, stdout io.Writer, stderr errorStream) error {
	return c.with(ctx, func(ctx context.Context, r registrar) error {
		if c.Revoked {
			return listRevocations(ctx, r, stdout)
		}
		asked := access.Revocation{User: c.User, JTI: c.JTI}
		if !c.Before.IsZero() {
			asked.Before = c.Before.Unix()
		}
		made, err := r.Revoke(ctx, asked)
		if err != nil {
			return plain(err)
		}
		_, err = fmt.Fprintf(stderr, "kansei: revoked %s; no node takes them within a second\n", concerns(made))
		return err
	})
}

func listRevocations(ctx context.Context, r registrar, stdout io.Writer) error {
	all, err := r.Revocations(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REVOKED\tAT\tKEPT UNTIL")
	for _, one := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\n", printable(concerns(one)), time.Unix(one.At, 0).UTC().Format(time.RFC3339), day(one.Until))
	}
	return w.Flush()
}

// concerns says which tokens a revocation concerns.
func concerns(r access.Revocation) string {
	switch {
	case r.JTI != "":
		return "the token " + r.JTI
	case r.User != "":
		return fmt.Sprintf("tokens of %s issued up to %s", r.User, time.Unix(r.Before, 0).UTC().Format(time.RFC3339))
	}
	return "all tokens issued up to " + time.Unix(r.Before, 0).UTC().Format(time.RFC3339)
}

// day is a moment in Unix seconds as a date; - for none.
func day(at int64) string {
	if at == 0 {
		return "-"
	}
	return time.Unix(at, 0).UTC().Format(time.DateOnly)
}

// plain is an error without the name of the package that it is from.
func plain(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), "access: "))
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/protocol"
)

type tokenCommand struct {
	config.Auth
	config.File
	Room  []string      `placeholder:"ROOM" help:"Room that the token is for; repeatable, * for all."`
	User  string        `placeholder:"ID" help:"Id of the user, 1 to 64 bytes."`
	Name  string        `placeholder:"NAME" help:"Name that others see. Default: the id."`
	Role  string        `default:"viewer" enum:"viewer,monitor,moderator,broadcaster" help:"Standing of the user: ${enum}."`
	Can   []string      `placeholder:"WHAT" help:"What the user may do beside what the role may: uncounted, to be in no count; publish_as, to publish comments of other users over HTTP."`
	TTL   time.Duration `default:"2h" name:"ttl" help:"How long the token holds."`
	Check string        `placeholder:"TOKEN" help:"Explain this token instead of making one, - to read it from the input; with --room for a room."`
}

// maxInput bounds what is read as a token, in bytes: a longer one is refused as such.
const maxInput = 64 << 10

// Validate says which flags are missing.
func (c *tokenCommand) Validate() error {
	switch {
	case c.Check != "" && c.User != "":
		return errors.New("--check explains a token and --user makes one: give one of them")
	case c.Check != "" && len(c.Room) > 1:
		return errors.New("--check takes one --room at a time")
	case c.Check == "" && c.User == "":
		return errors.New("missing flags: --user=ID (or --check=TOKEN to explain one)")
	case slices.ContainsFunc(c.Can, func(s string) bool { return s != protocol.CanBeUncounted && s != protocol.CanPublishAs }):
		return fmt.Errorf("--can must be %s or %s, not %q", protocol.CanBeUncounted, protocol.CanPublishAs, c.Can)
	case c.Check == "" && len(c.Room) == 0:
		return errors.New("missing flags: --room=ROOM")
	}
	return nil
}

// Run prints a token, and which secret it is signed with on another stream; or it explains
// one.
func (c *tokenCommand) Run(stdin io.Reader, stdout io.Writer, stderr errorStream) error {
	secrets, where, err := c.secret()
	if err != nil {
		return err
	}
	if c.Check != "" {
		return c.explain(stdin, stdout, secrets, where)
	}
	name := c.Name
	if name == "" {
		name = c.User
	}
	if len(secrets) == 0 {
		return errors.New("a token is made with a secret, and there is none: give the --auth-secret or --auth-secret-file of the nodes; what others sign, they make")
	}
	token, err := signerOf(c.Auth, secrets, nil).Mint(auth.Claims{
		Subject: c.User, Name: name, Role: protocol.Role(c.Role), Rooms: c.Room, Can: c.Can,
	}, c.TTL)
	if err != nil {
		return err
	}
	fmt.Fprintln(stderr, "kansei: signed with "+where)
	_, err = fmt.Fprintln(stdout, token)
	return err
}

// secret returns the secrets of tokens, the first of which signs, and where they are
// from. It makes none: no node would know it. There are none where others sign all tokens.
func (c *tokenCommand) secret() (secrets [][]byte, where string, err error) {
	given, err := authSecrets(c.Auth)
	switch {
	case err != nil:
		return nil, "", err
	case len(given) > 0 && c.AuthSecretFile != "":
		return given, "the secret in " + c.AuthSecretFile, nil
	case len(given) > 0:
		return given, "the secret of --auth-secret, its variable or the file of settings", nil
	}
	secret, err := auth.LoadSecret(c.DataDir, auth.SecretFile)
	if errors.Is(err, fs.ErrNotExist) {
		if c.JWKS != "" || len(c.Issuers.List) > 0 {
			return nil, "the keys of its issuer", nil
		}
		return nil, "", fmt.Errorf("there is no secret in %s: give the --auth-secret or --auth-secret-file of the nodes, or the --data-dir of a node that made its own",
			filepath.Join(c.DataDir, auth.SecretFile))
	}
	if err != nil {
		return nil, "", fmt.Errorf("--data-dir: %w", err)
	}
	return [][]byte{secret}, "the secret in " + filepath.Join(c.DataDir, auth.SecretFile), nil
}

// explain prints what is in a token and what a node with these secrets makes of it. Its error is
// why the token is refused.
func (c *tokenCommand) explain(stdin io.Reader, w io.Writer, secrets [][]byte, where string) error {
	token := c.Check
	if token == "-" {
		p, err := io.ReadAll(io.LimitReader(stdin, maxInput))
		if err != nil {
			return fmt.Errorf("--check: %w", err)
		}
		token = string(p)
	}
	token = strings.TrimSpace(token)
	verifier, err := c.verifier(secrets)
	if err != nil {
		return err
	}
	room := ""
	if len(c.Room) > 0 {
		room = c.Room[0]
	}
	e := verifier.Explain(token, room)
	line := func(name, format string, a ...any) { fmt.Fprintf(w, "%-10s %s\n", name, fmt.Sprintf(format, a...)) }
	if e.Header != "" {
		line("header", "%s", printable(e.Header))
		line("claims", "%s", printable(e.Claims))
	}
	if e.Signed {
		line("signature", "made with %s", where)
	} else {
		line("signature", "not made with %s", where)
	}
	if said := e.Said; said.Subject != "" {
		line("user", "%s (%s)", said.Subject, said.Name)
		line("role", "%s: %s", said.Role, auth.Can(said.Role))
		if len(said.Can) > 0 {
			line("can", "%s", printable(strings.Join(said.Can, ", ")))
		}
		line("rooms", "%s", printable(strings.Join(said.Rooms, ", ")))
		if said.Member {
			line("member", "yes")
		}
		line("ends", "%s, in %v", said.Expires.UTC().Format(time.RFC3339), time.Until(said.Expires).Round(time.Second))
	}
	if !e.Signed && e.ClaimsErr != nil {
		line("also", "%v", e.ClaimsErr)
	}
	if e.Err != nil {
		return fmt.Errorf("the token is refused: %w", e.Err)
	}
	line("verdict", "nodes with this secret take it")
	return nil
}

// verifier checks tokens as a node with the same settings does.
func (c *tokenCommand) verifier(secrets [][]byte) (*auth.Verifier, error) {
	issuers, err := issuersOf(c.Auth, secrets, nil)
	if err != nil {
		return nil, err
	}
	v := &auth.Verifier{MaxAge: c.MaxTokenAge}
	apply, err := v.PrepareIssuers(issuers...)
	if err != nil {
		return nil, err
	}
	apply()
	return v, fetchOnce(context.Background(), c.Auth, v)
}

// printable is s without what could steer a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
}

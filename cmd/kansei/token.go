package main

import (
	"fmt"
	"io"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/protocol"
)

type tokenCommand struct {
	config.Auth
	config.File
	Room []string      `required:"" placeholder:"ROOM" help:"Room that the token is for; repeatable, * for all."`
	User string        `required:"" placeholder:"ID" help:"Id of the user, 1 to 64 bytes."`
	Name string        `placeholder:"NAME" help:"Name that others see. Default: the id."`
	Role string        `default:"viewer" enum:"viewer,monitor,moderator,broadcaster" help:"Standing of the user: ${enum}."`
	TTL  time.Duration `default:"2h" name:"ttl" help:"How long the token holds."`
}

// Run prints a token, and nothing else.
func (c *tokenCommand) Run(stdout io.Writer) error {
	secret, err := loadSecret(c.Auth)
	if err != nil {
		return err
	}
	name := c.Name
	if name == "" {
		name = c.User
	}
	token, err := auth.Mint(secret, auth.Claims{
		Subject: c.User, Name: name, Role: protocol.Role(c.Role), Rooms: c.Room,
	}, c.TTL)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, token)
	return err
}

// loadSecret returns the secret of the settings or their file, of two the one in use, or that
// of the data directory, made if there is none.
func loadSecret(c config.Auth) ([]byte, error) {
	secrets, err := authSecrets(c)
	if err != nil {
		return nil, err
	}
	if len(secrets) > 0 {
		return secrets[0], nil
	}
	secret, err := auth.LoadOrMakeSecret(c.DataDir, auth.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	return secret, nil
}

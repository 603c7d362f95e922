package config

import (
	"slices"
	"strings"
	"testing"
)

func TestChanged(t *testing.T) {
	t.Parallel()
	read := func(file string) Serve {
		c, _, err := parse(t, []string{"serve", "--config=FILE"}, nil, file)
		if err != nil {
			t.Fatal(err)
		}
		return c.Serve.Serve
	}
	secret := "auth-secret: s123456789012345678901234567890123456789\n"
	a := read(secret + "recent: 3\norigin: [https://a.example]\n")
	b := read(secret[:len(secret)-1] + "x\nlog-sync: always\norigin: [https://a.example, https://b.example]\n")
	b.Config = a.Config // each is a file of its own here
	b.Again = func() (Serve, error) { return Serve{}, nil }
	got, err := Changed(a, b)
	if want := []string{"origin", "auth-secret", "log-sync", "recent"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("changed are %v, %v; want %v", got, err, want)
	}
	if got, err := Changed(a, a); err != nil || got != nil {
		t.Errorf("of the same settings %v have changed, %v", got, err)
	}
}

// A secret is given in one way, and two of them count at a time at most.
func TestSecretSettings(t *testing.T) {
	t.Parallel()
	const one, two, three = "11111111111111111111111111111111", "22222222222222222222222222222222", "33333333333333333333333333333333"
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--auth-secret=" + one}, ""},
		{[]string{"--auth-secret=" + one + "," + two}, ""},
		{[]string{"--auth-secret= " + one + " "}, ""}, // as it is
		{[]string{"--auth-secret-file=/x", "--node-secret-file=/y"}, ""},
		{[]string{"--auth-secret-file=/x", "--nats=n:1", "--redis=redis://r:1", "--guests=watch", "--node-secret-file=/y"}, ""},
		{[]string{"--auth-secret=" + one + "," + two[1:]}, "--auth-secret: must have at least 32 bytes each, not 31"},
		{[]string{"--auth-secret=" + one + "," + two + "," + three}, ""},
		{[]string{"--auth-secret=" + strings.Repeat(one+",", 9)}, "--auth-secret: must be one secret, or up to 8 with commas between them, not 9"},
		{[]string{"--auth-secret=,"}, "--auth-secret: must be one secret"},
		{[]string{"--auth-secret=" + one, "--auth-secret-file=/x"}, "--auth-secret-file: must not be given together with --auth-secret"},
		{[]string{"--node-secret=" + one, "--node-secret-file=/x"}, "--node-secret-file: must not be given together with --node-secret"},
		{[]string{"--nats=n:1", "--redis=redis://r:1"}, "--auth-secret: is needed with --nats or --redis"},
		{[]string{"--nats=n:1", "--redis=redis://r:1", "--jwks=https://login.example/jwks"}, ""},
	} {
		_, _, err := parse(t, append([]string{"serve"}, c.args...), nil, "")
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%v: %v; want %q", c.args, err, c.says)
		}
		if err != nil && strings.Contains(err.Error(), two[1:]) {
			t.Errorf("%v: the error tells the secret: %v", c.args, err)
		}
	}
	c, _, err := parse(t, []string{"serve", "--auth-secret=" + one + " , " + two}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Serve.AuthSecrets(); len(got) != 2 || string(got[0]) != one || string(got[1]) != two {
		t.Errorf("the secrets are %q", got)
	}
}

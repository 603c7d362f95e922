package config

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

func TestRefused(t *testing.T) {
	t.Parallel()
	secret := "KANSEI_AUTH_SECRET=" + strings.Repeat("s", 32)
	tests := []struct {
		name string
		args []string
		env  []string
		file string
		want string
	}{
		{"unknown flag", []string{"serve", "--listn=x"}, nil, "", "unknown flag --listn: did you mean --listen?"},
		{"unknown flag, a part of one", []string{"serve", "--presence"}, nil, "", "unknown flag --presence: did you mean --presence-buckets?"},
		{"unknown flag like none", []string{"serve", "--zzzzzzzz"}, nil, "", "unknown flag --zzzzzzzz"},
		{"unknown command", []string{"serv"}, nil, "", "did you mean \"serve\"?"},
		{"unknown variable", serve, []string{"KANSEI_LISTN=x"}, "", "unknown variable KANSEI_LISTN: did you mean KANSEI_LISTEN?"},
		{"all unknown variables", serve, []string{"KANSEI_RAET=1", "KANSEI_LISTN=x"}, "", "unknown variable KANSEI_LISTN: did you mean KANSEI_LISTEN?\nunknown variable KANSEI_RAET: did you mean KANSEI_RATE?"},
		{"unknown variable, to another command", []string{"token", "--room=r"}, []string{"KANSEI_LISTN=x"}, "", "unknown variable KANSEI_LISTN"},
		{"a flag that is no variable", serve, []string{"KANSEI_PRIVATE=x"}, "", "unknown variable KANSEI_PRIVATE"},
		{"unknown key", []string{"serve", "--config=FILE"}, nil, "recent: 3\nmax_text: 3\n", "FILE:2: unknown key max_text: did you mean max-text?"},
		{"a flag that is no setting", []string{"token", "--config=FILE"}, nil, "room: r", "FILE:1: unknown key room"},
		{"a variable without its command", serve, []string{"KANSEI_PACE=fast"}, "", "unknown variable KANSEI_PACE"},
		{"a key of a command without a file", []string{"serve", "--config=FILE"}, nil, "trace: x", "FILE:1: unknown key trace"},
		{"the file in the file", []string{"serve", "--config=FILE"}, nil, "config: x", "FILE:1: unknown key config"},
		{"a key twice", []string{"serve", "--config=FILE"}, nil, "recent: 3\n\nrecent: 4", "FILE:3: recent is there twice, on line 1 too"},
		{"no file", []string{"serve", "--config=FILE"}, nil, "", "--config: open FILE: no such file"},
		{"no YAML", []string{"serve", "--config=FILE"}, nil, "a: [", "FILE: yaml: line 1"},
		{"a list for a file", []string{"serve", "--config=FILE"}, nil, "- a\n", "FILE:1: must be settings"},
		{"two documents", []string{"serve", "--config=FILE"}, nil, "recent: 3\n---\nrecent: 4\n", "FILE: there must be one document in it"},

		{"bad number", []string{"serve", "--recent=many"}, nil, "", "--recent: must be a whole number, not \"many\""},
		{"no number", []string{"serve", "--recent"}, nil, "", "--recent: needs a number"},
		{"bad number in a variable", serve, []string{"KANSEI_RATE=fast"}, "", "KANSEI_RATE: must be a number, not \"fast\""},
		{"bad duration in the file", []string{"serve", "--config=FILE"}, nil, "\nbeat: 30", "FILE:2: beat: must be a duration such as 250ms, 30s or 2h, not \"30\""},
		{"bad bool", serve, []string{"KANSEI_DEMO=maybe"}, "", "KANSEI_DEMO: bool value must be true"},
		{"a list for a value", []string{"serve", "--config=FILE"}, nil, "recent: [1]", "FILE:1: recent: must be one value, not a list"},
		{"a mapping for a value", []string{"serve", "--config=FILE"}, nil, "origin: {a: b}", "FILE:1: origin: must be one value, not a mapping"},
		{"a mapping in a list", []string{"serve", "--config=FILE"}, nil, "origin: [{a: b}]", "FILE:1: origin: value 1 of the list: must be one value, not a mapping"},
		{"a list in a list", []string{"serve", "--config=FILE"}, nil, "nats: [nats://a, [nats://b]]", "FILE:1: nats: value 2 of the list: must be one value, not a list"},
		{"a number in a list", []string{"serve", "--config=FILE"}, nil, "host: [a.example, 12]", "FILE:1: host: value 2 of the list: must be text, not a number: put it in quotes"},
		{"nothing in a list", []string{"serve", "--config=FILE"}, nil, "redis:\n  - redis://a\n  -\n", "FILE:1: redis: value 2 of the list: must be text, not nothing"},
		{"an empty value in a list", []string{"serve", "--config=FILE"}, nil, "redis: [redis://a, \"\"]", "FILE:1: redis: value 2 of the list: must not be empty"},
		{"a bad value in a list", []string{"serve", "--config=FILE"}, nil, "# one\norigin:\n  - https://a.example\n  - https://a.example/page\n", "FILE:2: origin: must be an origin such as https://example.com, a host such as example.com:8080, null, or * for any, not \"https://a.example/page\""},
		{"a list for one text", []string{"serve", "--config=FILE"}, nil, "data-dir: [a, b]", "FILE:1: data-dir: must be one value, not a list"},
		{"three secrets in a list", []string{"serve", "--config=FILE"}, nil, "node-secret: [" + strings.Repeat("a", 32) + ", " + strings.Repeat("b", 32) + ", " + strings.Repeat("c", 32) + "]", "FILE:1: node-secret: must be one secret, or up to 2 with commas between them, not 3"},
		{"a number for text", []string{"serve", "--config=FILE"}, nil, "data-dir: 12", "FILE:1: data-dir: must be text, not a number: put it in quotes"},
		{"true for text", []string{"serve", "--config=FILE"}, nil, "guests: true", "FILE:1: guests: must be text, not true or false"},
		{"an enumeration of another command", []string{"load"}, []string{"KANSEI_LOAD_PACE=slowly"}, "", "KANSEI_LOAD_PACE: must be fast or slow, not \"slowly\""},
		{"all that is wrong", []string{"serve", "--config=FILE"}, []string{"KANSEI_RATE=x"}, "recent: y\nbear: 1s", "FILE:2: unknown key bear: did you mean beat?\nKANSEI_RATE: must be a number, not \"x\"\nFILE:1: recent: must be a whole number, not \"y\""},

		{"out of range", []string{"serve", "--recent=-1"}, nil, "", "--recent: must be 0 to 1000, not -1"},
		{"out of range in a variable", serve, []string{"KANSEI_RECENT=1001"}, "", "KANSEI_RECENT: must be 0 to 1000, not 1001"},
		{"out of range in the file", []string{"serve", "--config=FILE"}, nil, "# one\nbeat: 2m", "FILE:2: beat: must be 1s to 1m0s, not 2m0s"},
		{"out of range on the command line before the file", []string{"serve", "--config=FILE", "--beat=3m"}, nil, "beat: 2m", "--beat: must be 1s to 1m0s, not 3m0s"},
		{"text that no message holds", []string{"serve", "--max-text=7501"}, nil, "", "--max-text: must be 1 to 7500, not 7501"},
		{"the staff's text", []string{"serve", "--max-text-staff=7501", "--max-message=40000"}, nil, "", "--max-text-staff: must be 1 to 7500, not 7501"},
		{"not a number", []string{"serve", "--rate=NaN"}, nil, "", "--rate: must be 0.001 to 10000, not NaN"},
		{"bad address", []string{"serve", "--listen=8080"}, nil, "", "--listen: must be host:port such as 127.0.0.1:8080, or :8080 for every interface, not \"8080\""},
		{"bad port", []string{"serve", "--ops-listen=:99999"}, nil, "", "--ops-listen: must be host:port"},
		{"one address twice", []string{"serve", "--ops-listen=127.0.0.1:8080"}, nil, "", "--ops-listen: must not be --listen"},
		{"half of TLS", []string{"serve", "--tls-cert=x"}, nil, "", "--tls-key: is needed with --tls-cert"},
		{"the other half", serve, []string{"KANSEI_TLS_KEY=x"}, "", "--tls-cert: is needed with --tls-key"},
		{"guests", serve, []string{"KANSEI_GUESTS=all"}, "", "KANSEI_GUESTS: must be none, watch or comment, not \"all\""},
		{"level", []string{"serve", "--log-level=trace"}, nil, "", "--log-level: must be debug, info, warn or error, not \"trace\""},
		{"sync", []string{"serve", "--log-sync=never"}, nil, "", "--log-sync: must be always or a duration of 10ms to 1h0m0s, not \"never\""},
		{"create", []string{"serve", "--log-create=sometimes"}, nil, "", "--log-create: must be auto or never, not \"sometimes\""},
		{"path in an origin", []string{"serve", "--origin=https://a.example/page"}, nil, "", "--origin: must be an origin such as https://example.com"},
		{"port in a name", []string{"serve", "--ops-host=a.example:80"}, nil, "", "--ops-host: must be the name of a host without a port"},
		{"URL for a name", serve, []string{"KANSEI_HOST=https://a.example"}, "", "KANSEI_HOST: must be the name of a host without a port"},
		{"connections", []string{"serve", "--max-http=-1"}, nil, "", "--max-http: must be 0 to 10000000, not -1"},
		{"replicas without NATS", []string{"serve", "--log-replicas=3"}, nil, "", "--log-replicas: must be 0 or 1 without --nats"},
		{"a weight of nobody", []string{"serve", "--sample-weights=staff=2"}, nil, "", "--sample-weights: must be guest=, user= or member="},
		{"no weight", []string{"serve", "--sample-weights=guest=0"}, nil, "", "--sample-weights: must be guest=, user= or member="},
		{"no name of an event", []string{"serve", "--viewer-events=an answer"}, nil, "", "--viewer-events: a name is 1 to 32"},
		{"too many lasting events", []string{"serve", "--max-lasting=101"}, nil, "", "--max-lasting: must be 0 to 100"},
		{"message too small for its text", []string{"serve", "--max-text-staff=3000"}, nil, "", "--max-message: must be at least 12512"},
		{"no network", []string{"serve", "--trusted-proxy=10.0.0.0/33"}, nil, "", "--trusted-proxy: must be an address such as 10.0.0.1 or a network"},
		{"a name for a proxy", serve, []string{"KANSEI_TRUSTED_PROXY=10.0.0.1,proxy.example"}, "", "KANSEI_TRUSTED_PROXY: must be an address such as 10.0.0.1 or a network such as 10.0.0.0/8 or 2001:db8::/32, not \"proxy.example\""},
		{"a zone in a network", []string{"serve", "--config=FILE"}, nil, "exempt-network: [\"fe80::1%eth0\"]", "FILE:1: exempt-network: must be an address"},
		{"the PROXY protocol of nobody", []string{"serve", "--proxy-protocol"}, nil, "", "--trusted-proxy: is needed with --proxy-protocol"},
		{"a header that is not known", []string{"serve", "--forwarded-header=x-real-ip"}, nil, "", "--forwarded-header: must be x-forwarded-for, forwarded or none, not \"x-real-ip\""},
		{"connections of a user", []string{"serve", "--max-per-user=0"}, nil, "", "--max-per-user: must be 1 to 100000, not 0"},
		{"cluster without a secret", []string{"serve", "--nats=nats://a:4222"}, nil, "", "--auth-secret: is needed with --nats or --redis"},
		{"cluster with guests, without a node secret", []string{"serve", "--nats=nats://a:4222", "--redis=redis://r:6379", "--guests=watch"}, []string{secret}, "", "--node-secret: is needed with --nats and --guests watch"},
		{"short node secret", []string{"serve"}, []string{"KANSEI_NODE_SECRET=swordfish"}, "", "KANSEI_NODE_SECRET: must have at least 32 bytes each, not 9"},
		{"one of two node secrets is short", []string{"serve", "--node-secret=" + strings.Repeat("n", 32) + ",swordfish"}, nil, "", "--node-secret: must have at least 32 bytes each, not 9"},
		{"three node secrets", []string{"serve", "--node-secret=" + strings.Repeat(strings.Repeat("n", 32)+",", 3)}, nil, "", "--node-secret: must be one secret, or up to 2 with commas between them, not 3"},
		{"no node secret", []string{"serve", "--node-secret=,"}, nil, "", "--node-secret: must be one secret, or up to 2 with commas between them, not 0"},
		{"no servers", []string{"serve", "--nats=,"}, []string{secret}, "", "--nats: must be addresses"},
		{"scheme", []string{"serve", "--redis=http://a:1"}, []string{secret}, "", "--redis: must be a URL"},
		{"no home", serve, []string{"HOME="}, "", "--data-dir: is needed"},
		{"missing flag", []string{"token"}, nil, "", "missing flags: --room"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := parse(t, tt.args, tt.env, tt.file)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

// What is wrong with an address is told without what is secret in it.
func TestErrorsTellNoSecrets(t *testing.T) {
	t.Parallel()
	secret := "KANSEI_AUTH_SECRET=" + strings.Repeat("s", 32)
	for _, c := range []struct {
		args []string
		env  []string
		file string
	}{
		{[]string{"serve", "nats://sw0rdfish@a:4222"}, nil, ""},
		{[]string{"serve", "--nats=nats://sw0rdfish@"}, []string{secret}, ""},
		{[]string{"serve", "--nats=nats://ann:sw0rdfish%zz@a"}, []string{secret}, ""},
		{[]string{"serve", "--nats=nats://ann:sw0rdfish/x@a"}, []string{secret}, ""},
		{[]string{"serve", "--nats=http://sw0rdfish@a"}, []string{secret}, ""},
		{[]string{"serve", "--redis=http://:sw0rdfish@a"}, []string{secret}, ""},
		{[]string{"serve", "--recent=redis://:sw0rdfish@a"}, nil, ""},
		{[]string{"serve", "--listen=nats://sw0rdfish@a:4222"}, nil, ""},
		{[]string{"serve", "--origin=https://ann:sw0rdfish@a.example/"}, nil, ""},
		{serve, []string{"KANSEI_GUESTS=redis://:sw0rdfish@a"}, ""},
		{serve, []string{secret, "KANSEI_REDIS=:sw0rdfish@a"}, ""},
		{[]string{"serve", "--config=FILE"}, nil, "nats: [nats://sw0rdfish@a]"},
		{[]string{"serve", "--config=FILE"}, nil, "nats://sw0rdfish@a:4222: x"},
		{[]string{"serve", "--config=FILE"}, nil, "recent: nats://sw0rdfish@a:4222"},
		{[]string{"serve", "--config=FILE"}, nil, "auth-secret: [sw0rdfish]"},
	} {
		if _, _, err := parse(t, c.args, c.env, c.file); err == nil || strings.Contains(err.Error(), "sw0rd") {
			t.Errorf("%q %q %q: %v", c.args, c.env, c.file, err)
		}
	}
}

func TestUsageErrorsExitWithTwo(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"serve", "--nope"}, {"nope"}, {"serve", "--rate=x"}, {"serve", "--rate=0"}, {}} {
		var c commands
		code := -1
		var out bytes.Buffer
		p, err := NewParser(&c, Environ{"HOME=/h"}, kong.Exit(func(n int) { code = n }), kong.Writers(&out, &out))
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Parse(args)
		if _, ok := errors.AsType[*UsageError](err); !ok {
			t.Errorf("%q: error %v; want a UsageError", args, err)
		}
		if p.FatalIfErrorf(err); code != 2 || !strings.HasPrefix(out.String(), "kansei: error: ") {
			t.Errorf("%q: exit code %d, output %q", args, code, out.String())
		}
	}
}

func TestServiceVariablesAreLeftAlone(t *testing.T) {
	t.Parallel()
	env := []string{
		"KANSEI_SERVICE_HOST=10.0.0.1", "KANSEI_SERVICE_PORT=80", "KANSEI_SERVICE_PORT_HTTP=80", "KANSEI_PORT=tcp://10.0.0.1:80",
		"KANSEI_PORT_80_TCP=tcp://10.0.0.1:80", "KANSEI_PORT_80_TCP_PROTO=tcp", "KANSEI_PORT_80_TCP_PORT=80", "KANSEI_PORT_80_TCP_ADDR=10.0.0.1",
		"KANSEI_NATS_SERVICE_HOST=10.0.0.2", "KANSEI_NATS_PORT=tcp://10.0.0.2:4222", "KANSEI_NATS_PORT_4222_TCP=tcp://10.0.0.2:4222",
		"KANSEI_EDGE_OPS_PORT_8081_UDP_ADDR=10.0.0.3",
	}
	c, _, err := parse(t, serve, env, "")
	if err != nil || c.Serve.NATS != "" {
		t.Errorf("with the variables of services: %v, nats %q", err, c.Serve.NATS)
	}
	for _, name := range []string{"KANSEI_PORTS=1", "KANSEI_PORT_X=1", "KANSEI_PORT_80_SMTP=1"} {
		if _, _, err := parse(t, serve, []string{name}, ""); err == nil {
			t.Errorf("%s passes for a service's", name)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"listen", "log-level", "log-format", "max-text", "max-text-staff", "rate", "rate-staff", "ring"}
	for in, want := range map[string]string{
		"listn": "listen", "Listen": "listen", "loglevel": "log-level", "log_level": "log-level", "max.text": "max-text",
		"rate-stuff": "rate-staff", "rnig": "ring", "KANSEI_RING": "ring", "--rings": "ring", "log-lvl": "log-level",
		"": "", "q": "", "completely-different": "", strings.Repeat("x", 200): "",
	} {
		if got := nearest(in, known); got != want {
			t.Errorf("nearest(%q) = %q; want %q", in, got, want)
		}
	}
}

func FuzzFile(f *testing.F) {
	for _, s := range []string{"recent: 3", "a: &x [*x]", "? {a: b}\n: c", "origin: [a, !!binary aGk=]", "<<: {recent: 3}", "recent: !!int x", "---\n---", "rate: .nan\nbeat: 0x1"} {
		f.Add(s)
	}
	var c commands
	p, err := NewParser(&c, Environ{})
	if err != nil {
		f.Fatal(err)
	}
	flags := map[string]*kong.Flag{}
	for _, fl := range p.Model.Children[0].Flags {
		flags[fl.Name] = fl
	}
	f.Fuzz(func(t *testing.T, file string) {
		entries, err := p.readYAML("f", []byte(file))
		if err != nil && err.Error() == "" {
			t.Fatal("an error that says nothing")
		}
		p.found = &found{values: map[string]string{}, sources: map[string]string{}}
		for name := range entries {
			if !slices.Contains(p.keys, name) {
				t.Fatalf("the key %q is let through", name)
			}
			if err := p.choose(flags[name], p.settings[flags[name]], "f", entries); err != nil && !strings.HasPrefix(err.Error(), "f:") {
				t.Fatalf("the error does not say where it is: %v", err)
			}
		}
	})
}

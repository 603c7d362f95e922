package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// commands is a command line as kansei has it.
type commands struct {
	Serve serveCommand `cmd:"" help:"Run a node."`
	Token struct {
		File
		Auth
		Room string `required:"" env:"-" help:"Room."`
	} `cmd:"" help:"Mint a token."`
	Load struct {
		Trace      string  `help:"A trace."`
		Rate       float64 `help:"Comments a second, not those that a viewer may send."`
		AuthSecret string  `env:"KANSEI_AUTH_SECRET" help:"Of the nodes."`
		Pace       string  `enum:"fast,slow" default:"fast" help:"How fast."`
		Private    string  `env:"-" help:"A flag alone."`
	} `cmd:"" help:"Load."`
	Version struct{} `cmd:"" help:"Version."`
}

// serveCommand embeds the settings as cmd/kansei does.
type serveCommand struct{ Serve }

// parse parses a command line with an environment, and a file when it is not empty:
// its path takes the place of FILE.
func parse(t *testing.T, args, env []string, file string) (*commands, string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kansei.yaml")
	if file != "" {
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fill := func(list []string) []string {
		list = slices.Clone(list)
		for i := range list {
			list[i] = strings.ReplaceAll(list[i], "FILE", path)
		}
		return list
	}
	var c commands
	var out bytes.Buffer
	p, err := NewParser(&c, Environ(append([]string{"HOME=/home/u", "PATH=/bin"}, fill(env)...)),
		kong.Writers(&out, &out), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Parse(fill(args))
	if err != nil {
		err = fmt.Errorf("%s", strings.ReplaceAll(err.Error(), path, "FILE"))
	}
	return &c, out.String(), err
}

var serve = []string{"serve"}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, _, err := parse(t, serve, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	want := Serve{
		Listen: "127.0.0.1:8080", OpsListen: "127.0.0.1:8081", ForwardedHeader: "x-forwarded-for", Prefix: "kansei",
		Auth:          Auth{DataDir: "/home/u/.local/state/kansei", DefaultRole: "viewer", MaxTokenAge: 744 * time.Hour},
		LogPartitions: 1, LogCreate: "auto", LogMaxAge: 168 * time.Hour, LogSync: LogSync(time.Second), ModerationKeep: 4320 * time.Hour, AppendTimeout: 12 * time.Second, LiveBuffer: 8192,
		MaxText: 200, MaxTextStaff: 1000, Rate: 1, Burst: 5, RateStaff: 100, BurstStaff: 200, RateGuests: 50, BurstGuests: 200, RateAddress: 200, BurstAddress: 1000, RoomLimit: 2000, MaxSweep: 2000, MaxLasting: 64, AddressHashes: true, MaxMessage: 8192,
		MaxViewers: 50000, MaxReadRooms: 1000, MaxPerUser: 32, MaxPerAddress: 4000, Recent: 50, RecoverMax: 10000, Beat: 30 * time.Second, Drain: 20 * time.Second, RoomRate: 500,
		Coalesce: 90 * time.Millisecond, Ring: 256, Compress: true, PresenceLease: 6 * time.Second,
		PresenceEvents: true, PresenceWait: 10 * time.Second, PresenceSeen: 100_000, PresenceKeep: 720 * time.Hour, PresenceExact: 10_000, Members: "staff", Watch: "users", WatchKeep: 720 * time.Hour, Archive: Archive{ArchiveSilence: 10 * time.Minute, ArchiveSettle: 2 * time.Minute, ArchiveLate: time.Hour}, Rooms: []string{"any"},
		Log: Log{LogLevel: "info", LogFormat: "text"},
	}
	if got := fmt.Sprintf("%+v", c.Serve.Serve); got != fmt.Sprintf("%+v", want) {
		t.Errorf("the defaults are\n%s\nwant\n%+v", got, want)
	}
	if s := &c.Serve; s.HTTPConnections() != 10_000 {
		t.Errorf("%d connections of HTTP", s.HTTPConnections())
	}
	if s := &c.Serve; !s.Embedded() || s.GuestMode() != "comment" || s.Replicas() != 1 || s.Buckets() != 1 {
		t.Errorf("embedded: %v, guests %s, %d replicas, %d buckets", s.Embedded(), s.GuestMode(), s.Replicas(), s.Buckets())
	}
}

func TestDerivedFromTheEngine(t *testing.T) {
	t.Parallel()
	c, _, err := parse(t, []string{"serve", "--nats=nats://a:4222, b:4222", "--redis=redis://r:6379", "--auth-secret=" + strings.Repeat("x", 32)}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	s := &c.Serve
	if s.Embedded() || s.GuestMode() != "none" || s.Replicas() != 3 || s.Buckets() != 64 {
		t.Errorf("embedded: %v, guests %s, %d replicas, %d buckets", s.Embedded(), s.GuestMode(), s.Replicas(), s.Buckets())
	}
	if got := s.NATSServers(); !slices.Equal(got, []string{"nats://a:4222", "b:4222"}) {
		t.Errorf("NATS servers %q", got)
	}
	if got := s.NodeSecrets(); len(got) != 0 {
		t.Errorf("%d node secrets", len(got))
	}
	one, two := strings.Repeat("1", 32), strings.Repeat("2", 32)
	s.NodeSecret = Secret(one + ", " + two)
	if got := s.NodeSecrets(); len(got) != 2 || string(got[0]) != one || string(got[1]) != two || s.Validate() != nil {
		t.Errorf("node secrets %q, %v", got, s.Validate())
	}
	s.Guests, s.LogReplicas, s.PresenceBuckets = "watch", 5, 8
	if s.GuestMode() != "watch" || s.Replicas() != 5 || s.Buckets() != 8 {
		t.Errorf("what is set does not hold: guests %s, %d replicas, %d buckets", s.GuestMode(), s.Replicas(), s.Buckets())
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	file := `
# what everybody here has
max-text: 301
recent: 31          # a comment
rate: 2.5
compress: false
beat: 40s
log-sync: always
origin: [https://a.example, "https://b.example"]
redis:
listen: &l "127.0.0.1:9000"
ops-listen: "127.0.0.1:9001"
`
	c, _, err := parse(t, []string{"serve", "--config", "FILE", "--max-text=303"},
		[]string{"KANSEI_MAX_TEXT=302", "KANSEI_RECENT=32", "KANSEI_RATE=", "KANSEI_TRACE=x"}, file)
	if err != nil {
		t.Fatal(err)
	}
	s := &c.Serve
	if s.MaxText != 303 || s.Recent != 32 || s.Rate != 2.5 || s.Burst != 5 {
		t.Errorf("max-text %d, recent %d, rate %v, burst %d; want the flag's 303, the variable's 32, the file's 2.5, the default 5", s.MaxText, s.Recent, s.Rate, s.Burst)
	}
	if s.Compress || s.Beat != 40*time.Second || !s.LogSync.Always() || s.Redis != "" || s.Listen != "127.0.0.1:9000" {
		t.Errorf("the file is not what it says: %+v", s.Serve)
	}
	if !slices.Equal(s.Origin, []string{"https://a.example", "https://b.example"}) {
		t.Errorf("origins %q", s.Origin)
	}

	// The variable that names the file; a list in a variable; --no-.
	c, _, err = parse(t, []string{"serve", "--no-compress"}, []string{"KANSEI_CONFIG=FILE", "KANSEI_ORIGIN=https://c.example,d.example", "KANSEI_COMPRESS=yes"}, file)
	if err != nil {
		t.Fatal(err)
	}
	if s := &c.Serve; s.MaxText != 301 || s.Compress || !slices.Equal(s.Origin, []string{"https://c.example", "d.example"}) {
		t.Errorf("max-text %d, compress %v, origins %q", s.MaxText, s.Compress, s.Origin)
	}
}

// Whatever takes several values takes a list in the file, in both forms that YAML has for one.
func TestLists(t *testing.T) {
	t.Parallel()
	one, two := strings.Repeat("1a", 16), strings.Repeat("2b", 16)
	c, _, err := parse(t, []string{"serve", "--config=FILE"}, []string{"KANSEI_AUTH_SECRET=" + one}, `
nats: [&first "nats://10.0.0.1:4222", "nats://10.0.0.2:4222"]
redis:
  - redis+sentinel://10.0.0.1:26379/?master_name=kansei
  - redis+sentinel://10.0.0.2:26379
node-secret: [`+one+`, `+two+`]
origin: [https://a.example, "b.example:8080"]
host: [a.example]
ops-host:
  - "*"
trusted-proxy: [10.0.0.1, "10.1.0.0/16"]
exempt-network: []
`)
	if err != nil {
		t.Fatal(err)
	}
	s := &c.Serve
	for name, tt := range map[string]struct{ got, want []string }{
		"nats":           {s.NATSServers(), []string{"nats://10.0.0.1:4222", "nats://10.0.0.2:4222"}},
		"redis":          {[]string{s.Redis}, []string{"redis+sentinel://10.0.0.1:26379/?master_name=kansei,redis+sentinel://10.0.0.2:26379"}},
		"node-secret":    {[]string{string(s.NodeSecret)}, []string{one + "," + two}},
		"origin":         {s.Origin, []string{"https://a.example", "b.example:8080"}},
		"host":           {s.Host, []string{"a.example"}},
		"ops-host":       {s.OpsHost, []string{"*"}},
		"trusted-proxy":  {s.TrustedProxy, []string{"10.0.0.1", "10.1.0.0/16"}},
		"exempt-network": {s.ExemptNetwork, nil},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s is %q, want %q", name, tt.got, tt.want)
		}
	}
	if c, _, err := parse(t, []string{"serve", "--config=FILE"}, nil, "nats: []\nredis: []\norigin: []\n"); err != nil || !c.Serve.Embedded() || len(c.Serve.Origin) != 0 {
		t.Errorf("empty lists: %v, %+v", err, c.Serve.Serve)
	}
}

func TestCommandsShareSettings(t *testing.T) {
	t.Parallel()
	// A file for a node serves the other commands too.
	file := "listen: \":9000\"\nauth-secret: " + strings.Repeat("s", 40) + "\n"
	c, _, err := parse(t, []string{"token", "--config=FILE", "--room=r"}, []string{"KANSEI_DATA_DIR=/d", "KANSEI_RATE=3"}, file)
	if err != nil || len(c.Token.AuthSecret) != 40 || c.Token.DataDir != "/d" {
		t.Errorf("token: %v, %d bytes of secret, data-dir %q", err, len(c.Token.AuthSecret), c.Token.DataDir)
	}
	c, _, err = parse(t, []string{"load", "--private=p"}, []string{"KANSEI_TRACE=x", "KANSEI_LOAD_TRACE=t", "KANSEI_LOAD_RATE=7", "KANSEI_RATE=3", "KANSEI_AUTH_SECRET=s"}, "")
	if err != nil || c.Load.Trace != "t" || c.Load.Rate != 7 || c.Load.Private != "p" || c.Load.AuthSecret != "s" {
		t.Errorf("load: %v, %+v", err, c.Load)
	}
	if _, _, err := parse(t, []string{"version"}, []string{"KANSEI_NONSENSE=1"}, ""); err != nil {
		t.Errorf("version: %v", err)
	}
}

func TestNewParserRefusesServiceVariables(t *testing.T) {
	t.Parallel()
	var c struct {
		NatsPort int `help:"A port."`
	}
	if _, err := NewParser(&c); err == nil || !strings.Contains(err.Error(), "KANSEI_NATS_PORT") {
		t.Errorf("a flag with a service's variable: %v", err)
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	t.Parallel()
	const secret = "swordfish-swordfish-swordfish-swordfish"
	var log bytes.Buffer
	c, help, err := parse(t, []string{"serve", "--auth-secret=" + secret, "--node-secret=" + secret}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if string(c.Serve.AuthSecret) != secret {
		t.Errorf("the secret is %d bytes", len(c.Serve.AuthSecret))
	}
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", c.Serve.AuthSecret, "node", c.Serve.NodeSecret, "all", c.Serve.Auth)
	js, _ := json.Marshal(c.Serve)
	shown := []string{help, log.String(), string(js), fmt.Sprint(c.Serve), fmt.Sprintf("%+v %#v %q %s", c.Serve.Auth, c.Serve.Auth, c.Serve.AuthSecret, c.Serve.AuthSecret)}
	for _, bad := range []struct{ args, env []string }{
		{[]string{"serve", "--auth-secret=swordfish"}, nil},
		{serve, []string{"KANSEI_AUTH_SECRET=swordfish"}},
		{[]string{"serve", "--node-secret=swordfish," + secret}, nil},
		{serve, []string{"KANSEI_NODE_SECRET=" + secret + "," + secret + "," + secret}},
		{[]string{"serve", "--config=FILE"}, nil},
		{[]string{"serve", "--nats=nats://u:swordfish@a:x"}, nil},
		{[]string{"serve", "--redis=http://:swordfish@a"}, nil},
	} {
		_, out, err := parse(t, bad.args, bad.env, "auth-secret: [swordfish]")
		if err == nil {
			t.Errorf("%q %q is not refused", bad.args, bad.env)
			continue
		}
		shown = append(shown, out, err.Error())
	}
	for _, s := range shown {
		if strings.Contains(s, "swordfish") {
			t.Errorf("a secret is shown: %s", s)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	_, help, _ := parse(t, []string{"serve", "--help"}, []string{"KANSEI_NONSENSE=1"}, "")
	for _, want := range []string{"Room log:", "--[no-]compress", "--listen=127.0.0.1:8080", "--max-text=200", "KANSEI_DATA_DIR"} {
		if !strings.Contains(help, want) {
			t.Errorf("the help does not say %s:\n%s", want, help)
		}
	}
	for _, f := range strings.Split(help, "\n") {
		if len(f) > 80 {
			t.Errorf("a line of the help is %d wide: %s", len(f), f)
		}
	}
}

func TestMarkdownListsEverySetting(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := Markdown(&b); err != nil {
		t.Fatal(err)
	}
	var c commands
	p, err := NewParser(&c, Environ{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range p.Model.Children[0].Flags {
		if f.Name == "help" {
			continue
		}
		n++
		row := fmt.Sprintf("--%s` | `%s` |", f.Name, variable(f.Name))
		if no := strings.Replace(row, "--", "--[no-]", 1); !strings.Contains(b.String(), row) && !strings.Contains(b.String(), no) {
			t.Errorf("no row for --%s", f.Name)
		}
		if f.Group == nil || f.Group.Title == f.Group.Key {
			t.Errorf("--%s stands under no heading", f.Name)
		}
		if strings.Count(f.Help, ". ") > 0 || !strings.HasSuffix(f.Help, ".") {
			t.Errorf("the help of --%s is not one sentence: %s", f.Name, f.Help)
		}
	}
	if n < 35 {
		t.Errorf("%d settings", n)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	s := Serve{}
	check := func(name string) bool {
		var p Problems
		s.validateNetwork(&p)
		return !slices.ContainsFunc(p, func(q Problem) bool { return q.Name == name })
	}
	for in, want := range map[string]bool{
		"redis://r:6379": true, "rediss://u:p%40@r/1": true, "unix:///run/redis.sock": true, "redis://a,b:7000": true,
		"redis+sentinel://a:26379,b/0?master_name=m": true, "redis+cluster://a": true,
		"r:6379": false, "http://r": false, "redis://": false, "redis:///1": false,
	} {
		if s.Redis = in; check("redis") != want {
			t.Errorf("--redis=%s: allowed is %v", in, !want)
		}
	}
	for in, want := range map[string]bool{
		"nats://n:4222": true, "n:4222,tls://u:p@m": true, "wss://n/x": true, " n , ": true,
		"http://n": false, ",": false, "nats://": false, "nats://n,redis://m": false,
	} {
		if s.NATS = in; check("nats") != want {
			t.Errorf("--nats=%s: allowed is %v", in, !want)
		}
	}
	for in, want := range map[string]bool{
		"*": true, "null": true, "https://a.example": true, "https://a.example:8443/": true, "a.example": true, "a.example:80": true, "http://[::1]:80": true,
		"": false, "https://a/b": false, "https://*.a": false, "https://u@a": false, "https://": false, "a b": false, "https://a?q": false, "/a": false, ":80": false,
	} {
		if s.Origin = []string{in}; check("origin") != want {
			t.Errorf("--origin=%s: allowed is %v", in, !want)
		}
	}
	for in, want := range map[string]bool{
		"https://a.example": true, "http://a.example:8080/live/": true, "https://[::1]": true, "https://a.example/a/b": true,
		"": false, "a.example": false, "ftp://a": false, "https://": false, "https:///live": false, "https://u:p@a": false, "https://a?q": false,
		"https://a/?": false, "https://a/#x": false, "https://a/#": false, "https://*.a": false, "https://a:b": false, "*": false,
	} {
		if s.PublicURL = []string{in}; check("public-url") != want {
			t.Errorf("--public-url=%s: allowed is %v", in, !want)
		}
	}
	s.PublicURL, s.Origin, s.Host = []string{"https://a.example/live//", "http://b.example:8080"}, []string{"null"}, []string{"c"}
	if got := fmt.Sprint(s.PublicURLs(), s.Origins(), s.Hosts()); got != "[https://a.example/live http://b.example:8080] [null https://a.example http://b.example:8080] [c a.example b.example]" {
		t.Error(got)
	}
	for in, want := range map[string]bool{
		":8080": true, "127.0.0.1:0": true, "[::1]:80": true, "host:65535": true,
		"": false, "host": false, "host:http": false, "host:65536": false, "a:b:1": false,
	} {
		if s.Listen = in; check("listen") != want {
			t.Errorf("--listen=%s: allowed is %v", in, !want)
		}
	}
}

func TestDataDir(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ env, want string }{
		{"XDG_STATE_HOME=/x", "/x/kansei"},
		{"XDG_STATE_HOME=relative", "/home/u/.local/state/kansei"},
		{"KANSEI_DATA_DIR=/d", "/d"},
	} {
		if c, _, err := parse(t, serve, []string{tt.env}, ""); err != nil || c.Serve.DataDir != tt.want {
			t.Errorf("%s: data-dir %q, %v; want %q", tt.env, c.Serve.DataDir, err, tt.want)
		}
	}
}

func TestLogger(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	l := (&Log{LogLevel: "warn", LogFormat: "json"}).Logger(&b)
	l.Info("no")
	l.Warn("yes", "n", 1)
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line["msg"] != "yes" {
		t.Errorf("logged %q, %v", b.String(), err)
	}
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	c, _, err := parse(t, []string{"serve", "--trusted-proxy=10.1.2.3", "--trusted-proxy=10.1.2.3/8", "--trusted-proxy=fd00::1/8"},
		[]string{"KANSEI_EXEMPT_NETWORK=::ffff:192.0.2.0/120,::ffff:192.0.2.1,2001:db8::1"}, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.Serve.Proxies()); got != "[10.1.2.3/32 10.0.0.0/8 fd00::/8]" {
		t.Errorf("the proxies are %s", got)
	}
	// IPv4 in IPv6 is IPv4, as the addresses are that are compared with it.
	if got := fmt.Sprint(c.Serve.Exempt()); got != "[192.0.2.0/24 192.0.2.1/32 2001:db8::1/128]" {
		t.Errorf("the exceptions are %s", got)
	}
	for _, s := range []string{"", "/", "10.0.0.0/", "::ffff:0.0.0.0/95", "10.0.0.1/33", "10.0.0", "fe80::%x/64", "*"} {
		if n, err := network(s); err == nil {
			t.Errorf("%q is the network %v", s, n)
		}
	}
}

func TestWeights(t *testing.T) {
	t.Parallel()
	s := Serve{SampleWeights: []string{"guest=2", "member=10"}}
	if w := s.Weights(); w["guest"] != 2 || w["user"] != 1 || w["member"] != 10 {
		t.Errorf("%v", w)
	}
}

// However small --max-message is, the longest comment with its data fits, and an event.
func TestLargestMessage(t *testing.T) {
	t.Parallel()
	for want, s := range map[int]Serve{
		8192: {MaxMessage: 8192, MaxText: 200, MaxTextStaff: 1000}, 4096 + 512: {MaxMessage: 600, MaxText: 20},
		4*7500 + 512 + 1024: {MaxMessage: 31_000, MaxText: 7500},
	} {
		if got := s.LargestMessage(); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/internal/config"
)

const unitFile = "../../deploy/systemd/kansei.service"

// unit reads a unit of systemd: "Section.Key" to its values.
func unit(t *testing.T, path string) map[string][]string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found, section := map[string][]string{}, ""
	for i, line := range strings.Split(string(raw), "\n") {
		line = strings.TrimSpace(line)
		key, value, pair := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			section = line[1 : len(line)-1]
		case pair:
			found[section+"."+key] = append(found[section+"."+key], value)
		default:
			t.Errorf("%s:%d: %s", path, i+1, line)
		}
	}
	return found
}

// The unit of systemd starts a node with settings that there are, and leaves it the
// time and the open files that it needs with the defaults.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	u := unit(t, unitFile)
	one := func(key string) string {
		t.Helper()
		if len(u[key]) != 1 {
			t.Fatalf("%s is there %d times", key, len(u[key]))
		}
		return u[key][0]
	}
	const program, file = "/usr/local/bin/kansei", "/etc/kansei/kansei.yaml"
	args := strings.Fields(one("Service.ExecStart"))
	if args[0] != program || !slices.Contains(args, file) {
		t.Errorf("it starts %q", args)
	}
	settings := filepath.Join(t.TempDir(), "kansei.yaml")
	if err := os.WriteFile(settings, []byte("listen: \":8080\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args[slices.Index(args, file)] = settings
	var all commands
	p, err := config.NewParser(&all, config.Environ{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(args[1:]); err != nil {
		t.Fatalf("kansei %q: %v", args[1:], err)
	}
	cfg := &all.Serve.Serve
	if cfg.Listen != ":8080" || cfg.DataDir != "/var/lib/"+one("Service.StateDirectory") {
		t.Errorf("it listens on %s, and keeps its data in %s", cfg.Listen, cfg.DataDir)
	}
	if seconds, err := strconv.Atoi(one("Service.TimeoutStopSec")); err != nil || time.Duration(seconds)*time.Second != cfg.Drain+15*time.Second {
		t.Errorf("TimeoutStopSec=%d, %v; a node takes up to %v and some more", seconds, err, cfg.Drain+graceAfterDrain)
	}
	if files, err := strconv.Atoi(one("Service.LimitNOFILE")); err != nil || files <= wantedDescriptors(cfg).Sum() {
		t.Errorf("LimitNOFILE=%d, %v; a node needs more than %d", files, err, wantedDescriptors(cfg).Sum())
	}
	if one("Service.KillSignal") != "SIGTERM" || !strings.Contains(one("Service.ExecReload"), "-HUP $MAINPID") {
		t.Error("its signals are not those of a node")
	}
	if one("Service.Restart") != "on-failure" { // a node that was drained ends with 0
		t.Errorf("Restart=%s", one("Service.Restart"))
	}
	doc, err := os.ReadFile("../../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"deploy/systemd/kansei.service", program, file, strings.TrimPrefix(one("Service.EnvironmentFile"), "-")} {
		if !strings.Contains(string(doc), want) {
			t.Errorf("docs/OPERATING.md does not name %s", want)
		}
	}
}

// systemd itself has nothing to say about the unit, where it is there to be asked.
func TestSystemdVerifies(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return // not on other systems than Linux; TestSystemdUnit has read it
	}
	this, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	verify := func(text string) string {
		// The program must be there.
		text = strings.ReplaceAll(text, "/usr/local/bin/kansei", this)
		path := filepath.Join(t.TempDir(), "kansei.service")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", path).CombinedOutput()
		if err != nil {
			return string(out) + err.Error()
		}
		return string(out)
	}
	if said := verify(string(raw)); said != "" {
		t.Errorf("systemd-analyze: %s", said)
	}
	if said := verify(strings.Replace(string(raw), "RestartSec=", "RestartSek=", 1)); !strings.Contains(said, "RestartSek") {
		t.Errorf("systemd-analyze finds nothing: %q", said)
	}
}

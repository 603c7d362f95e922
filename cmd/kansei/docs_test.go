package main

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.yaml.in/yaml/v3"

	"github.com/kansei-live/kansei/internal/config"
)

var update = flag.Bool("update", false, "write docs/SETTINGS.md anew")

func TestSettingsPageIsCurrent(t *testing.T) {
	t.Parallel()
	const page = "../../docs/SETTINGS.md"
	var want bytes.Buffer
	if err := config.Markdown(&want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(page, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/SETTINGS.md is not what `kansei settings` prints: go test ./cmd/kansei -run Settings -update")
	}
}

// Every metric has a good name and stands in the operators' document.
func TestMetrics(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	_, body := n.get(n.ops + "/metrics")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	page, err := os.ReadFile("../../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^# HELP (kansei_\w+)`).FindAllStringSubmatch(body, -1)
	if len(found) < 20 {
		t.Errorf("only %d metrics", len(found))
	}
	for _, m := range found {
		if !bytes.Contains(page, []byte("`"+m[1])) {
			t.Errorf("docs/OPERATING.md has no %s", m[1])
		}
	}
}

// The alerts of the operators' document are rules as Prometheus reads them, over metrics and
// labels that a node has.
func TestAlerts(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(groups:.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("no alerts in docs/OPERATING.md")
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Annotations, Labels map[string]string
			}
		}
	}
	d := yaml.NewDecoder(bytes.NewReader(block[1]))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	n := runNode(t)
	_, body := n.get(n.ops + "/metrics")
	rules := 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			rules++
			if _, err := time.ParseDuration(r.For); err != nil || r.Alert == "" {
				t.Errorf("%s: %v", r.Alert, err)
			}
			for _, metric := range regexp.MustCompile(`kansei_\w+`).FindAllString(r.Expr, -1) {
				if !strings.Contains(body, "\n"+metric+"{") && !strings.Contains(body, "\n"+metric+" ") {
					t.Errorf("%s: a node has no %s", r.Alert, metric)
				}
			}
		}
	}
	if rules < 3 {
		t.Errorf("only %d rules", rules)
	}
	for _, part := range []string{"edge", "nats", "redis"} {
		n.shows(`kansei_ready{part="`+part+`"} 1`, "")
		n.shows(`kansei_degraded{part="`+part+`"} 0`, "")
	}
}

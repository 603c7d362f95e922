package main

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

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

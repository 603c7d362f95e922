package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kansei-live/kansei/"

// Imports run one way: protocol ← hub ← adapters ← edge ← cmd. The outside world
// (client, loadtest) knows the protocol alone.
func TestImportsRunOneWay(t *testing.T) {
	t.Parallel()
	adapters := []string{
		"internal/auth", "internal/clientaddr", "internal/config", "internal/embedded", "internal/natslog",
		"internal/redispresence", "internal/reload", "internal/socket",
	}
	tools := []string{"internal/descriptors", "internal/health", "internal/private", "internal/quiet", "internal/redact", "internal/text"}
	allowed := map[string][]string{
		"protocol":       {},
		"hub":            {"protocol"},
		"client":         {"protocol"},
		"web":            {"protocol"},
		"loadtest":       {"protocol", "client"},
		"loadtest/audit": {},
		"loadtest/crowd": {"protocol", "client", "loadtest", "loadtest/audit"},
		"loadtest/bench": {"protocol", "client", "loadtest"},
		"internal/demo":  {"protocol", "client", "loadtest"},

		"docs/examples/presence": {"protocol"}, // as a back end of somebody else's
		"internal/edge":          slices.Concat([]string{"protocol", "hub", "internal/access", "internal/lasting", "internal/moderation", "internal/watchlog"}, adapters, tools),

		"internal/credentials":      {"internal/config", "internal/private"},
		"internal/jwks":             {"internal/auth"},
		"internal/access":           {"internal/auth"},
		"internal/lasting":          {"hub"},
		"internal/moderation":       {"protocol", "hub"},
		"internal/watchlog":         {"protocol"},
		"internal/archive":          {"protocol", "hub", "internal/redact", "internal/watchlog"},
		"internal/natslog/natsconn": {"internal/quiet", "internal/redact"},
	}
	for _, a := range adapters {
		allowed[a] = append([]string{"protocol", "hub"}, tools...)
	}
	allowed["internal/natslog"] = append(allowed["internal/natslog"], "internal/natslog/natsconn")
	for _, a := range tools {
		allowed[a] = []string{}
	}
	for path, imports := range packages(t) {
		if product := !strings.HasPrefix(path, "test/") && !strings.HasPrefix(path, "deploy/"); product {
			for _, i := range imports {
				if strings.HasPrefix(i, module+"test/") {
					t.Errorf("%s imports %s: the product knows nothing of its tests", path, i)
				}
			}
		}
		may, known := allowed[path]
		if !known {
			switch {
			case strings.HasPrefix(path, "cmd/"), strings.HasPrefix(path, "deploy/"), strings.HasPrefix(path, "test/"):
				continue // builds the graph, starts processes, or is for tests
			}
			t.Errorf("%s is not on the map: say here what it may import", path)
			continue
		}
		for _, i := range imports {
			if own, ok := strings.CutPrefix(i, module); ok {
				if !slices.Contains(may, own) {
					t.Errorf("%s imports %s", path, own)
				}
				continue
			}
			outside := strings.Contains(strings.Split(i, "/")[0], ".")
			switch {
			case path == "protocol" && outside:
				t.Errorf("protocol imports %s: it is for the standard library alone", i)
			case path == "hub" && (i == "net" || strings.HasPrefix(i, "net/") || strings.Contains(i, "nats") || strings.Contains(i, "redis") || strings.Contains(i, "websocket")):
				t.Errorf("hub imports %s: it knows nothing of networks", i)
			}
		}
	}
}

// packages returns what each package of the module imports, without its tests.
func packages(t *testing.T) map[string][]string {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string][]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(p.ImportPath, module)] = p.Imports
	}
}

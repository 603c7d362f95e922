package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// script is a run as testdata/play.mjs reads it.
type script struct {
	ID      int            `json:"id"`
	URL     string         `json:"url"`
	Offer   bool           `json:"offer"`
	Options map[string]any `json:"options,omitempty"`
	Steps   []step         `json:"steps"`
}

// scripts is everything that such a client gets.
func (h *house) scripts(t *testing.T) []byte {
	ca, _, _ := h.certificate()
	all := struct {
		CA        string   `json:"ca"`
		Protocols []string `json:"protocols"`
		Runs      []script `json:"runs"`
	}{CA: ca, Protocols: subprotocols()}
	for _, r := range h.runs {
		all.Runs = append(all.Runs, script{r.id, r.url(), r.mode.offer, r.mode.options, r.steps})
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// playLimit bounds a whole client that is another process.
const playLimit = 3 * time.Minute

// playNode plays with Node's ws.
func playNode(t *testing.T, table []scenario) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("there is no node in PATH: install Node.js 20 or later, then run make setup: %v", err)
	}
	if _, err := os.Stat("node_modules/ws"); err != nil {
		t.Fatalf("run make setup: %v", err)
	}
	const can = fragments | pings | codes | newCodes
	h := newHouse(t)
	h.add(table, can, []mode{
		{name: "not asked for", agree: true},
		{name: "declined", offer: true},
		{name: "agreed", offer: true, agree: true},
	})
	for i := range table {
		if table[i].name == "the same again" {
			for _, m := range parameters() {
				h.addRun(&table[i], byTCP, m)
			}
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), playLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "testdata/ws.mjs")
	cmd.Stdin = bytes.NewReader(h.scripts(t))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("%s: %v\n%s", cmd, err, &stderr)
	}
	reports := make([]*report, len(h.runs))
	for lines := json.NewDecoder(&stdout); lines.More(); {
		var p report
		if err := lines.Decode(&p); err != nil || p.ID < 0 || p.ID >= len(reports) {
			t.Fatalf("report %d: %v", p.ID, err)
		}
		reports[p.ID] = &p
	}
	h.check(t, reports, can)
}

// parameters are the offers of permessage-deflate that ws can make. The server's
// frames, deflated once for all, need a window of 15 bits, so that it has to decline
// the offers that allow less.
func parameters() []mode {
	var out []mode
	for _, serverTakeover := range []any{nil, true} {
		for _, clientTakeover := range []any{nil, true} {
			for _, serverBits := range []any{nil, 8, 12, 15} {
				for _, clientBits := range []any{nil, false, 8, 12, 15} {
					m := mode{offer: true, agree: serverBits == nil || serverBits == 15, options: map[string]any{
						"serverNoContextTakeover": serverTakeover, "clientNoContextTakeover": clientTakeover,
						"serverMaxWindowBits": serverBits, "clientMaxWindowBits": clientBits,
					}}
					m.name = strings.ReplaceAll(fmt.Sprint("offer ", serverTakeover, clientTakeover, serverBits, clientBits), "<nil>", "-")
					out = append(out, m)
				}
			}
		}
	}
	return out
}

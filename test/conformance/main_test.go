// Package conformance checks internal/socket against WebSocket clients that others
// have written: Chromium, Firefox where Debian has it, Node's ws, gorilla/websocket and
// coder/websocket.
//
// There is one table of scenarios: what the server sends at once, what the client
// does step by step, how it ends. Each client plays all that it is able to do, with
// permessage-deflate agreed on, declined and not asked for, over three ways that
// differ in how the server reads and writes: TCP, which on Linux is read when epoll
// says so; TCP whose descriptor the server does not see, which a goroutine reads and
// writes, as on other systems; and TLS in process.
//
// A client reports what it saw, and that is compared with what the table says and
// with what the server saw. The clients in Go play within the test. testdata/play.mjs
// plays in Node and in the browsers; these are driven by nothing but a page that
// fetches its part of the table from the test and posts its reports.
package conformance

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a client for one thing; it is never what is measured.
const patience = 30 * time.Second

// subprotocols are those that a viewer's page offers, the second of which bears its
// token.
func subprotocols() []string { return []string{protocol.Subprotocol, protocol.BearerPrefix + "x"} }

// TestClients has every client play every scenario that it can.
func TestClients(t *testing.T) {
	t.Parallel()
	table := scenarios(t)
	for name, play := range map[string]func(*testing.T, []scenario){
		"chromium": playChromium,
		"firefox":  playFirefox,
		"ws":       playNode,
		"gorilla":  playGorilla,
		"coder":    playCoder,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, table)
		})
	}
}

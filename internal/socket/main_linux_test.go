package socket

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if what := os.Getenv(peersEnv); what != "" {
		if err := runPeers(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// paths are the ways in which a TCP connection is held.
var paths = []path{{"descriptor", false}, {"portable", true}}

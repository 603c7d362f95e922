//go:build !linux

package socket

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// paths are the ways in which a TCP connection is held.
var paths = []path{{"portable", true}}

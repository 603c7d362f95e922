package natslog

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// Kansei reads the log by batched direct gets, and looks for the last messages of many
// subjects in one request, which nats-server answers as of 2.11. An older one takes no
// notice of what it does not know: it answers with some message, or with none, and stores
// comments that nobody can read.
const oldestServer = "2.11"

// serverVersion is where the server that answers for a stream puts its own version; none
// older than 2.11 does.
const serverVersion = "_nats.ver"

var errOldServer = errors.New("kansei needs 2.11 or later on every server")

// checkServer looks at the version of the server that the node is connected to.
func (s *stream) checkServer() error {
	nc := s.l.conn.NATS()
	if nc == nil {
		return natsconn.ErrNotConnected
	}
	if v := nc.ConnectedServerVersion(); v != "" && olderThan(v, oldestServer) {
		return fmt.Errorf("nats-server %s at %s: %w", v, nc.ConnectedUrlRedacted(), errOldServer)
	}
	return nil
}

// checkLeader looks at the version of the server that leads a stream. It may be another
// one than this node is connected to.
func checkLeader(info *jetstream.StreamInfo) error {
	leader := ""
	if info.Cluster != nil && info.Cluster.Leader != "" {
		leader = " " + info.Cluster.Leader
	}
	switch v := info.Config.Metadata[serverVersion]; {
	case v == "":
		return fmt.Errorf("it is led by a nats-server%s older than %s: %w", leader, oldestServer, errOldServer)
	case olderThan(v, oldestServer):
		return fmt.Errorf("it is led by nats-server%s, which is %s: %w", leader, v, errOldServer)
	}
	return nil
}

// olderThan compares two versions by major and minor. A version that cannot be read, such
// as that of somebody's own build, is not older.
func olderThan(version, than string) bool {
	a, ok1 := majorMinor(version)
	b, ok2 := majorMinor(than)
	return ok1 && ok2 && (a[0] < b[0] || a[0] == b[0] && a[1] < b[1])
}

func majorMinor(version string) (v [2]int, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return v, false
	}
	for i := range v {
		n, err := strconv.Atoi(parts[i])
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}

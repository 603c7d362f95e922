//go:build unix

package localcluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// fakeVariable makes the test's own program behave as a node, or as something that
// starts a cluster and waits.
const fakeVariable = "FAKE_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(fakeVariable) {
	case "edge":
		os.Exit(fakeEdge())
	case "parent":
		os.Exit(fakeParent())
	}
	goleak.VerifyTestMain(m)
}

// fakeEdge is a node as far as a cluster can tell: it takes the flags, is ready when
// NATS and Redis take connections, and ends on SIGTERM.
func fakeEdge() int {
	flag := func(name string) string {
		i := slices.Index(os.Args, name)
		if i < 0 || i+1 == len(os.Args) {
			fmt.Println("missing flag", name)
			os.Exit(2)
		}
		return os.Args[i+1]
	}
	if os.Args[1] != "serve" || flag("--log-replicas") != "3" || len(os.Getenv("KANSEI_AUTH_SECRET")) < 32 || len(os.Getenv("KANSEI_NODE_SECRET")) < 32 {
		fmt.Println("not started as a node")
		return 2
	}
	if slices.Contains(os.Args, "--fail") {
		fmt.Println("this node fails because it is told to")
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	backends := strings.Split(flag("--nats"), ",")
	backends = append(backends, flag("--redis"))
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		for _, b := range backends {
			_, address, _ := strings.Cut(b, "://")
			c, err := net.DialTimeout("tcp", address, time.Second)
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			_ = c.Close()
		}
	})
	for _, name := range []string{"--listen", "--ops-listen"} {
		l, err := net.Listen("tcp", flag(name))
		if err != nil {
			fmt.Println(err)
			return 1
		}
		// Ends with the program.
		go func() { _ = http.Serve(l, mux) }()
	}
	if err := os.WriteFile(flag("--data-dir")+"/data", nil, 0o600); err != nil {
		fmt.Println(err)
		return 1
	}
	<-ctx.Done()
	fmt.Println("the fake node ends in order")
	return 0
}

// fakeParent starts a cluster, prints its processes, and waits to be killed.
func fakeParent() int {
	c, err := Start(context.Background(), Config{Edges: -1, Dir: os.Args[1]})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, p := range c.engine() {
		fmt.Println(p.PID())
	}
	fmt.Println("ready")
	time.Sleep(time.Minute)
	return 0
}

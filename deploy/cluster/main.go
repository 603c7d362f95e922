//go:build unix

// Command cluster runs a cluster of kansei on this machine until Ctrl-C: three NATS
// servers, Redis, and nodes. `make cluster` builds what it needs and starts it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"

	"github.com/kansei-live/kansei/internal/private"
	"github.com/kansei-live/kansei/test/localcluster"
)

// The room and the life of the token in the address of the studio page.
const (
	room      = "demo"
	tokenLife = 12 * time.Hour
)

type command struct {
	Edges  int      `default:"3" help:"Nodes of kansei."`
	Dir    string   `placeholder:"DIR" help:"Where data and logs are kept; by default in a directory that is removed at the end."`
	Kansei string   `placeholder:"FILE" help:"The program of the nodes; by default bin/kansei."`
	Args   []string `arg:"" optional:"" passthrough:"" help:"Further flags of every node, behind --."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c command
	k := kong.Parse(&c, kong.Name("cluster"), kong.Description("Run a cluster of kansei on this machine until Ctrl-C."))
	k.FatalIfErrorf(c.run(ctx, os.Stdout))
}

func (c *command) run(ctx context.Context, w io.Writer) error {
	args := c.Args
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	say := func(format string, a ...any) { _, _ = fmt.Fprintf(w, format, a...) } // nothing to do about a closed terminal
	say("Starting 3 NATS servers, Redis and %d nodes ...\n", c.Edges)
	cluster, err := localcluster.Start(ctx, localcluster.Config{
		Edges: max(c.Edges, -1), Dir: c.Dir, Kansei: c.Kansei,
		// Nobody but this machine reaches the nodes: anybody who opens the page may comment.
		EdgeArgs: append([]string{"--guests", "comment"}, args...),
		OnExit: func(p *localcluster.Process, log string) {
			say("\n%s has ended by itself:\n%s\n", p.Name(), log)
		},
	})
	if err != nil {
		return err
	}
	err = table(w, cluster)
	if err == nil && len(cluster.Edges) > 0 {
		err = greet(w, cluster)
	}
	if err == nil {
		say("\nCtrl-C ends it all.\n")
		<-ctx.Done()
		say("\nEnding ...\n")
	}
	if closeErr := cluster.Close(); err == nil {
		err = closeErr
	}
	return err
}

// table lists the processes and where they listen.
func table(w io.Writer, c *localcluster.Cluster) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	row := func(p *localcluster.Process, public, ops string) {
		_, _ = fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", p.Name(), p.PID(), public, ops) // Flush has the error
	}
	_, _ = fmt.Fprint(t, "\n\tpid\tpublic\toperators\n")
	for _, e := range c.Edges {
		row(e.Process, e.URL, e.Ops)
	}
	for _, n := range c.NATS {
		row(n.Process, n.URL, n.Monitor)
	}
	row(c.Redis.Process, c.Redis.URL, "")
	return t.Flush()
}

// secretFile is where the cluster's secret of tokens is, for this user alone.
const secretFile = "auth-secret"

// greet says what to do with the cluster. A token is for a terminal alone.
func greet(w io.Writer, c *localcluster.Cluster) error {
	secret := filepath.Join(c.Dir, secretFile)
	if err := os.WriteFile(secret, append(slices.Clone(c.Secret), '\n'), 0o600); err != nil {
		return err
	}
	studio := fmt.Sprintf("%s/studio/%s#token=TOKEN\n  A TOKEN      bin/kansei token --room %s --role broadcaster --user broadcaster --auth-secret-file %s",
		c.Edges[0].URL, room, room, secret)
	if private.Terminal(w) {
		var err error
		if studio, err = c.StudioURL(0, room, tokenLife); err != nil {
			return err
		}
	}
	urls := make([]string, len(c.Edges))
	for i, e := range c.Edges {
		urls[i] = e.URL
	}
	_, err := fmt.Fprintf(w, `
  Watch        %s/r/%s
  Run a room   %s
  Load         KANSEI_AUTH_SECRET=$(cat %s) bin/kansei load --url %s
  Logs         %s/*.log
`, urls[len(urls)-1], room, studio, secret, strings.Join(urls, ","), c.Dir)
	return err
}

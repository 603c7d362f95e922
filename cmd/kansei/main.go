// Kansei is a real-time comment and presence server for live broadcasts.
//
// main.go has the commands, serve.go and node.go the one that matters: the graph
// of a node's parts, started and stopped in order.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
	_ "time/tzdata" // time zones for CSV, where the machine has none

	"github.com/alecthomas/kong"

	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/loadtest"
)

type commands struct {
	Serve    serveCommand    `cmd:"" help:"Run a node."`
	Load     loadCommand     `cmd:"" help:"Send virtual viewers to nodes and check what they get."`
	Bench    benchCommand    `cmd:"" help:"Measure a node against a bare program, on this machine."`
	Floor    floorCommand    `cmd:"" help:"Measure the bare program alone."`
	Token    tokenCommand    `cmd:"" help:"Make a token and print it."`
	Revoke   revokeCommand   `cmd:"" help:"Revoke tokens before they end."`
	Key      keyCommand      `cmd:"" help:"Make, list and revoke API keys of back ends."`
	Archive  archiveCommand  `cmd:"" help:"Keep who watched broadcasts: the worker, and what can be asked of it."`
	Settings settingsCommand `cmd:"" help:"Print every setting of a node, as Markdown."`
	Version  versionCommand  `cmd:"" help:"Print the version."`
}

func main() {
	if slices.Contains(os.Args[1:], "serve") {
		// A node reads its files again on SIGHUP. One that comes before it listens to the signal
		// must not end it: it has not read them yet.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once, unless a command makes something else of
	// it, or it is the same one come twice, as from timeout(1). The timer ends with the
	// process.
	context.AfterFunc(ctx, func() { time.AfterFunc(sameSignal, stop) })
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run runs one command and returns the exit status: 0, 1 when the command failed,
// 2 when it could not be understood.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var all commands
	all.Serve.Again = func() (config.Serve, error) { return readAgain(args) }
	exit := -1
	parser, err := config.NewParser(&all,
		kong.Name("kansei"),
		kong.Description("A real-time comment and presence server for live broadcasts."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.BindTo(stdin, (*io.Reader)(nil)),
		kong.BindTo(stdout, (*io.Writer)(nil)),
		kong.Bind(errorStream{stderr}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "kansei:", err)
		return 2
	}
	command, err := parser.Parse(args)
	if exit >= 0 { // --help has been printed
		return exit
	}
	if err == nil {
		err = command.Run()
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "kansei:", err)
	if u, ok := errors.AsType[*config.UsageError](err); ok {
		return u.ExitCode()
	}
	return 1
}

// readAgain returns the settings of kansei serve, from where they came from at first.
func readAgain(args []string) (config.Serve, error) {
	var all commands
	parser, err := config.NewParser(&all)
	if err != nil {
		return config.Serve{}, err
	}
	if _, err := parser.Parse(args); err != nil {
		return config.Serve{}, err
	}
	return all.Serve.Serve, nil
}

type loadCommand struct {
	loadtest.Command
}

// Run makes the run.
func (c *loadCommand) Run(ctx context.Context, stdout io.Writer, stderr errorStream) error {
	return c.Command.Run(ctx, stdout, stderr)
}

// errorStream is where a command writes what is not its result.
type errorStream struct{ io.Writer }

type settingsCommand struct{}

// Run prints the page of settings.
func (settingsCommand) Run(stdout io.Writer) error { return config.Markdown(stdout) }

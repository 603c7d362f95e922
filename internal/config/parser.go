package config

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/kansei-live/kansei/internal/redact"
)

// Parser parses the command line of kansei, with the environment and the file of
// settings behind it. It is a *kong.Kong but for Parse.
type Parser struct {
	*kong.Kong
	settings  map[*kong.Flag]*setting
	flags     []string // every name that a flag may have on the command line
	variables []string
	keys      []string // of the file
	environ   map[string]string

	found *found // by the Parse under way
}

// setting is a flag of one command with its other names.
type setting struct {
	variable string // empty when there is none
	key      bool   // may stand in the file
}

// Environ is an option of [NewParser]: the environment to read instead of the
// process's, as os.Environ gives it.
type Environ []string

// Apply makes Environ a kong.Option; there is nothing for kong in it.
func (Environ) Apply(*kong.Kong) error { return nil }

// UsageError is the error of a command line, a variable or a file that cannot be
// used.
type UsageError struct{ err error }

// Error has one line for each thing that is wrong, without the passwords of URLs.
func (e *UsageError) Error() string { return redact.Text(e.err.Error()) }

// Unwrap returns what is wrong.
func (e *UsageError) Unwrap() error { return e.err }

// ExitCode is 2, as of every command that was not used rightly.
func (e *UsageError) ExitCode() int { return 2 }

// NewParser makes the parser for cli, a pointer to a struct with kong's tags. A flag
// that comes from a struct of this package is a setting, the same in every command: a
// variable and, in commands with a flag --config, a key of the file. Any other flag is a
// variable with its command in the name: --rate of the command load is KANSEI_LOAD_RATE.
// A tag env:"KANSEI_X" gives the variable another name, env:"-" takes it away.
func NewParser(cli any, opts ...kong.Option) (*Parser, error) {
	p := &Parser{settings: map[*kong.Flag]*setting{}}
	environ := os.Environ()
	for _, o := range opts {
		if e, ok := o.(Environ); ok {
			environ = e
		}
	}
	p.environ = lookup(environ)
	k, err := kong.New(cli, append([]kong.Option{
		kong.Name("kansei"),
		kong.Vars{"data_dir": dataDir(p.environ)},
		kong.ExplicitGroups(groups()),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 110}),
		kong.ValueFormatter(func(v *kong.Value) string { return v.Help }),
		kong.KindMapper(reflect.Int, kong.MapperFunc(decodeInt)),
		kong.KindMapper(reflect.Float64, kong.MapperFunc(decodeFloat)),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(decodeDuration)),
		kong.PostBuild(p.adopt),
		kong.WithBeforeResolve(p.find),
		kong.Resolvers(kong.ResolverFunc(p.resolve)),
	}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	p.Kong = k
	return p, nil
}

// Parse parses the arguments after the program's name. Its error is a *[UsageError].
func (p *Parser) Parse(args []string) (*kong.Context, error) {
	p.found = nil
	if err := p.checkFlags(args); err != nil {
		return nil, &UsageError{err}
	}
	ctx, err := p.Kong.Parse(args)
	if err == nil {
		return ctx, nil
	}
	if problems, ok := errors.AsType[Problems](err); ok {
		var given *kong.Context
		if e, ok := errors.AsType[*kong.ParseError](err); ok {
			given = e.Context
		}
		err = p.locate(problems, given)
	}
	return nil, &UsageError{err}
}

// checkFlags refuses flags that no command has.
func (p *Parser) checkFlags(args []string) error {
	var errs []error
	for _, a := range args {
		if a == "--" {
			break
		}
		name, _, _ := strings.Cut(a, "=")
		if strings.HasPrefix(name, "--") && !slices.Contains(p.flags, name) {
			errs = append(errs, unknown("flag", name, p.flags))
		}
	}
	return errors.Join(errs...)
}

// locate says of each problem where the value came from that has it.
func (p *Parser) locate(problems Problems, ctx *kong.Context) error {
	var errs []error
	for _, q := range problems {
		source := "--" + q.Name
		if p.found != nil && !onCommandLine(ctx, q.Name) {
			if s, ok := p.found.sources[q.Name]; ok {
				source = s
			}
		}
		errs = append(errs, fmt.Errorf("%s: %s", source, q.What))
	}
	return errors.Join(errs...)
}

func onCommandLine(ctx *kong.Context, flag string) bool {
	return ctx != nil && slices.ContainsFunc(ctx.Path, func(at *kong.Path) bool {
		return at.Flag != nil && at.Flag.Name == flag && !at.Resolved
	})
}

// adopt notes what settings there are, once kong has built its model, and takes the
// variables away from kong.
func (p *Parser) adopt(k *kong.Kong) error {
	var all struct {
		Serve Serve `cmd:""`
	}
	node, err := kong.New(&all, kong.Vars{"data_dir": ""})
	if err != nil {
		return err
	}
	shared := map[string]string{} // setting → its help
	for _, f := range node.Model.Children[0].Flags {
		shared[f.Name] = f.OrigHelp
	}
	for n := range nodes(k.Model.Node) {
		detail := ""
		for _, f := range n.Flags {
			p.flags = append(p.flags, names(f)...)
			if f.Name == "help" {
				f.Help = "Show this help."
				continue
			}
			if f.HasDefault && f.PlaceHolder == "" && f.Target.Kind() == reflect.String {
				f.PlaceHolder = "${default}" // without quotation marks
			}
			help, ok := shared[f.Name]
			s := &setting{key: ok && help == f.OrigHelp && f.Name != configFlag}
			switch {
			case len(f.Tag.Envs) > 0 && f.Tag.Envs[0] == "-":
			case len(f.Tag.Envs) > 0:
				s.variable = f.Tag.Envs[0]
			case s.key || f.Name == configFlag || n.Type == kong.ApplicationNode:
				s.variable = variable(f.Name)
			default:
				s.variable = variable(n.Name + "-" + f.Name)
			}
			f.Envs, f.Tag.Envs = nil, nil
			if serviceVariable.MatchString(s.variable) {
				return fmt.Errorf("--%s cannot have the variable %s: Kubernetes sets it for a service", f.Name, s.variable)
			}
			p.settings[f] = s
			if s.key {
				p.keys = append(p.keys, f.Name)
			}
			if s.variable != "" {
				p.variables = append(p.variables, s.variable)
			}
			switch {
			case f.Name == configFlag:
				detail = fmt.Sprintf("Settings are also variables, --data-dir as %s, and keys of the file that --config names, as data-dir. "+
					"A flag goes before a variable, a variable before the file.", variable("data-dir"))
			case detail == "" && s.variable != "":
				detail = fmt.Sprintf("Flags are also variables, --%s as %s.", f.Name, s.variable)
			}
		}
		if n.Detail == "" {
			n.Detail = detail
		}
	}
	p.variables = append(p.variables, TraceVariable)
	return nil
}

// nodes yields n and all that is below it.
func nodes(n *kong.Node) iter.Seq[*kong.Node] {
	return func(yield func(*kong.Node) bool) {
		if !yield(n) {
			return
		}
		for _, c := range n.Children {
			for d := range nodes(c) {
				if !yield(d) {
					return
				}
			}
		}
	}
}

// names are those under which a flag may be on the command line.
func names(f *kong.Flag) []string {
	out := []string{"--" + f.Name}
	for _, a := range f.Aliases {
		out = append(out, "--"+a)
	}
	switch f.Tag.Negatable {
	case "":
	case "_": // kong's way to say that the tag is there
		out = append(out, "--no-"+f.Name)
	default:
		out = append(out, "--"+f.Tag.Negatable)
	}
	return out
}

// groups are the headings of the help, in the order of the flags.
func groups() []kong.Group {
	return []kong.Group{
		{Key: "network", Title: "Network:"},
		{Key: "engine", Title: "Engine and storage:"},
		{Key: "access", Title: "Access:"},
		{Key: "log", Title: "Room log:"},
		{Key: "comments", Title: "Comments:"},
		{Key: "viewers", Title: "Viewers:"},
		{Key: "delivery", Title: "Delivery:"},
		{Key: "presence", Title: "Presence:"},
		{Key: "watch-log", Title: "Watch log:"},
		{Key: "own-log", Title: "Logging:"},
	}
}

// dataDir is where the platform has a user's programs keep their state; empty when
// the environment names no home.
func dataDir(environ map[string]string) string {
	join := func(base string, rest ...string) string {
		if !filepath.IsAbs(base) {
			return ""
		}
		return filepath.Join(append([]string{base}, rest...)...)
	}
	switch runtime.GOOS {
	case "windows":
		return join(environ["LOCALAPPDATA"], "kansei")
	case "darwin":
		return join(environ["HOME"], "Library", "Application Support", "kansei")
	}
	if dir := join(environ["XDG_STATE_HOME"], "kansei"); dir != "" {
		return dir
	}
	return join(environ["HOME"], ".local", "state", "kansei")
}

func lookup(environ []string) map[string]string {
	m := make(map[string]string, len(environ))
	for _, e := range environ {
		if k, v, ok := strings.Cut(e, "="); ok {
			m[k] = v
		}
	}
	return m
}

// The decoders replace kong's for messages that say what is allowed, and for whole
// numbers that are decimal: 010 is ten.

func decodeInt(ctx *kong.DecodeContext, target reflect.Value) error {
	s, err := popString(ctx, "number")
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return fmt.Errorf("must be a whole number, not %q", s)
	}
	target.SetInt(n)
	return nil
}

func decodeFloat(ctx *kong.DecodeContext, target reflect.Value) error {
	s, err := popString(ctx, "number")
	if err != nil {
		return err
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return fmt.Errorf("must be a number, not %q", s)
	}
	target.SetFloat(n)
	return nil
}

func decodeDuration(ctx *kong.DecodeContext, target reflect.Value) error {
	s, err := popString(ctx, "duration")
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("must be a duration such as 250ms, 30s or 2h, not %q", s)
	}
	target.SetInt(int64(d))
	return nil
}

func popString(ctx *kong.DecodeContext, what string) (string, error) {
	t, err := ctx.Scan.PopValue(what)
	if err != nil {
		return "", fmt.Errorf("needs a %s", what)
	}
	return fmt.Sprint(t.Value), nil
}

package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"github.com/kansei-live/kansei/internal/private"
)

const configFlag = "config"

// maxFile bounds a file of settings, in bytes: many times what all settings take.
const maxFile = 1 << 20

// found is what the environment and the file say, for one command line.
type found struct {
	values  map[string]string // flag → its value, as it would stand on the command line
	sources map[string]string // flag → where that came from
}

// entry is one value of the file.
type entry struct {
	node *yaml.Node
	line int
}

// find checks the names of the variables, reads the file, and notes the values of
// the flags that the command line leaves to them. kong calls it before it asks for the
// first value, for each part of the command line.
func (p *Parser) find(ctx *kong.Context) error {
	if p.found != nil {
		return nil
	}
	p.found = &found{values: map[string]string{}, sources: map[string]string{}}
	var path string
	settings := 0
	for _, f := range ctx.Flags() {
		if s := p.settings[f]; s != nil {
			settings++
			if f.Name == configFlag {
				if path = fmt.Sprint(ctx.FlagValue(f)); path == "" {
					path = p.environ[s.variable]
				}
			}
		}
	}
	if settings == 0 {
		return nil // a command such as version, which must work whatever is set
	}
	errs := []error{p.checkVariables()}
	file := map[string]entry{}
	if path != "" {
		entries, info, err := p.readFile(path)
		file, errs = entries, append(errs, err)
		if err == nil {
			errs = append(errs, checkWritable(path, info, ctx.Flags(), file))
		}
	}
	for _, f := range ctx.Flags() {
		if s := p.settings[f]; s != nil && !onCommandLine(ctx, f.Name) {
			errs = append(errs, p.choose(f, s, path, file))
		}
	}
	return errors.Join(errs...)
}

// choose notes the value that the environment or the file has for a flag, if it is
// one that the flag can take.
func (p *Parser) choose(f *kong.Flag, s *setting, path string, file map[string]entry) error {
	var source, v string
	e, inFile := file[f.Name]
	switch env := p.environ[s.variable]; {
	case s.variable != "" && env != "":
		source, v = s.variable, env
	case inFile && s.key && !isUnset(e.node, f):
		source = fmt.Sprintf("%s:%d: %s", path, e.line, f.Name)
		var err error
		if v, err = plain(e.node, f); err != nil {
			return fmt.Errorf("%s: %w", source, err)
		}
	default:
		return nil
	}
	probe := reflect.New(f.Target.Type()).Elem()
	err := f.Mapper.Decode(&kong.DecodeContext{Value: f.Value, Scan: kong.Scan().PushTyped(v, kong.FlagValueToken)}, probe)
	if err == nil && f.Enum != "" && !slices.Contains(f.EnumSlice(), fmt.Sprint(probe.Interface())) {
		err = fmt.Errorf("must be %s, not %q", alternatives(f.EnumSlice()), v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	p.found.values[f.Name], p.found.sources[f.Name] = v, source
	return nil
}

// checkWritable refuses a file that has a secret in it and that anybody may write:
// somebody who can choose the secret can pose as anybody.
func checkWritable(path string, info fs.FileInfo, flags []*kong.Flag, file map[string]entry) error {
	if !private.Writable(info) {
		return nil
	}
	for _, f := range flags {
		if e, in := file[f.Name]; in && slices.ContainsFunc(values(e.node), func(v string) bool { return holdsSecret(f, v) }) {
			return fmt.Errorf("%s:%d: %s: it is a secret, and anybody may write the file (mode %04o): run chmod o-w, and make sure that nobody has changed it",
				path, e.line, f.Name, info.Mode().Perm())
		}
	}
	return nil
}

// values are the single values of a node.
func values(n *yaml.Node) []string {
	if n = resolveAlias(n); n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	var all []string
	for _, c := range n.Content {
		if c.Kind != yaml.AliasNode { // which may lead around in circles
			all = append(all, values(c)...)
		} else if c.Alias.Kind == yaml.ScalarNode {
			all = append(all, c.Alias.Value)
		}
	}
	return all
}

// holdsSecret reports whether the value of a flag is a secret, or an address with a user in it.
func holdsSecret(f *kong.Flag, value string) bool {
	t := f.Target.Type()
	if t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t == reflect.TypeFor[Secret]() || strings.Contains(value, "@")
}

// resolve gives kong the value of a flag that is not on the command line; nil for its
// default.
func (p *Parser) resolve(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
	if v, ok := p.found.values[f.Name]; ok && p.settings[f] != nil {
		return v, nil
	}
	return nil, nil
}

// checkVariables refuses variables that are no settings.
func (p *Parser) checkVariables() error {
	var errs []error
	for name := range p.environ {
		if strings.HasPrefix(name, Prefix) && !slices.Contains(p.variables, name) && !serviceVariable.MatchString(name) {
			errs = append(errs, unknown("variable", name, p.variables))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// readFile reads the entries of a file of settings, and refuses keys that are none.
func (p *Parser) readFile(path string) (map[string]entry, fs.FileInfo, error) {
	raw, info, err := private.Read(path, maxFile)
	if err != nil {
		return nil, nil, fmt.Errorf("--config: %w", err)
	}
	entries, err := p.readYAML(path, raw)
	return entries, info, err
}

func (p *Parser) readYAML(path string, raw []byte) (map[string]entry, error) {
	var doc, more yaml.Node
	d := yaml.NewDecoder(strings.NewReader(string(raw)))
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil // nothing, or comments alone
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: there must be one document in it", path)
	}
	root := resolveAlias(doc.Content[0])
	if root.Kind != yaml.MappingNode {
		if root.Tag == "!!null" {
			return nil, nil
		}
		return nil, fmt.Errorf("%s:%d: must be settings, one a line, such as max-text: 200", path, root.Line)
	}
	entries := map[string]entry{}
	var errs []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], resolveAlias(root.Content[i+1])
		name := key.Value
		switch first, twice := entries[name]; {
		case !slices.Contains(p.keys, name):
			errs = append(errs, fmt.Errorf("%s:%d: %w", path, key.Line, unknown("key", name, p.keys)))
		case twice:
			errs = append(errs, fmt.Errorf("%s:%d: %s is there twice, on line %d too", path, key.Line, name, first.line))
		default:
			entries[name] = entry{value, key.Line}
		}
	}
	return entries, errors.Join(errs...)
}

func resolveAlias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode { // of an anchor, which is no alias itself
		return n.Alias
	}
	return n
}

// takesList reports whether a flag may have a list in the file.
func takesList(f *kong.Flag) bool { return f.IsSlice() || f.Tag.Has("list") }

// isUnset reports whether the file has a key without a value: nothing, or an empty list.
func isUnset(n *yaml.Node, f *kong.Flag) bool {
	return n.Tag == "!!null" || n.Kind == yaml.SequenceNode && len(n.Content) == 0 && takesList(f)
}

// plain returns the value of a node as it would stand on the command line, if it is
// of a type that f can have.
func plain(n *yaml.Node, f *kong.Flag) (string, error) {
	if f.Target.Type() == reflect.TypeFor[Issuers]() {
		text, err := yaml.Marshal(n)
		return string(text), err
	}
	if n.Kind != yaml.SequenceNode || !takesList(f) {
		return scalar(n, f.IsSlice() || f.Target.Kind() == reflect.String)
	}
	parts := make([]string, len(n.Content))
	for i, c := range n.Content {
		var err error
		if parts[i], err = scalar(resolveAlias(c), true); err == nil && parts[i] == "" {
			err = errors.New("must not be empty")
		}
		if err != nil {
			return "", fmt.Errorf("value %d of the list: %w", i+1, err)
		}
	}
	if f.IsSlice() {
		return kong.JoinEscaped(parts, f.Tag.Sep), nil
	}
	return strings.Join(parts, f.Tag.Get("list")), nil
}

// scalar returns a single value. What must be text is refused when YAML takes it for
// something else: its author did not mean the letters.
func scalar(n *yaml.Node, text bool) (string, error) {
	kinds := map[yaml.Kind]string{yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}
	if what, ok := kinds[n.Kind]; ok {
		return "", fmt.Errorf("must be one value, not %s", what)
	}
	types := map[string]string{"!!int": "a number", "!!float": "a number", "!!bool": "true or false", "!!null": "nothing"}
	if what, ok := types[n.Tag]; ok && text {
		return "", fmt.Errorf("must be text, not %s: put it in quotes", what)
	}
	return n.Value, nil
}

package config

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// Markdown writes the page that lists the settings of kansei serve.
func Markdown(w io.Writer) error {
	var cli struct {
		Serve Serve `cmd:"" help:"Run a node."`
	}
	p, err := NewParser(&cli, Environ{}, kong.Vars{"data_dir": "$XDG_STATE_HOME/kansei or ~/.local/state/kansei"})
	if err != nil {
		return err
	}
	var several, repeated []string // values; flags
	for _, f := range p.Model.Children[0].Flags {
		if p.settings[f] == nil || !takesList(f) {
			continue
		}
		several = append(several, "`"+f.Name+"`")
		if f.IsSlice() {
			repeated = append(repeated, "`--"+f.Name+"`")
		}
	}
	b := bufio.NewWriter(w)
	_, _ = fmt.Fprintf(b, `# Settings

Every setting of `+"`kansei serve`"+` has one name: a flag on the command line, a variable in the
environment, a key of the YAML file that `+"`--config`"+` or `+"`%[1]sCONFIG`"+` names. A flag goes before a
variable, a variable before the file, the file before the default. A variable that is set but empty
counts as not set.

`+"```"+`
kansei serve --max-text 300          # a flag
%[1]sMAX_TEXT=300 kansei serve     # a variable
echo 'max-text: 300' > kansei.yaml   # a key of a file
kansei serve --config kansei.yaml
`+"```"+`

Names that are not on this page are refused, with the nearest one that is. Kubernetes sets variables
for every service in the namespace: those of a service named kansei or kansei-…
(`+"`%[1]sPORT`, `%[1]sPORT_80_TCP`, `%[1]sSERVICE_HOST`"+` and so on) are left alone.
Durations are numbers with units, such as `+"`250ms`, `30s` or `2h`"+`. In the file text that looks like a
number or like true or false stands in quotes.

Some settings take several values: %[2]s.
They stand with commas between them, in the file also as a list, such as
`+"`origin: [\"https://a.example\", \"https://b.example\"]`"+`. %[3]s may also be on the command
line more than once.
`, Prefix, series(several), series(repeated))
	group := ""
	for _, f := range p.Model.Children[0].Flags {
		if s := p.settings[f]; s != nil {
			if f.Group != nil && f.Group.Key != group {
				group = f.Group.Key
				_, _ = fmt.Fprintf(b, "\n## %s\n\n| flag and key | variable | default | meaning |\n| --- | --- | --- | --- |\n", strings.TrimSuffix(f.Group.Title, ":"))
			}
			name := "`--" + f.Name + "`"
			if f.Tag.Negatable != "" {
				name = "`--[no-]" + f.Name + "`"
			}
			def := "–"
			if f.HasDefault {
				def = "`" + f.Default + "`"
			}
			_, _ = fmt.Fprintf(b, "| %s | `%s` | %s | %s |\n", name, s.variable, def, strings.ReplaceAll(f.Help, "|", `\|`))
		}
	}
	return b.Flush()
}

// series is "a, b and c".
func series(s []string) string {
	if len(s) < 2 {
		return strings.Join(s, "")
	}
	return strings.Join(s[:len(s)-1], ", ") + " and " + s[len(s)-1]
}

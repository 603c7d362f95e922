package config

import (
	"fmt"
	"reflect"

	"github.com/alecthomas/kong"
)

// Changed returns the names of the settings that differ between a and b, in the order of the
// flags.
func Changed(a, b Serve) ([]string, error) {
	var all struct {
		Serve Serve `cmd:""`
	}
	k, err := kong.New(&all, kong.Vars{"data_dir": ""})
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	flags := k.Model.Children[0].Flags // whose targets are the fields of all.Serve
	all.Serve = a
	before := make([]any, len(flags))
	for i, f := range flags {
		before[i] = f.Target.Interface()
	}
	all.Serve = b
	var names []string
	for i, f := range flags {
		if !reflect.DeepEqual(before[i], f.Target.Interface()) {
			names = append(names, f.Name)
		}
	}
	return names, nil
}

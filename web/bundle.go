package web

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Modules are written apart and served together: each one that pages import is one file with
// all that it needs, so that a page never gets parts of two versions while nodes are being
// replaced. The modules keep to a few forms, so that this needs no parser:
//
//	import { a, b } from "./other.js";      export { a, b } from "./other.js";
//	export { a, b };                        export class, const, function, async function
//
// and no two of them declare the same name at their top level.

var (
	moduleImport   = regexp.MustCompile(`(?m)^import \{[^}]*\} from "(\.\.?/[a-z/]+\.js)";\n`)
	moduleReexport = regexp.MustCompile(`(?m)^export (\{[^}]*\}) from "(\.\.?/[a-z/]+\.js)";\n`)
	moduleExports  = regexp.MustCompile(`(?m)^export \{[^}]*\};\n`)
	moduleDeclares = regexp.MustCompile(`(?m)^export (class|const|function|async function) `)
	moduleOther    = regexp.MustCompile(`(?m)^(import|export)\b.*`)
)

// bundle returns the module at entry in fsys with the modules that it imports, directly or not,
// in front of it.
func bundle(fsys fs.FS, entry string) ([]byte, error) {
	var out bytes.Buffer
	b := bundler{fsys: fsys}
	text, err := b.read(entry)
	if err != nil {
		return nil, err
	}
	text = moduleReexport.ReplaceAllString(text, "export $1;\n")
	// The comment that begins the module stays at the beginning.
	head := regexp.MustCompile(`\A(//.*\n)*`).FindString(text)
	out.WriteString(head)
	for _, module := range b.parts {
		out.WriteString("\n" + module)
	}
	out.WriteString("\n" + strings.TrimPrefix(text, head))
	return out.Bytes(), nil
}

type bundler struct {
	fsys  fs.FS
	names []string // of the modules that were read
	parts []string // without their imports and exports
}

// read returns a module without its imports, after adding those to the parts.
func (b *bundler) read(name string) (string, error) {
	b.names = append(b.names, name)
	p, err := fs.ReadFile(b.fsys, name)
	if err != nil {
		return "", fmt.Errorf("web: bundle %s: %w", name, err)
	}
	text := string(p)
	for _, m := range slices.Concat(moduleImport.FindAllStringSubmatch(text, -1), moduleReexport.FindAllStringSubmatch(text, -1)) {
		other := path.Join(path.Dir(name), m[len(m)-1])
		if slices.Contains(b.names, other) {
			continue
		}
		part, err := b.read(other)
		if err != nil {
			return "", err
		}
		part = moduleDeclares.ReplaceAllString(moduleExports.ReplaceAllString(moduleReexport.ReplaceAllString(part, ""), ""), "$1 ")
		if rest := moduleOther.FindString(part); rest != "" {
			return "", fmt.Errorf("web: bundle %s: %q is in no form that it knows", other, rest)
		}
		b.parts = append(b.parts, part)
	}
	return moduleImport.ReplaceAllString(text, ""), nil
}

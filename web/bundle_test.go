package web

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// What is served imports nothing and is a module; the SDK's runs, and exports what the
// written one does.
func TestModulesAreServedWhole(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is needed: make setup says what to install")
	}
	dir := t.TempDir()
	run := func(entry string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), node, args...) // #nosec G204 -- of this test
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", entry, err, out)
		}
	}
	for _, entry := range entries {
		body, err := read(entry)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(body), "\nimport ") || strings.Contains(string(body), `from "./`) {
			t.Errorf("%s imports something", entry)
		}
		served := filepath.Join(dir, strings.TrimSuffix(entry, ".js")+".mjs")
		if err := os.MkdirAll(filepath.Dir(served), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(served, body, 0o600); err != nil {
			t.Fatal(err)
		}
		run(entry, "--check", served) // no name is declared twice
		if !strings.HasPrefix(entry, "sdk/") {
			continue // it needs a page
		}
		written, err := filepath.Abs(entry)
		if err != nil {
			t.Fatal(err)
		}
		run(entry, "--input-type=module", "-e", `const names = (p) => import(p).then((m) => Object.keys(m).sort().join());
const [served, written] = await Promise.all([names("`+served+`"), names("`+written+`")]);
if (served !== written || !served.includes("connect")) throw new Error(served + " is served of " + written);`)
	}
}

func TestBundle(t *testing.T) {
	t.Parallel()
	fsys := fstest.MapFS{
		"d/entry.js":  {Data: []byte("// What it is.\n\nimport { b } from \"./middle.js\";\nexport { a } from \"../e/base.js\";\nexport const c = b + 1;\n")},
		"d/middle.js": {Data: []byte("import { a } from \"../e/base.js\";\nconst n = 1;\nexport const b = a + n;\n")},
		"e/base.js":   {Data: []byte("const x = 1;\nexport { x };\nexport async function a() {}\n")},
		"d/bad.js":    {Data: []byte("import { y } from \"./odd.js\";\n")},
		"d/odd.js":    {Data: []byte("import * as all from \"../e/base.js\";\n")},
		"d/lost.js":   {Data: []byte("import { y } from \"./nowhere.js\";\n")},
	}
	got, err := bundle(fsys, "d/entry.js")
	want := "// What it is.\n\nconst x = 1;\nasync function a() {}\n\nconst n = 1;\nconst b = a + n;\n\n\nexport { a };\nexport const c = b + 1;\n"
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
	for entry, says := range map[string]string{"d/bad.js": "import * as all", "d/lost.js": "nowhere.js"} {
		if _, err := bundle(fsys, entry); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", entry, err)
		}
	}
}

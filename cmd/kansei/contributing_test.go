package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Everything that CONTRIBUTING.md names in code exists: files, make targets, tests, packages
// and identifiers.
func TestContributing(t *testing.T) {
	t.Parallel()
	root := "../.."
	page, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	// What the repository holds, without what is built or installed.
	listed, err := exec.Command("git", "-C", root, "ls-files").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	var source strings.Builder
	for name := range strings.Lines(string(listed)) {
		if name = strings.TrimSpace(name); strings.HasSuffix(name, ".go") {
			text, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			source.Write(text)
		}
	}
	code := source.String()
	has := func(pattern string) bool { return regexp.MustCompile(pattern).MatchString(code) }
	exists := func(path string) bool {
		for name := range strings.Lines(string(listed)) {
			if name = strings.TrimSpace(name); name == path || strings.HasPrefix(name, path+"/") {
				return true
			}
		}
		return false
	}
	checked := 0
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(string(page), -1) {
		named := m[1]
		checked++
		for _, target := range regexp.MustCompile(`\bmake ([a-z][a-z-]*)`).FindAllStringSubmatch(named, -1) {
			if !regexp.MustCompile(`(?m)^` + target[1] + `:`).Match(makefile) {
				t.Errorf("`%s`: there is no make target %s", named, target[1])
			}
		}
		for _, test := range regexp.MustCompile(`\bTest[A-Z]\w*`).FindAllString(named, -1) {
			if !has(`func ` + test + `\(`) {
				t.Errorf("`%s`: there is no %s", named, test)
			}
		}
		for _, path := range regexp.MustCompile(`(?:^|[\s=])(?:\./)?((?:cmd|hub|internal|protocol|client|web|docs|test|loadtest|deploy)(?:/[\w.-]+)*)(?:$|\s)`).FindAllStringSubmatch(named, -1) {
			if !exists(path[1]) {
				t.Errorf("`%s`: there is no %s", named, path[1])
			}
		}
		if id := regexp.MustCompile(`^(hub|protocol|client)((?:\.[A-Z]\w*)+)$`).FindStringSubmatch(named); id != nil {
			for part := range strings.SplitSeq(id[2][1:], ".") {
				if !has(`(?m)(?:\btype|\bfunc|\) )\s?` + part + `\b|^\t` + part + `\b`) {
					t.Errorf("`%s`: there is no %s", named, part)
				}
			}
		}
	}
	if checked < 40 {
		t.Errorf("%d names in the page", checked)
	}
}

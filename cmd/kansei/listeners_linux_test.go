package main

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A node opens two doors to the machine, the public one and the operators': nothing
// that is embedded has one of its own. What an embedded server parses could end the
// process.
func TestListeners(t *testing.T) { // not parallel: the listeners are those of the whole process
	before := listeners(t)
	n := runNode(t)
	w := n.mustDial("r", "")
	w.next("comments")
	n.counted("r", 1) // Redis is in use
	var opened []string
	for inode, what := range listeners(t) {
		if _, old := before[inode]; !old {
			opened = append(opened, what)
		}
	}
	if len(opened) != 2 || slices.ContainsFunc(opened, func(s string) bool { return !strings.HasPrefix(s, "tcp ") }) {
		t.Errorf("a node listens on %q; want its two listeners", opened)
	}
}

// listeners are the sockets of this process that others may come to, by inode.
func listeners(t *testing.T) map[string]string {
	t.Helper()
	own := map[string]bool{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil {
			if inode, ok := strings.CutPrefix(target, "socket:["); ok {
				own[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	found := map[string]string{}
	// The columns that hold the state and the inode, and the states that listen.
	for table, c := range map[string]struct {
		state, inode int
		listens      []string
	}{
		"tcp": {3, 9, []string{"0A"}}, "tcp6": {3, 9, []string{"0A"}}, "udp": {3, 9, []string{"07"}}, "udp6": {3, 9, []string{"07"}},
		"unix": {3, 6, []string{"00010000"}}, // its flags: accepts connections
	} {
		f, err := os.Open("/proc/self/net/" + table)
		if os.IsNotExist(err) {
			continue // a machine without IPv6
		}
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			at := strings.Fields(lines.Text())
			if len(at) > c.inode && own[at[c.inode]] && slices.Contains(c.listens, at[c.state]) {
				found[at[c.inode]] = strings.TrimSuffix(table, "6") + " " + at[1]
			}
		}
		_ = f.Close()
	}
	return found
}

package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Prefix begins the name of every variable of kansei.
const Prefix = "KANSEI_"

// TraceVariable names a recorded audience, a file of comments, that tests play if
// it is set.
const TraceVariable = Prefix + "TRACE"

// variable is the environment variable of a flag.
func variable(flag string) string {
	return Prefix + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(flag))
}

// serviceVariable matches what Kubernetes puts into the environment of every pod for
// the services kansei and kansei-<anything>: KANSEI_SERVICE_HOST,
// KANSEI_SERVICE_PORT_HTTP, KANSEI_PORT, KANSEI_PORT_80_TCP_ADDR and so on. No
// setting may have such a name.
var serviceVariable = regexp.MustCompile(
	`^KANSEI_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// unknown is the error of a name that is none of known.
func unknown(kind, name string, known []string) error {
	if near := nearest(name, known); near != "" {
		return fmt.Errorf("unknown %s %s: did you mean %s?", kind, name, near)
	}
	return fmt.Errorf("unknown %s %s", kind, name)
}

// nearest returns the one of known that name is most likely meant to be; the empty
// string when it is like none. What all names begin with does not count.
func nearest(name string, known []string) string {
	bare := func(s string) string {
		return strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(strings.TrimPrefix(strings.TrimPrefix(s, Prefix), "--")))
	}
	want := bare(name)
	if len(want) > 100 { // no typing error
		return ""
	}
	best, least := "", max(2, len(want)/3)+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		b := bare(k)
		d := distance(want, b)
		if len(want) >= 3 && (strings.HasPrefix(b, want) || strings.HasPrefix(want, b)) {
			d = min(d, 2)
		}
		if d < least && d < len(b) {
			best, least = k, d
		}
	}
	return best
}

// distance is how many letters must be put in, left out, replaced, or swapped with
// their neighbour to make b of a.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	before, last, this := rows[0], rows[1], rows[2]
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		this[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			this[j] = min(last[j]+1, this[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				this[j] = min(this[j], before[j-2]+1)
			}
		}
		before, last, this = last, this, before
	}
	return last[len(b)]
}

package natslog

import (
	"strconv"
	"strings"
)

// Subjects of NATS are words with dots between them. In a pattern * stands for one word,
// and > at its end for one or more.

// covers reports whether a pattern matches every subject that another one matches.
func covers(pattern, other string) bool {
	p, o := strings.Split(pattern, "."), strings.Split(other, ".")
	for i, w := range p {
		switch {
		case i >= len(o):
			return false
		case w == ">":
			return true
		case o[i] == ">", w != "*" && w != o[i]:
			return false
		}
	}
	return len(p) == len(o)
}

// republished returns the subject that a stream's republish, from source to destination,
// gives a subject; false if it gives none. Of the functions that a destination may call it
// knows wildcard alone.
func republished(source, destination, subject string) (string, bool) {
	if source == "" {
		source = ">"
	}
	if !covers(source, subject) {
		return "", false
	}
	words := strings.Split(subject, ".")
	var stars, rest []string // what * and > stand for
	for i, w := range strings.Split(source, ".") {
		switch w {
		case "*":
			stars = append(stars, words[i])
		case ">":
			rest = words[i:]
		}
	}
	var out []string
	for _, w := range strings.Split(destination, ".") {
		if w == ">" {
			out = append(out, rest...)
			continue
		}
		call, is := strings.CutPrefix(strings.ToLower(w), "{{")
		if !is {
			call, is = strings.CutPrefix(w, "$")
		}
		if !is {
			out = append(out, w)
			continue
		}
		call = strings.TrimSuffix(strings.TrimPrefix(strings.ReplaceAll(call, " ", ""), "wildcard("), ")}}")
		n, err := strconv.Atoi(call)
		if err != nil || n < 1 || n > len(stars) {
			return "", false
		}
		out = append(out, stars[n-1])
	}
	return strings.Join(out, "."), true
}

package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"
)

// This file reads the JSON objects that others send. It takes field names as they
// are written, unlike encoding/json, which would take "TEXT" for "text" and show
// us a comment where a filter in front of us has seen none. For the same reason a
// field that appears twice is refused. A field that is null counts as left out.

// field is one field of an object.
type field struct {
	name string
	into any    // where to
	want string // what it must be, for the sender
	seen bool
}

const (
	wantString = "a string"
	wantObject = "an object"
	wantBool   = "true or false"
	wantWhole  = "a whole number"
	wantMedia  = "a whole number of milliseconds from 0 to 9007199254740991"
)

// checkObject tells what keeps p from being one JSON object in UTF-8.
func checkObject(p []byte) *Error {
	if !utf8.Valid(p) {
		return bad("the message is not UTF-8")
	}
	if first := trimSpace(p); len(first) == 0 || first[0] != '{' {
		return bad("the message is not a JSON object")
	}
	if json.Valid(p) {
		return nil
	}
	var v struct{}
	err := json.Unmarshal(p, &v)
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return bad("the message is not JSON: %s, at byte %d", e.Error(), e.Offset)
	}
	return bad("the message is not JSON")
}

// Fields goes through the fields of a JSON object in UTF-8, in their order: names as
// they are meant, without escapes, and values as they are written. A reader that uses it
// what others sign or send takes names exactly as they are written, and sees those that
// come twice. It returns false for what is no such object.
func Fields(p []byte) (iter.Seq2[[]byte, []byte], bool) {
	if checkObject(p) != nil {
		return nil, false
	}
	return members(p), true
}

// readFields reads the fields of a valid JSON object. Others are ignored. path
// precedes the names of fields in errors.
func readFields(p []byte, path string, fields ...field) *Error {
	for name, value := range members(p) {
		for i := range fields {
			f := &fields[i]
			if f.name != string(name) {
				continue
			}
			if f.seen {
				return bad("%s%s appears twice", path, name)
			}
			f.seen = true
			if !readValue(f.into, value) {
				return bad("%s%s must be %s", path, name, f.want)
			}
		}
	}
	return nil
}

// readValue reads a valid JSON value. The common kinds take a way around
// json.Unmarshal, which would parse them once more.
func readValue(into any, value []byte) bool {
	if string(value) == "null" {
		return true
	}
	switch v := into.(type) {
	case *string:
		if value[0] != '"' {
			return false
		}
		*v = string(unquote(value))
		return true
	case *json.RawMessage:
		*v = value
		return true
	}
	return json.Unmarshal(value, into) == nil
}

// members goes through the fields of a valid JSON object: their names, and their
// values as they are written.
func members(p []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		p := trimSpace(p)[1:] // behind the brace
		for {
			p = trimSpace(p)
			if p[0] == '}' {
				return
			}
			end := valueEnd(p)
			name := unquote(trimSpace(p[:end]))
			p = trimSpace(p[end:])[1:] // behind the colon
			end = valueEnd(p)
			if !yield(name, trimSpace(p[:end])) {
				return
			}
			if p = p[end:]; p[0] == ',' {
				p = p[1:]
			}
		}
	}
}

// valueEnd is the length of the valid JSON value at the start of p, with the space
// around it, that a colon, a comma or the end of an object or array follows.
func valueEnd(p []byte) int {
	depth := 0
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '"':
			for i++; p[i] != '"'; i++ {
				if p[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']', ',', ':':
			if depth == 0 {
				return i
			}
			if p[i] == '}' || p[i] == ']' {
				depth--
			}
		}
	}
	return len(p)
}

// unquote is the text that a valid JSON string means.
func unquote(p []byte) []byte {
	if bytes.IndexByte(p, '\\') < 0 {
		return p[1 : len(p)-1]
	}
	var s string
	_ = json.Unmarshal(p, &s) // it is valid
	return []byte(s)
}

// trimSpace removes what JSON takes for space from both ends of p.
func trimSpace(p []byte) []byte {
	for len(p) > 0 && isSpace(p[0]) {
		p = p[1:]
	}
	for len(p) > 0 && isSpace(p[len(p)-1]) {
		p = p[:len(p)-1]
	}
	return p
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// readStyle reads a style into its shortest form: what is the default is left out,
// a color is #rrggbb in lower case. One that is all default is nil.
func readStyle(p json.RawMessage) (*Style, *Error) {
	if p == nil {
		return nil, nil
	}
	if p[0] != '{' {
		return nil, bad("style must be %s", wantObject)
	}
	var s Style
	if err := readFields(p, "style.",
		field{name: "position", into: &s.Position, want: wantString},
		field{name: "size", into: &s.Size, want: wantString},
		field{name: "color", into: &s.Color, want: wantString},
	); err != nil {
		return nil, err
	}
	switch s.Position {
	case "", "top", "bottom":
	case "scroll":
		s.Position = ""
	default:
		return nil, bad("style.position must be scroll, top or bottom, not %.20q", s.Position)
	}
	switch s.Size {
	case "", "small", "big":
	case "medium":
		s.Size = ""
	default:
		return nil, bad("style.size must be small, medium or big, not %.20q", s.Size)
	}
	if s.Color != "" {
		color := colorValue(s.Color)
		if color == "" {
			return nil, bad("style.color must be #rrggbb or the name of a color, not %.20q", s.Color)
		}
		s.Color = color
	}
	if s == (Style{}) {
		return nil, nil
	}
	return &s, nil
}

// colorValue is #rrggbb, in lower case, for that or for one of the ten names that
// danmaku sites have, with the values that they have there; empty for anything
// else.
func colorValue(s string) string {
	switch s {
	case "white":
		return "#ffffff"
	case "black":
		return "#000000"
	case "red":
		return "#ff0000"
	case "pink":
		return "#ff8080"
	case "orange":
		return "#ffcc00"
	case "yellow":
		return "#ffff00"
	case "green":
		return "#00ff00"
	case "cyan":
		return "#00ffff"
	case "blue":
		return "#0000ff"
	case "purple":
		return "#c000ff"
	}
	if len(s) != 7 || s[0] != '#' {
		return ""
	}
	s = strings.ToLower(s)
	for _, c := range []byte(s[1:]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
	}
	return s
}

// checkMedia refuses what is no position in a programme.
func checkMedia(ms *int64) *Error {
	if ms != nil && (*ms < 0 || *ms > MaxMediaMS) {
		return bad("media_ms must be %s", wantMedia)
	}
	return nil
}

func bad(format string, a ...any) *Error {
	return &Error{Code: CodeBadMessage, Message: fmt.Sprintf(format, a...)}
}

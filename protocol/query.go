package protocol

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// MaxPage is how many comments one answer to GET /v1/rooms/{room}/comments has at most.
const MaxPage = 1000

// CommentsQuery is what GET /v1/rooms/{room}/comments is asked for. At most one of the
// cursors is there.
type CommentsQuery struct {
	Since  string // poll: what came after it
	Before string // go backwards: the comments up to it
	After  string // go forwards: the comments behind it
	Limit  int    // of comments, 1 to MaxPage; 0: not said
}

// DecodeCommentsQuery decodes the raw query of GET /v1/rooms/{room}/comments. Parameters
// that it does not know are ignored, and so is an empty since. Its error is always an
// *[Error], which names the parameter.
func DecodeCommentsQuery(raw string) (*CommentsQuery, error) {
	var q CommentsQuery
	cursor := "" // the name of the one that is there
	err := readQuery(raw, func(name, value string) *Error {
		into := map[string]*string{"since": &q.Since, "before": &q.Before, "after": &q.After}[name]
		switch {
		case name == "limit":
			return readLimit(value, &q.Limit)
		case name == "since" && value == "":
			return nil
		case !ValidCursor(value):
			return bad("%s must be a cursor, 1 to %d of A-Z a-z 0-9 _ -, not %.20q", name, MaxCursor, value)
		case cursor != "":
			return bad("%s and %s exclude each other: send one of them", cursor, name)
		}
		*into, cursor = value, name
		return nil
	}, "since", "before", "after", "limit")
	if err != nil {
		return nil, err
	}
	return &q, nil
}

// ListQuery is what the lists of members and rooms are asked for.
type ListQuery struct {
	Cursor  string // empty: from the beginning
	Limit   int    // 1 to MaxPage
	Sort    string // users, or empty
	Leaving bool
}

// ListPage is how many entries a page of a list has when it is not said.
const ListPage = 100

// DecodeListQuery decodes the raw query of a list. Its error is always an *[Error].
func DecodeListQuery(raw string) (*ListQuery, error) {
	q := ListQuery{Limit: ListPage}
	err := readQuery(raw, func(name, value string) *Error {
		switch name {
		case "limit":
			return readLimit(value, &q.Limit)
		case "cursor":
			if !isToken(value, MaxListCursor) && value != "" {
				return bad("cursor must be what a page ended with, not %.20q", value)
			}
			q.Cursor = value
		case "sort":
			if value != "users" {
				return bad("sort must be users, not %.20q", value)
			}
			q.Sort = value
		case "leaving":
			if value != "1" && value != "0" {
				return bad("leaving must be 0 or 1, not %.20q", value)
			}
			q.Leaving = value == "1"
		}
		return nil
	}, "limit", "cursor", "sort", "leaving")
	if err != nil {
		return nil, err
	}
	return &q, nil
}

// readQuery calls each with the parameters of a raw query that have one of the names.
func readQuery(raw string, each func(name, value string) *Error, names ...string) *Error {
	var seen []string
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil || !slices.Contains(names, name) {
			continue // nobody's name, or somebody else's
		}
		if slices.Contains(seen, name) {
			return bad("%s appears twice", name)
		}
		seen = append(seen, name)
		if plain, err := url.QueryUnescape(value); err == nil {
			value = plain
		}
		if err := each(name, value); err != nil {
			return err
		}
	}
	return nil
}

func readLimit(value string, into *int) *Error {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n < 1 || n > MaxPage {
		return bad("limit must be a whole number from 1 to %d, not %.20q", MaxPage, value)
	}
	*into = int(n)
	return nil
}

package protocol

import (
	"net/url"
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
	var (
		q     CommentsQuery
		limit string
		known = []struct {
			name string
			into *string
			seen bool
		}{{name: "since", into: &q.Since}, {name: "before", into: &q.Before}, {name: "after", into: &q.After}, {name: "limit", into: &limit}}
		cursor string // the name of the one that is there
	)
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			continue // nobody's name
		}
		for i := range known {
			p := &known[i]
			if p.name != name {
				continue
			}
			if p.seen {
				return nil, bad("%s appears twice", name)
			}
			p.seen = true
			if plain, err := url.QueryUnescape(value); err == nil {
				value = plain
			}
			*p.into = value
			switch {
			case name == "limit":
				n, err := strconv.ParseUint(value, 10, 16)
				if err != nil || n < 1 || n > MaxPage {
					return nil, bad("limit must be a whole number from 1 to %d, not %.20q", MaxPage, value)
				}
				q.Limit = int(n)
			case name == "since" && value == "":
			case !ValidCursor(value):
				return nil, bad("%s must be a cursor, 1 to %d of A-Z a-z 0-9 _ -, not %.20q", name, MaxCursor, value)
			case cursor != "":
				return nil, bad("%s and %s exclude each other: send one of them", cursor, name)
			default:
				cursor = name
			}
		}
	}
	return &q, nil
}

package protocol

import (
	"errors"
	"strings"
	"testing"
)

func TestCommentsQuery(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("z", MaxCursor)
	for _, c := range []struct {
		raw  string
		want CommentsQuery
		says string // of the refusal; empty: there is none
	}{
		{"", CommentsQuery{}, ""},
		{"limit=1", CommentsQuery{Limit: 1}, ""},
		{"limit=1000&before=Zk3v-a_b", CommentsQuery{Before: "Zk3v-a_b", Limit: 1000}, ""},
		{"after=x&token=y", CommentsQuery{After: "x"}, ""},
		{"since=" + long + "&limit=7", CommentsQuery{Since: long, Limit: 7}, ""},
		{"since=&before=x", CommentsQuery{Before: "x"}, ""},
		{"s%69nce=%61", CommentsQuery{Since: "a"}, ""},
		{"Limit=x&LIMIT=y&page=3&=&%zz=%zz&limits=0", CommentsQuery{}, ""},
		{"limit=", CommentsQuery{}, `limit must be a whole number from 1 to 1000, not ""`},
		{"limit", CommentsQuery{}, `limit must be`},
		{"limit=0", CommentsQuery{}, `not "0"`},
		{"limit=1001", CommentsQuery{}, `not "1001"`},
		{"limit=-1", CommentsQuery{}, `not "-1"`},
		{"limit=%2B1", CommentsQuery{}, `not "+1"`},
		{"limit=1.5", CommentsQuery{}, `not "1.5"`},
		{"limit=1e2", CommentsQuery{}, `not "1e2"`},
		{"limit=0x10", CommentsQuery{}, `not "0x10"`},
		{"limit=1_0", CommentsQuery{}, `not "1_0"`},
		{"limit=10;before=x", CommentsQuery{}, `limit must be`},
		{"limit=%zz", CommentsQuery{}, `not "%zz"`},
		{"limit=" + strings.Repeat("9", 5000), CommentsQuery{}, `not "99999999999999999999"`},
		{"limit=1&limit=1", CommentsQuery{}, "limit appears twice"},
		{"before=", CommentsQuery{}, `before must be a cursor, 1 to 40 of A-Z a-z 0-9 _ -, not ""`},
		{"after=a%20b", CommentsQuery{}, `after must be a cursor`},
		{"since=%00", CommentsQuery{}, `since must be a cursor`},
		{"since=" + long + "z", CommentsQuery{}, `since must be a cursor`},
		{"before=a&before=a", CommentsQuery{}, "before appears twice"},
		{"before=a&after=b", CommentsQuery{}, "before and after exclude each other: send one of them"},
		{"after=a&since=b", CommentsQuery{}, "after and since exclude each other"},
		{"since=a&before=b", CommentsQuery{}, "since and before exclude each other"},
	} {
		q, err := DecodeCommentsQuery(c.raw)
		if c.says == "" {
			if err != nil || *q != c.want {
				t.Errorf("%.60s: %+v, %v, want %+v", c.raw, q, err, c.want)
			}
			continue
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Code != CodeBadMessage || !strings.Contains(e.Message, c.says) || len(e.Message) > 150 {
			t.Errorf("%.60s: %v, want %s", c.raw, err, c.says)
		}
	}
}

func FuzzCommentsQuery(f *testing.F) {
	for _, raw := range []string{"", "limit=10&since=a-b", "before=x&after=y", "limit=%zz;;&&=&", "since=%00"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := DecodeCommentsQuery(raw)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeBadMessage || e.Message == "" {
				t.Errorf("refused with %v", err)
			}
			return
		}
		cursors := 0
		for _, c := range []string{q.Since, q.Before, q.After} {
			if c == "" {
				continue
			}
			if cursors++; !ValidCursor(c) {
				t.Errorf("%q is taken for a cursor", c)
			}
		}
		if cursors > 1 || q.Limit < 0 || q.Limit > MaxPage {
			t.Errorf("taken: %+v", q)
		}
	})
}

package watchlog

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// silentLife is for how long nothing may have been heard of a node about a room with viewers before it counts as dead. Its
// checkpoints come once a minute.
const silentLife = 3 * time.Minute

// nextWord is how long after a node was last heard about a room it says something again, at the latest, while somebody is there.
const nextWord = int64((defaultEvery + 5*time.Second) / time.Millisecond)

// Fold puts the batches of a room together. The same batches make the same fold, in whatever order those of different nodes come, and
// however often each comes; those of one node come in their order.
type Fold struct {
	lives map[string]*life
}

type life struct {
	n     uint64 // of its last batch
	at    int64  // when it was last heard
	seen  map[uint64]bool
	conns map[uint32]*conn
}

// conn is what is known of a connection. Only its last row may have no end.
type conn struct {
	who  Row // the row that says who it is
	rows []Row
}

// NewFold makes a Fold without batches.
func NewFold() *Fold { return &Fold{lives: map[string]*life{}} }

// Add takes a batch in, and reports whether it is in its place: one that should have come before another one that was taken in is
// passed over.
func (f *Fold) Add(b *Batch) bool {
	l := f.lives[b.Life]
	if l == nil {
		l = &life{conns: map[uint32]*conn{}, seen: map[uint64]bool{}}
		f.lives[b.Life] = l
	}
	if b.N <= l.n {
		return l.seen[b.N] // it has come before
	}
	l.n, l.at, l.seen[b.N] = b.N, max(l.at, b.At), true
	for _, row := range b.Rows {
		c := l.conns[row.Conn]
		if c == nil {
			c = new(conn)
			l.conns[row.Conn] = c
		}
		c.take(row)
	}
	for _, s := range b.Same {
		if int64(s[1])-int64(s[0]) > int64(len(l.conns)) {
			for n, c := range l.conns {
				if n >= s[0] && n <= s[1] {
					c.extend(b.At)
				}
			}
			continue
		}
		for n := uint64(s[0]); n <= uint64(s[1]); n++ {
			if c := l.conns[uint32(n)]; c != nil {
				c.extend(b.At)
			}
		}
	}
	return true
}

// take puts a row in its place.
func (c *conn) take(row Row) {
	if row.User != "" {
		c.who = row
		c.who.Visible, c.who.Played = nil, nil
	}
	row.To = max(row.To, row.From)
	last := len(c.rows) - 1
	switch {
	case last < 0 || row.N > c.rows[last].N:
		c.rows = append(c.rows, row)
	case row.N == c.rows[last].N && c.rows[last].End == "":
		c.rows[last] = row
	}
}

// extend has the last row go on as it was until a moment.
func (c *conn) extend(at int64) {
	if len(c.rows) == 0 {
		return
	}
	r := &c.rows[len(c.rows)-1]
	more := at - r.To
	if r.End != "" || more <= 0 {
		return
	}
	r.To = at
	if n := len(r.Visible); r.Seen && n > 0 {
		r.Visible[n-1][1] = at
	}
	if n := len(r.Played); r.Plays && n > 0 {
		p := &r.Played[n-1]
		p[3] += at - p[1]
		p[1] = at
	}
}

// Erase forgets connections of users, by whose they were and when they began.
func (f *Fold) Erase(is func(user string, from int64) bool) {
	for _, l := range f.lives {
		maps.DeleteFunc(l.conns, func(_ uint32, c *conn) bool { return len(c.rows) > 0 && is(c.who.User, c.rows[0].From) })
	}
}

// Spans are from when to when somebody was there who is known of, in order and apart from one another by more than a silence.
// now is the end of those that are not over.
func (f *Fold) Spans(silence time.Duration) []Range {
	var all []Range
	for _, l := range f.lives {
		for _, c := range l.conns {
			if n := len(c.rows); n > 0 {
				all = append(all, Range{c.rows[0].From, c.rows[n-1].To})
			}
		}
	}
	return union(all, silence.Milliseconds())
}

// session is a connection as it is shaped.
type session struct {
	life    string
	conn    uint32
	who     Row
	from    int64
	to      int64
	visible []Range
	played  []Played
	end     End
	guessed bool  // its node was not heard of again
	upTo    int64 // when it was last known to be there
}

// sessions lists the connections of all lives as they are known at a moment, in an order of their own. closed says that what has no end
// by then has none that will be told.
func (f *Fold) sessions(asOf int64, closed bool) []session {
	var all []session
	for name, l := range f.lives {
		for number, c := range l.conns {
			if len(c.rows) == 0 || c.who.User == "" {
				continue // the batch that says who it was was dropped
			}
			last := &c.rows[len(c.rows)-1]
			s := session{life: name, conn: number, who: c.who, from: c.rows[0].From, to: last.To, end: last.End, upTo: last.To}
			for _, r := range c.rows {
				s.visible = append(s.visible, r.Visible...)
				s.played = append(s.played, r.Played...)
			}
			switch open := s.end == "" || s.end == EndMore; {
			case open && (closed || asOf-l.at > silentLife.Milliseconds()):
				s.end, s.guessed = EndDied, true
			case open: // it is there: its end would have been told
				s.end = ""
				s.stay(last, min(asOf, l.at+nextWord))
			}
			s.visible = union(s.visible, 0)
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b session) int {
		return cmp.Or(cmp.Compare(a.who.User, b.who.User), cmp.Compare(a.from, b.from), cmp.Compare(a.life, b.life), cmp.Compare(a.conn, b.conn))
	})
	return all
}

// stay has a session that is there go on until a moment.
func (s *session) stay(last *Row, until int64) {
	if until <= s.to {
		return
	}
	if n := len(s.visible); last.Seen && n > 0 {
		s.visible[n-1][1] = until
	}
	if n := len(s.played); last.Plays && n > 0 {
		p := &s.played[n-1]
		p[1], p[3] = until, p[3]+until-p[1]
	}
	s.to = until
}

// union joins ranges that overlap, or are no more than gap apart.
func union(all []Range, gap int64) []Range {
	all = slices.DeleteFunc(slices.Clone(all), func(r Range) bool { return r[1] < r[0] })
	slices.SortFunc(all, func(a, b Range) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	var out []Range
	for _, r := range all {
		if n := len(out); n > 0 && r[0] <= out[n-1][1]+gap {
			out[n-1][1] = max(out[n-1][1], r[1])
		} else {
			out = append(out, r)
		}
	}
	return out
}

// total is how long ranges are together, in milliseconds.
func total(ranges []Range) (ms int64) {
	for _, r := range ranges {
		ms += r[1] - r[0]
	}
	return ms
}

// clip is the part of ranges within another one.
func clip(ranges []Range, in Range) (out []Range) {
	for _, r := range ranges {
		if c := (Range{max(r[0], in[0]), min(r[1], in[1])}); c[0] < c[1] {
			out = append(out, c)
		}
	}
	return out
}

// clipPlayed is the same of stretches of the programme.
func clipPlayed(all []Played, in Range) (out []Played) {
	for _, p := range all {
		from, to, took := max(p[0], in[0]), min(p[1], in[1]), p[1]-p[0]
		if from >= to {
			continue
		}
		at := func(when int64) int64 { return p[2] + (p[3]-p[2])*(when-p[0])/took }
		out = append(out, Played{from, to, at(from), at(to)})
	}
	return out
}

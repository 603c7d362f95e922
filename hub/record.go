package hub

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"github.com/kansei-live/kansei/protocol"
)

// Record is the body of a [Standing]: of an act, or of the lasting events of a name.
type Record struct {
	Act     Act      `json:"act,omitzero"`
	Lasting *Lasting `json:"lasting,omitempty"`
	Undo    *Act     `json:"undo,omitempty"` // it was undone by this act
	Gone    bool     `json:"gone,omitempty"` // it was never done
	// Pos and PosAt are where its event is in the log, or that of Undo, and when it was stored there;
	// 0: not known.
	Pos   uint64 `json:"pos,omitempty"`
	PosAt int64  `json:"pos_at,omitempty"`
}

// records decodes records, one after the other. A room that is opened may have ten thousand, for which
// its first viewer waits: those that are written as [json.Marshal] writes them, without escapes, are
// read at a quarter of its time.
type records struct {
	by   []byte // of the last one, which many have in common
	user protocol.User
}

// decode decodes a record; false if it is none.
func (d *records) decode(p []byte) (rec Record, ok bool) {
	s := scanner{p: p, bad: !utf8.Valid(p)}
	s.object(func(name string) {
		switch name {
		case "act":
			d.act(&s, &rec.Act)
		case "pos":
			rec.Pos = uint64(s.number())
		case "pos_at":
			rec.PosAt = s.number()
		default:
			s.bad = true
		}
	})
	if s.bad || len(s.p) > 0 {
		rec = Record{}
		ok = json.Unmarshal(p, &rec) == nil
	} else {
		ok = true
	}
	return rec, ok && (rec.Act.ID != "" || rec.Lasting != nil)
}

func (d *records) act(s *scanner, a *Act) {
	s.object(func(name string) {
		switch name {
		case "id":
			a.ID = s.text()
		case "kind":
			a.Kind = s.text()
		case "by":
			s.bad = s.bad || a.By != protocol.User{} // twice
			a.By = d.author(s)
		case "at":
			a.At = s.number()
		case "ids":
			a.IDs = nil
			s.list(func() { a.IDs = append(a.IDs, s.text()) })
		case "hash":
			a.Hash = s.text()
		case "user":
			a.User = s.text()
		case "name":
			a.Name = s.text()
		case "reason":
			a.Reason = s.text()
		case "ends":
			a.Ends = s.number()
		case "after":
			a.After = uint64(s.number())
		default:
			s.bad = true
		}
	})
}

// author reads who has done an act.
func (d *records) author(s *scanner) protocol.User {
	if len(d.by) > 0 && bytes.HasPrefix(s.p, d.by) {
		s.p = s.p[len(d.by):]
		return d.user
	}
	at, u := s.p, protocol.User{}
	s.object(func(name string) {
		switch name {
		case "id":
			u.ID = s.text()
		case "name":
			u.Name = s.text()
		case "role":
			u.Role = protocol.Role(s.text())
		default:
			s.bad = true
		}
	})
	if !s.bad {
		d.by, d.user = at[:len(at)-len(s.p)], u
	}
	return u
}

// scanner reads JSON without spaces and escapes, from the front. What is written otherwise is bad; what it
// returns counts for nothing then.
type scanner struct {
	p   []byte
	bad bool
}

// next reports whether c is next, and passes it.
func (s *scanner) next(c byte) bool {
	if s.bad || len(s.p) == 0 || s.p[0] != c {
		return false
	}
	s.p = s.p[1:]
	return true
}

func (s *scanner) must(c byte) { s.bad = s.bad || !s.next(c) }

// object calls field for each field, which reads the value.
func (s *scanner) object(field func(name string)) {
	s.must('{')
	for first := true; !s.bad && !s.next('}'); first = false {
		if !first {
			s.must(',')
		}
		name := s.text()
		s.must(':')
		field(name)
	}
}

// list calls value for each value, which reads it.
func (s *scanner) list(value func()) {
	s.must('[')
	for first := true; !s.bad && !s.next(']'); first = false {
		if !first {
			s.must(',')
		}
		value()
	}
}

func (s *scanner) text() string {
	s.must('"')
	for i, c := range s.p {
		switch {
		case c == '"':
			text := string(s.p[:i])
			s.p = s.p[i+1:]
			return text
		case c == '\\' || c < ' ':
			s.bad = true
			return ""
		}
	}
	s.bad = true
	return ""
}

// number reads a whole number from 0 to 10^18.
func (s *scanner) number() (n int64) {
	i := 0
	for ; i < len(s.p) && s.p[i] >= '0' && s.p[i] <= '9'; i++ {
		n = n*10 + int64(s.p[i]-'0')
	}
	s.bad = s.bad || i == 0 || i > 18 || i > 1 && s.p[0] == '0'
	s.p = s.p[i:]
	return n
}

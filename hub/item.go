package hub

import (
	"cmp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// item is one event, encoded once.
type item struct {
	seq     uint64
	at      int64         // by the log's clock
	came    time.Duration // how old the hub was: what is kept does not depend on clocks
	comment bool
	event   bool  // it is an event of the application
	notice  bool  // it is an act: for those who have the comments before it, not for new viewers
	brings  bool  // it is an act that brings comments back
	hidden  bool  // it was said by somebody, and an act hides it
	rank    uint8 // of its author
	author  string
	// json is an element of a comments message, or of another kind's event the whole message.
	json []byte
}

func (it *item) position() Position { return Position{it.seq, it.at} }

// said reports whether somebody has said it, so that acts may hide it: a comment, or an event of the
// application.
func (it *item) said() bool { return it.comment || it.event }

// encode makes the item of an event of a room for a view; without json when there is nothing to be
// told. live says that the event has just been applied.
func (s *sight) encode(r *Room, e *Event, tag string, v *view, live bool) item {
	it := item{seq: e.Seq, at: e.At, comment: e.Kind == KindComment, event: e.Kind == KindEvent, notice: s.act}
	switch {
	case s.act:
		it.json, it.brings = r.actMessage(e, v, live)
		return it
	case !it.said():
		it.json = s.kind.Message(e, makeCursor(tag, e.Position()))
		return it
	}
	it.author, it.rank, it.hidden = s.author, uint8(s.rank), s.see != shown
	body := e.Body
	if alias := r.hub.cfg.Alias; alias != nil && !v.staff {
		body = protocol.ReplaceUser(body, func(id string) string { return alias(r.name, id) })
		if body == nil { // nobody could be told of its author
			body = []byte("{}")
		}
	}
	if it.event {
		it.json = protocol.AppendEvent(nil, commentID(e), e.At, r.toldAudience(e, v), body, makeCursor(tag, e.Position()))
		return it
	}
	const head = 48 // id, time and their names
	it.json = protocol.AppendItem(make([]byte, 0, head+len(body)), commentID(e), e.At, body)
	return it
}

// toldAudience is the audience of an event as those of a view are told it.
func (r *Room) toldAudience(e *Event, v *view) string {
	user, one := strings.CutPrefix(e.Audience, AudienceUser)
	if alias := r.hub.cfg.Alias; one && alias != nil && !v.staff {
		return AudienceUser + alias(r.name, user)
	}
	return e.Audience
}

// aside is an event that one user gets, or nobody, and not the view.
type aside struct {
	item
	user    string
	sampled bool // the view is told how many of these there are
	mine    bool // it is an item too, hidden from all but its author
}

// behind is how many of items, or of asides, lie up to a position.
func behind(items []item, seq uint64) int {
	return sort.Search(len(items), func(i int) bool { return items[i].seq > seq })
}

func asidesBehind(asides []aside, seq uint64) int {
	return sort.Search(len(asides), func(i int) bool { return asides[i].seq > seq })
}

// showing returns those of items that are not hidden, and neither notices nor events if they are for a
// new viewer: that is told the latest lasting ones (lasting.go).
func showing(items []item, newest bool) []item {
	drop := func(it item) bool { return it.hidden || newest && (it.notice || it.event) }
	if !slices.ContainsFunc(items, drop) { // as almost always
		return items
	}
	return slices.DeleteFunc(slices.Clone(items), drop)
}

// comments is how many of items are comments that are seen.
func comments(items []item) int {
	n := 0
	for i := range items {
		if items[i].comment && !items[i].hidden {
			n++
		}
	}
	return n
}

// chunk is what is written at once of a stretch of a view, up to a position: the frame
// that everybody gets, and what some get in its place.
type chunk struct {
	frame *Frame    // nil: who is not in own gets nothing
	own   *personal // nil: everybody gets the frame
}

// personal is what a chunk needs to be another one for the users of its asides. It does not
// change once it is made.
type personal struct {
	enc     encoder
	history bool
	at      Position // what the chunk's cursor stands for
	items   []item   // that everybody gets
	sampled []uint64 // the positions of what was sampled out
	of      map[string][]aside
	bytes   int // of the asides
}

// encoder makes the chunks of one view.
type encoder struct {
	tag    string
	wanted demand
}

// chunk makes the chunk of a stretch of a view that ends at a position.
func (e encoder) chunk(items []item, asides []aside, at Position, history bool) chunk {
	var c chunk
	var sampled []uint64
	items = showing(items, false)
	if len(asides) > 0 {
		own := &personal{enc: encoder{tag: e.tag}, history: history, at: at, items: items, of: map[string][]aside{}}
		for i := range asides {
			a := &asides[i]
			if a.user != "" && !a.hidden {
				own.of[a.user] = append(own.of[a.user], *a)
			}
			if a.sampled {
				sampled = append(sampled, a.seq)
			}
			own.bytes += len(a.json)
		}
		own.sampled = sampled
		c.own = own
	}
	if history {
		sampled = nil // how many there were was told when it happened
	}
	if messages := e.messages(items, sampled, at, history); len(messages) > 0 {
		c.frame = newFrame(messages, e.wanted)
	}
	return c
}

// messages makes the messages of a stretch of a view. Comments that follow each other are
// one message, which tells how many were sampled out before its cursor.
func (e encoder) messages(items []item, sampled []uint64, at Position, history bool) (messages [][]byte) {
	for len(items) > 0 {
		if !items[0].comment {
			messages, items = append(messages, items[0].json), items[1:]
			continue
		}
		n := slices.IndexFunc(items, func(it item) bool { return !it.comment })
		upTo := at
		if n < 0 {
			n = len(items)
		} else {
			upTo = items[n-1].position()
		}
		out := sort.Search(len(sampled), func(i int) bool { return sampled[i] > upTo.Seq })
		messages = append(messages, e.comments(items[:n], upTo, out, history))
		items, sampled = items[n:], sampled[out:]
	}
	if len(sampled) > 0 {
		messages = append(messages, e.comments(nil, at, len(sampled), history))
	}
	return messages
}

// comments makes one comments message, of items out of so many more.
func (e encoder) comments(items []item, at Position, sampled int, history bool) []byte {
	parts, size := texts(items)
	dst, cursor := make([]byte, 0, size), makeCursor(e.tag, at)
	if history {
		return protocol.AppendComments(dst, cursor, true, parts)
	}
	return protocol.AppendSample(dst, cursor, len(items)+sampled, parts)
}

// page makes the message of one page, whose end is the cursor; before may be empty. first are messages
// that come before those of the items.
func page(items []item, cursor, before string, first ...[]byte) []byte {
	var others []item
	if n := comments(items); n < len(items) {
		said := make([]item, 0, n)
		for _, it := range items {
			if it.comment {
				said = append(said, it)
			} else {
				others = append(others, it)
			}
		}
		items = said
	}
	parts, size := texts(items)
	messages, more := texts(others)
	messages = append(first, messages...)
	return protocol.AppendPage(make([]byte, 0, size+more), cursor, before, parts, messages)
}

// texts returns the JSON of items, and about how long their message will be.
func texts(items []item) (parts [][]byte, size int) {
	parts = make([][]byte, len(items))
	size = 128
	for i := range items {
		parts[i] = items[i].json
		size += len(items[i].json) + 1
	}
	return parts, size
}

// divide calls f with stretches of items that fit into a frame each, the asides that belong
// to them, and where they end; the last one ends at upTo. It does nothing if there is nothing.
func divide(items []item, asides []aside, upTo Position, f func([]item, []aside, Position)) {
	if len(items) == 0 && len(asides) > 0 {
		f(nil, asides, upTo)
	}
	left := len(items)
	split(items, func(part []item) {
		at, n := upTo, len(asides)
		if left -= len(part); left > 0 {
			at = part[len(part)-1].position()
			n = asidesBehind(asides, at.Seq)
		}
		f(part, asides[:n], at)
		asides = asides[n:]
	})
}

// split calls f with stretches of items that come to at most maxFrame bytes each, or have
// one item.
func split(items []item, f func([]item)) {
	for len(items) > 0 {
		n, size := 0, 0
		for n < len(items) && (n == 0 || size+len(items[n].json) <= maxFrame) {
			size += len(items[n].json)
			n++
		}
		f(items[:n])
		items = items[n:]
	}
}

// append appends to dst what a viewer gets of a chunk who has everything up to since.
func (c *chunk) append(dst [][]byte, v *Viewer, since uint64) [][]byte {
	if c.own != nil {
		if mine := c.own.of[v.user]; len(mine) > 0 && mine[len(mine)-1].seq > since {
			return c.own.append(dst, v, mine[asidesBehind(mine, since):])
		}
	}
	if c.frame == nil {
		return dst
	}
	return append(dst, c.frame.bytes(v.form))
}

// append appends to dst what a viewer gets of a chunk with its own events in their places:
// more than one frame if they make it too long. Each tells how many of how many it shows of
// what lies before its cursor.
func (p *personal) append(dst [][]byte, v *Viewer, mine []aside) [][]byte {
	all := make([]item, 0, len(p.items)+len(mine))
	all = append(all, p.items...)
	others := make([]uint64, 0, len(p.sampled)) // that were sampled out
	n := 0
	for _, seq := range p.sampled {
		if n += asidesBehind(mine[n:], seq-1); n == len(mine) || mine[n].seq != seq {
			others = append(others, seq)
		}
	}
	for i := range mine {
		all = append(all, mine[i].item)
	}
	slices.SortFunc(all, func(a, b item) int { return cmp.Compare(a.seq, b.seq) })
	divide(all, nil, p.at, func(part []item, _ []aside, upTo Position) {
		out := sort.Search(len(others), func(i int) bool { return others[i] > upTo.Seq })
		sampled := others[:out]
		if p.history {
			sampled = nil
		}
		dst = append(dst, newFrame(p.enc.messages(part, sampled, upTo, p.history), nil).bytes(v.form))
		others = others[out:]
	})
	return dst
}

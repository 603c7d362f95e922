package hub

// keepCacheBytes is how many bytes of ready chunks of its past a view keeps.
const keepCacheBytes = 8 << 20

// cache is the encoded chunks of a view's past, by the items that they hold: those of the
// recent comments, which every new viewer gets; of whole runs of chunkItems items, which all
// returning viewers share; and of the pieces at both ends of a resume. Neither chunks nor the
// slices that hold them are changed.
type cache struct {
	of    map[piece][]chunk
	bytes int
	used  bool // since it was looked at last
}

// piece is some items of a view, by their ordinals: from the first up to, and without, the
// last.
type piece struct {
	from, to uint64
	newest   bool // for new viewers, who need a cursor even if there is nothing
}

func (c *cache) get(p piece) ([]chunk, bool) {
	got, ok := c.of[p]
	c.used = c.used || ok
	return got, ok
}

// put keeps chunks. Once they are too many it begins anew.
func (c *cache) put(p piece, chunks []chunk) {
	n := sizeOf(chunks)
	if c.of == nil || c.bytes+n > keepCacheBytes {
		*c = cache{of: map[piece][]chunk{}}
	}
	c.of[p] = chunks
	c.bytes += n
	c.used = true
}

// invalidate forgets the chunks of everything from an ordinal on, and of what ends there:
// asides may come behind it.
func (c *cache) invalidate(from uint64) { c.drop(func(p piece) bool { return p.to >= from }) }

// forget forgets the chunks of what comes before an ordinal.
func (c *cache) forget(before uint64) { c.drop(func(p piece) bool { return p.from < before }) }

func (c *cache) drop(which func(piece) bool) {
	for p, chunks := range c.of {
		if which(p) {
			c.bytes -= sizeOf(chunks)
			delete(c.of, p)
		}
	}
}

func (c *cache) clear() { *c = cache{} }

// sizeOf is how many bytes chunks keep alive beside the items: about as many as their
// messages have.
func sizeOf(chunks []chunk) int {
	n := 0
	for _, c := range chunks {
		if c.frame != nil {
			n += c.frame.length()
		}
	}
	return n
}

// pieces of a view's past. Room.mu is held.

// newest returns the chunks for a new viewer: the latest n comments that are in frames,
// what came between them, and with them the cursor.
func (v *view) newest(e encoder, n int) []chunk {
	return v.piece(e, piece{v.base + uint64(v.recent(n)), v.framed, true})
}

// since returns the chunks of all framed items from an ordinal on.
func (v *view) since(e encoder, from uint64) []chunk {
	var out []chunk
	for at := from; at < v.framed; {
		to := min(v.framed, (at/chunkItems+1)*chunkItems)
		out = append(out, v.piece(e, piece{at, to, false})...)
		at = to
	}
	if from >= v.framed { // asides may have come
		out = v.piece(e, piece{v.framed, v.framed, false})
	}
	return out
}

// piece returns the chunks of a piece.
func (v *view) piece(e encoder, p piece) []chunk {
	if got, ok := v.cache.get(p); ok {
		return got
	}
	items := v.items[p.from-v.base : p.to-v.base]
	after, upTo := v.floor.Seq, v.at
	if p.from > v.base {
		after = v.items[p.from-v.base-1].seq
	}
	if p.to < v.framed {
		upTo = items[len(items)-1].position()
	}
	items = showing(items, p.newest)
	asides := v.asides[asidesBehind(v.asides, after):asidesBehind(v.asides, upTo.Seq)]
	var out []chunk
	divide(items, asides, upTo, func(items []item, asides []aside, at Position) {
		out = append(out, e.chunk(items, asides, at, true))
	})
	if len(items) == 0 && p.newest {
		cursor := newFrame([][]byte{e.comments(nil, upTo, 0, true)}, e.wanted)
		if len(out) == 0 {
			out = make([]chunk, 1)
		}
		out[0].frame = cursor
	}
	v.cache.put(p, out)
	return out
}

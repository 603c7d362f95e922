package archive

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strconv"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/watchlog"
	"github.com/kansei-live/kansei/protocol"
)

// history is what a room's log says of its broadcasts: when something was said, and the states.
type history struct {
	first, last hub.Position // of the events that were read
	read        bool
	more        bool    // there are others before first
	comments    []int64 // when they were said, in no order
	changes     []change
}

// change is a state that the log tells of.
type change struct {
	at    int64
	state protocol.State
}

// pageSize is how many events are read at a time.
const pageSize = 1000

// longestWait is how long before a broadcast began viewers may have waited for it.
const longestWait = int64(12 * 60 * 60 * 1000)

// update reads what has come since.
func (h *history) update(ctx context.Context, log Log, room string) error {
	had, end, at := h.last, hub.Position{}, hub.Position{Seq: hub.EndSeq}
	var events []hub.Event
	for {
		page, err := log.Before(ctx, room, "", at, false, pageSize)
		if err != nil {
			return err
		}
		if n := len(page.Events); n > 0 && end.Seq == 0 {
			end = page.Events[n-1].Position()
		}
		events = append(events, page.Events...)
		if !h.read { // the last page is enough: others are read when they are wanted
			h.first, h.more = page.From, page.More
			break
		}
		if page.From.Seq <= had.Seq || !page.More {
			break
		}
		at = page.From
	}
	h.read = true
	for i := range events {
		if events[i].Seq > had.Seq {
			h.take(&events[i])
		}
	}
	if end.Seq > had.Seq {
		h.last = end
	}
	return nil
}

// reach reads back to a moment, and on to where it is known what the state was then.
func (h *history) reach(ctx context.Context, log Log, room string, since int64) error {
	if err := h.update(ctx, log, room); err != nil {
		return err
	}
	for h.more && !h.knows(since) {
		if err := h.back(ctx, log, room); err != nil {
			return err
		}
	}
	return nil
}

// back reads a page before what was read.
func (h *history) back(ctx context.Context, log Log, room string) error {
	page, err := log.Before(ctx, room, "", h.first, false, pageSize)
	if errors.Is(err, hub.ErrForgotten) {
		h.more = false // what was before is gone by now
		return nil
	}
	if err != nil {
		return err
	}
	for i := range page.Events {
		h.take(&page.Events[i])
	}
	h.more = page.More && page.From.Seq > 0
	if page.From.Seq > 0 {
		h.first = page.From
	}
	return nil
}

// knows reports whether it was read back far enough to know what was before a moment.
func (h *history) knows(since int64) bool {
	if h.first.At < since-longestWait {
		return true
	}
	if h.first.At >= since {
		return false
	}
	for _, c := range h.changes {
		if c.at < since && c.state.Status != protocol.StatusScheduled {
			return true
		}
	}
	return false
}

func (h *history) take(e *hub.Event) {
	switch e.Kind {
	case hub.KindComment:
		h.comments = append(h.comments, e.At)
	case hub.KindState:
		var body struct {
			State protocol.State `json:"state"`
		}
		if json.Unmarshal(e.Body, &body) == nil {
			h.changes = append(h.changes, change{e.At, body.State})
		}
	}
}

// waiting is since when a room was scheduled that went live at a moment; 0: it was not.
func (h *history) waiting(began int64) int64 {
	since, until := int64(0), int64(0)
	for _, c := range h.changes { // the last state before that was another one
		if c.at < began && c.state.Status != protocol.StatusScheduled {
			until = max(until, c.at)
		}
	}
	for _, c := range h.changes {
		if c.at < began && c.at > until && c.state.Status == protocol.StatusScheduled && (since == 0 || c.at < since) {
			since = c.at
		}
	}
	if since > 0 {
		since = max(since, began-longestWait)
	}
	return since
}

// states adds to all the broadcasts that the log tells of. It reads back as long as one up to a number is missing.
func (h *history) states(ctx context.Context, log Log, room string, upTo int64, all map[string]watchlog.Broadcast) error {
	if err := h.update(ctx, log, room); err != nil {
		return err
	}
	for {
		for i := range h.changes {
			bounds(room, &h.changes[i].state, all)
		}
		h.guess(room, all)
		if !h.more || complete(upTo, all) {
			return nil
		}
		if err := h.back(ctx, log, room); err != nil {
			return err
		}
	}
}

// guess adds to all the broadcasts that nodes of an earlier version have begun or ended, which do not say when: as the log has it.
func (h *history) guess(room string, all map[string]watchlog.Broadcast) {
	type times struct{ began, ended int64 }
	found := map[int64]times{}
	first := int64(0) // the first change that is known, if there are others before: it may be a later one of a broadcast that ran
	if h.more {
		first = math.MaxInt64
		for _, c := range h.changes {
			first = min(first, c.at)
		}
	}
	for _, c := range h.changes {
		n, t := c.state.Broadcast, found[c.state.Broadcast]
		switch live := c.state.Status == protocol.StatusLive; {
		case n == 0:
			continue
		case live && (t.began == 0 || c.at < t.began):
			t.began = c.at
		case !live && (t.ended == 0 || c.at < t.ended):
			t.ended = c.at
		}
		found[n] = t
	}
	for n, t := range found {
		b, known := all[strconv.FormatInt(n, 10)]
		if !known && t.began > first {
			b = watchlog.Broadcast{Room: room, ID: strconv.FormatInt(n, 10), Began: t.began}
			known = true
		}
		if known && b.Ended == 0 && t.ended > b.Began {
			b.Ended = t.ended
		}
		if known {
			all[b.ID] = b
		}
	}
}

// complete reports whether the broadcasts up to a number are known, or one from which on they are: the others were before
// that.
func complete(upTo int64, all map[string]watchlog.Broadcast) bool {
	for n := upTo; n > 0; n-- {
		b, known := all[strconv.FormatInt(n, 10)]
		if !known || n < upTo && b.Ended == 0 {
			return false
		}
	}
	return true
}

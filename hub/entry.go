package hub

import (
	"github.com/kansei-live/kansei/protocol"
)

// Entry is what the log of moderation says of an act: see [Record].
func (rec *Record) Entry() protocol.Entry {
	a := &rec.Act
	e := protocol.Entry{
		Act: a.ID, Type: a.Kind, By: a.By, At: a.At, Reason: a.Reason, Text: a.Text, Comments: len(a.IDs),
		IDs: a.IDs[:min(len(a.IDs), protocol.EntryIDs)], Ends: a.Ends, Quiet: a.Quiet, Clear: a.Clear, From: a.From,
	}
	if a.User != "" || a.Hash != "" {
		e.User = &protocol.User{ID: a.User, Name: a.Name}
	}
	if a.Broadcast > 0 {
		e.Until = protocol.UntilBroadcast
	}
	if s := a.Swept; s != nil {
		e.Sweep, e.Comments, e.Users = &s.Query, s.Comments, s.Users
	}
	if u := rec.Undo; u != nil {
		e.Undone = &protocol.Undone{Act: u.ID, By: u.By, At: u.At}
	}
	return e
}

// Logged reports whether an act has an entry of its own in the log of moderation: what the staff do, or is done to them,
// not what users take back of their own.
func (a *Act) Logged() bool {
	return a.Part == "" && a.Kind != protocol.TypeUndo && (a.By.Role.Runs() || a.Kind != protocol.TypeRemove)
}

// tellStaff tells the staff of an act that was heard, and of those that it has undone. Room.mu is held.
func (r *Room) tellStaff(a *Act, undone []*placed) {
	var messages [][]byte
	tell := func(rec Record) {
		if rec.Act.Logged() {
			e := rec.Entry()
			messages = append(messages, protocol.AppendModeration(nil, &e))
		}
	}
	tell(Record{Act: *a})
	for _, p := range undone {
		tell(Record{Act: p.Act, Undo: a})
	}
	if a.Note != nil {
		tell(Record{Act: *a.Note, Undo: a})
	}
	r.push(r.views[staffView], false, messages...)
}

package natslog

import (
	"fmt"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// A try that the server does not let through, because the user may not publish there, is
// known not to have been done. But the server names only its subject. So the tries that it
// was told of are counted: when it has refused as many on a subject as are open there, these
// are the ones. Until then, and while a try may be among them whose draft is over, nobody
// knows which they were.

// violated is told of a try on a subject that the server has not let through.
func (a *appender) violated(subject string, e *natsconn.PermissionError) {
	a.mu.Lock()
	found := false
	for _, d := range a.pending {
		if d.msg.Subject == subject && d.open > 0 {
			d.last, found = e.Error(), true
		}
	}
	if found {
		a.barred[subject]++
	}
	a.mu.Unlock()
	a.settleBarred(subject)
}

// settleBarred refuses the drafts of a subject when all their tries are known to have been
// refused.
func (a *appender) settleBarred(subject string) {
	a.mu.Lock()
	var drafts []*draft
	open := 0
	for _, d := range a.pending {
		if d.msg.Subject == subject && d.open > 0 {
			drafts = append(drafts, d)
			open += d.open
		}
	}
	if open > 0 && (a.strays > 0 || a.barred[subject] < open) {
		a.mu.Unlock()
		return
	}
	delete(a.barred, subject)
	for _, d := range drafts {
		d.open = 0
	}
	a.mu.Unlock()
	for _, d := range drafts {
		a.mu.Lock()
		if d.open > 0 { // permission has come meanwhile
			a.mu.Unlock()
			continue
		}
		a.end(d, hub.Receipt{}, fmt.Errorf("natslog: %w: %s", hub.ErrUnavailable, d.last))
	}
}

// bar has a draft wait that may not be published, or refuses it if it never was. a.mu is
// held, and unlocked.
func (a *appender) bar(d *draft, e *natsconn.PermissionError) {
	d.last = e.Error()
	if d.open == 0 {
		a.end(d, hub.Receipt{}, fmt.Errorf("natslog: %w: %w", hub.ErrUnavailable, e))
		return
	}
	a.at(d, d.end) // or until resend
	a.mu.Unlock()
}

// disconnected is told that the connection is lost: what was refused on it, and what was
// open, has nothing to do with the next one.
func (a *appender) disconnected() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.barred)
	a.strays = 0
}

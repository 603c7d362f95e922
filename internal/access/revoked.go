package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Revocation says which tokens do not count any more: that with an id, or those that were issued up
// to a moment, of one user or of all.
type Revocation struct {
	User   string `json:"user,omitempty"`
	JTI    string `json:"jti,omitempty"`
	Before int64  `json:"before,omitempty"` // Unix seconds; with User, or alone
	At     int64  `json:"at"`               // when it was made, Unix seconds
	Until  int64  `json:"until"`            // no such token holds any longer, Unix seconds
}

// MaxSelector is how long the user or id of a revocation may be, in bytes.
const MaxSelector = 128

// ErrRevocation is the error of a revocation that says nothing, or too much.
var ErrRevocation = errors.New("access: a revocation names one of user, jti and before; user and before may come together")

// clockSlack is by how much a moment may lie ahead of this node's clock.
const clockSlack = 15 * time.Minute

// Revoke writes a revocation, and returns it complete. A user without a moment is revoked up to
// now. The error is [ErrRevocation], or that of the store.
func (a *Access) Revoke(ctx context.Context, r Revocation) (Revocation, error) {
	now := a.cfg.Now()
	r.At = now.Unix()
	name := revokedPrefix
	switch {
	case r.JTI != "" && r.User == "" && r.Before == 0:
		name += "jti." + hashed(r.JTI)
	case r.User != "" && r.JTI == "":
		if r.Before == 0 {
			r.Before = r.At
		}
		name += "user." + hashed(r.User)
	case r.Before != 0 && r.User == "" && r.JTI == "":
		name += "before.all"
	default:
		return Revocation{}, ErrRevocation
	}
	switch {
	case len(r.User) > MaxSelector || len(r.JTI) > MaxSelector:
		return Revocation{}, fmt.Errorf("%w: at most %d bytes long", ErrRevocation, MaxSelector)
	case r.Before < 0 || r.Before > now.Add(clockSlack).Unix():
		return Revocation{}, fmt.Errorf("%w: before is Unix seconds, up to now", ErrRevocation)
	}
	a.mu.RLock()
	earlier, again := a.revoked[name]
	a.mu.RUnlock()
	if again { // nothing that was revoked counts again
		r.Before = max(r.Before, earlier.Before)
	}
	r.Until = now.Add(a.cfg.MaxTokenAge + clockSlack).Unix()
	return r, a.put(ctx, name, r)
}

// revoke takes a revocation in, and forgets those that concern no token any more. The caller
// holds mu.
func (a *Access) revoke(name string, r Revocation) {
	if len(a.revoked)%256 == 255 {
		a.forget(a.cfg.Now().Unix())
	}
	if old, again := a.revoked[name]; again {
		r.Before, r.Until = max(r.Before, old.Before), max(r.Until, old.Until)
	}
	a.revoked[name] = r
	switch {
	case r.JTI != "":
		a.tokens[r.JTI] = true
	case r.User != "":
		a.users[r.User] = r.Before
	default:
		a.before = max(a.before, r.Before)
	}
}

// forget forgets revocations that have ended. The caller holds mu.
func (a *Access) forget(now int64) {
	for name, r := range a.revoked {
		if r.Until < now {
			delete(a.revoked, name)
			delete(a.tokens, r.JTI)
			delete(a.users, r.User)
		}
	}
}

// Revoked reports whether a token does not count any more. One that does not say when it was
// issued, in Unix seconds, counts as issued long ago.
func (a *Access) Revoked(user, jti string, issued int64) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if issued <= a.before && a.before > 0 {
		return true
	}
	if before, is := a.users[user]; is && issued <= before {
		return true
	}
	return jti != "" && a.tokens[jti]
}

// Revocations are those that concern tokens that may still hold, the latest first.
func (a *Access) Revocations() []Revocation {
	a.mu.RLock()
	defer a.mu.RUnlock()
	now := a.cfg.Now().Unix()
	var all []Revocation
	for _, r := range a.revoked {
		if r.Until >= now {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(x, y Revocation) int {
		return cmp.Or(cmp.Compare(y.At, x.At), strings.Compare(x.User+x.JTI, y.User+y.JTI))
	})
	return all
}

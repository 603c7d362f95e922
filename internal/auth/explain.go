package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Explanation says what is in a token and what a node makes of it, for people who make
// tokens. It holds no signature.
type Explanation struct {
	Header string // as it was signed, of any length; empty if it is not base64url
	Claims string // the same
	Signed bool   // the signature holds, and the header is one that is taken
	// Err is what [Verifier.Verify] says, for the room that was asked for, if any.
	Err error
	// ClaimsErr is what it would say if the signature held; nil when it does.
	ClaimsErr error
	Said      Claims // what the claims say; empty if they are wrong
}

// Explain explains a token. Without a room it does not matter which ones the token is for.
func (v *Verifier) Explain(token, room string) Explanation {
	var e Explanation
	e.Said, e.Err = v.Verify(token, room)
	if room == "" && errors.Is(e.Err, ErrRoom) {
		e.Err = nil
	}
	switch CauseOf(e.Err) {
	case CauseMalformed, CauseAlgorithm, CauseIssuer, CauseKey, CauseSignature:
		e.Signed = e.Err == nil
	default:
		e.Signed = true
	}
	segments := strings.Split(token, ".")
	if len(segments) != 3 || len(token) > MaxToken {
		return e
	}
	header, _ := base64.RawURLEncoding.DecodeString(segments[0]) // Err says it
	claims, err := base64.RawURLEncoding.DecodeString(segments[1])
	e.Header, e.Claims = string(header), string(claims)
	if err != nil {
		return e
	}
	i := v.keys.Load().issuerOf(claims)
	if i == nil {
		return e
	}
	said, err := readClaims(claims, i, time.Now(), v.MaxAge)
	switch {
	case err != nil:
		e.ClaimsErr = err
	case room != "" && !said.Allows(room):
		e.ClaimsErr = ErrRoom
	}
	e.Said = said
	return e
}

// Can says what a role may do, in words.
func Can(role protocol.Role) string {
	switch role {
	case protocol.RoleViewer:
		return "may comment"
	case protocol.RoleMonitor:
		return "sees what the staff sees, and says nothing"
	case protocol.RoleModerator, protocol.RoleBroadcaster:
		return "may comment, and change the room's state"
	}
	return fmt.Sprintf("%.20q is no role", string(role))
}

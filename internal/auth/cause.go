package auth

import (
	"errors"
	"fmt"
	"strings"
)

// Cause is why a token is refused, in one word: for metrics.
type Cause string

// The causes.
const (
	CauseMalformed Cause = "malformed" // it is no token, or has a header that is not taken
	CauseAlgorithm Cause = "algorithm" // it is signed with an algorithm that does not count
	CauseIssuer    Cause = "issuer"    // it is of an issuer that is not known
	CauseKey       Cause = "key"       // it names a key that is not known
	CauseSignature Cause = "signature" // it is signed with another secret or key
	CauseClaim     Cause = "claim"     // a claim is missing or wrong: see [ClaimsError]
	CauseExpired   Cause = "expired"
	CauseEarly     Cause = "early" // it is not valid yet
	CauseRoom      Cause = "room"  // it is for other rooms
)

// Causes are all there are.
func Causes() []Cause {
	return []Cause{CauseMalformed, CauseAlgorithm, CauseIssuer, CauseKey, CauseSignature, CauseClaim, CauseExpired, CauseEarly, CauseRoom}
}

// Causes of [ErrInvalid]; an error that is none of them and no [ClaimsError] says
// that it is no token.
var (
	errAlgorithm = errors.New("it is not signed with")
	errIssuer    = errors.New("its issuer is not known")
	errKey       = errors.New("it names a key (kid) that is not known")
	errSignature = errors.New("its signature does not match")
)

// notSignedWith is errAlgorithm for a token that says to be signed with another one.
func notSignedWith(known []string, alg string) error {
	if len(known) == 0 { // they were not fetched yet
		return errKey
	}
	return fmt.Errorf("%w %s, but with %.20q", errAlgorithm, strings.Join(known, " or "), alg)
}

// CauseOf returns the cause of an error of [Verifier.Verify].
func CauseOf(err error) Cause {
	if _, ok := errors.AsType[*ClaimsError](err); ok {
		return CauseClaim
	}
	for _, known := range []struct {
		err   error
		cause Cause
	}{
		{ErrExpired, CauseExpired}, {ErrNotYet, CauseEarly}, {ErrRoom, CauseRoom},
		{errAlgorithm, CauseAlgorithm}, {errIssuer, CauseIssuer}, {errKey, CauseKey}, {errSignature, CauseSignature},
	} {
		if errors.Is(err, known.err) {
			return known.cause
		}
	}
	return CauseMalformed
}

package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Cause is why a token is refused, in one word: for metrics.
type Cause string

// The causes.
const (
	CauseMalformed Cause = "malformed" // it is no token, or has a header that is not taken
	CauseAlgorithm Cause = "algorithm" // it is not signed with HS256
	CauseSignature Cause = "signature" // it is signed with another secret
	CauseClaim     Cause = "claim"     // a claim is missing or wrong: see [ClaimsError]
	CauseExpired   Cause = "expired"
	CauseEarly     Cause = "early" // it is not valid yet
	CauseRoom      Cause = "room"  // it is for other rooms
)

// Causes are all there are.
func Causes() []Cause {
	return []Cause{CauseMalformed, CauseAlgorithm, CauseSignature, CauseClaim, CauseExpired, CauseEarly, CauseRoom}
}

// Two causes of [ErrInvalid]; an error that is neither of them nor a [ClaimsError] says
// that it is no token.
var (
	errAlgorithm = errors.New("it is not signed with HS256")
	errSignature = errors.New("its signature does not match")
)

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
		{errAlgorithm, CauseAlgorithm}, {errSignature, CauseSignature},
	} {
		if errors.Is(err, known.err) {
			return known.cause
		}
	}
	return CauseMalformed
}

// whyUnsigned says more of a token that the library has refused with err, whose text may
// be of any length.
func whyUnsigned(token string, err error) error {
	if token == "" {
		return errors.New("it is empty")
	}
	segments := strings.Split(token, ".")
	if len(segments) != 3 {
		return errors.New("it is not three parts with a dot between them")
	}
	p, e := base64.RawURLEncoding.DecodeString(segments[0])
	var header struct {
		Alg any `json:"alg"`
	}
	if e != nil || json.Unmarshal(p, &header) != nil {
		return errors.New("its header is not a JSON object in base64url")
	}
	if header.Alg != jwt.SigningMethodHS256.Alg() {
		return fmt.Errorf("%w, but with %.20s", errAlgorithm, fmt.Sprint(header.Alg))
	}
	for i, name := range []string{"", "claims", "signature"} {
		if _, e := base64.RawURLEncoding.DecodeString(segments[i]); e != nil {
			return fmt.Errorf("its %s is not base64url without padding", name)
		}
	}
	if errors.Is(err, jwt.ErrTokenSignatureInvalid) {
		return errSignature
	}
	return err
}

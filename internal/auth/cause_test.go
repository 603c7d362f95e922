package auth

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/internal/private"
)

// Each kind of refused token has a cause of its own, whichever way reads it, and a wrong
// claim is named.
func TestCauses(t *testing.T) {
	t.Parallel()
	const good = `"sub":"u","rooms":["r"],"exp":9999999999`
	other, err := Mint([]byte(strings.Repeat("y", private.MinSecret)), Claims{Subject: "u", Rooms: []string{"r"}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		token string
		cause Cause
	}{
		"empty":          {"", CauseMalformed},
		"undefined":      {"undefined", CauseMalformed},
		"three parts":    {"a.b.c", CauseMalformed},
		"too long":       {strings.Repeat("a", MaxToken+1), CauseMalformed},
		"another secret": {other, CauseSignature},
		"cut":            {other[:len(other)-3], CauseSignature},
		"crit":           {signed(t, `{"alg":"HS256","crit":["x"]}`, "{"+good+"}"), CauseMalformed},
		"none":           {signed(t, `{"alg":"none"}`, "{"+good+"}"), CauseAlgorithm},
		"HS512":          {signed(t, `{"typ":"JWT","alg":"HS512"}`, "{"+good+"}"), CauseAlgorithm},
		"no algorithm":   {signed(t, `{}`, "{"+good+"}"), CauseAlgorithm},
	} {
		if _, err := verifier(t).Verify(tt.token, "r"); CauseOf(err) != tt.cause {
			t.Errorf("%s: %q is %v, want %v", name, err, CauseOf(err), tt.cause)
		}
	}
	for claims, tt := range map[string]struct {
		cause Cause
		claim string
	}{
		`{"rooms":["r"],"exp":9999999999}`:                                {CauseClaim, "sub"},
		`{"sub":7,"rooms":["r"],"exp":9999999999}`:                        {CauseClaim, "sub"},
		`{"sub":" u","rooms":["r"],"exp":9999999999}`:                     {CauseClaim, "sub"},
		`{"sub":"u","name":1,"rooms":["r"],"exp":9999999999}`:             {CauseClaim, "name"},
		`{"sub":"u","role":"teacher","rooms":["r"],"exp":9999999999}`:     {CauseClaim, "role"},
		`{"sub":"u","role":1,"rooms":["r"],"exp":9999999999}`:             {CauseClaim, "role"},
		`{"sub":"u","exp":9999999999}`:                                    {CauseClaim, "rooms"},
		`{"sub":"u","rooms":{},"exp":9999999999}`:                         {CauseClaim, "rooms"},
		`{"sub":"u","rooms":["r"]}`:                                       {CauseClaim, "exp"},
		`{"sub":"u","rooms":["r"],"exp":"soon"}`:                          {CauseClaim, "exp"},
		`{"sub":"u","rooms":["r"],"exp":1790000000000}`:                   {CauseClaim, "exp"},
		`{"sub":"u","rooms":["r"],"exp":9999999999,"nbf":-1}`:             {CauseClaim, "nbf"},
		`{"sub":"u","rooms":["r"],"exp":9999999999,"sub":"v"}`:            {CauseClaim, "sub"},
		`{"sub":"u","rooms":["r"],"exp":9999999999,"can":7}`:              {CauseClaim, "can"},
		`{"sub":"u","rooms":["r"],"exp":9999999999,"can":[],"can":["a"]}`: {CauseClaim, "can"},
		`[]`:                                {CauseClaim, AllClaims},
		`{"sub":"u","rooms":["r"],"exp":1}`: {CauseExpired, ""},
		`{"sub":"u","rooms":["r"],"exp":9999999999,"nbf":9999999990}`: {CauseEarly, ""},
		`{"sub":"u","rooms":["s"],"exp":9999999999}`:                  {CauseRoom, ""},
	} {
		for _, header := range []string{usualHeader, otherHeader} {
			_, err := verifier(t).Verify(signed(t, header, claims), "r")
			if CauseOf(err) != tt.cause || claimOf(err) != tt.claim {
				t.Errorf("%s: %q is %v of %q, want %v of %q", claims, err, CauseOf(err), claimOf(err), tt.cause, tt.claim)
			}
		}
	}
}

// claimOf is the claim that an error names.
func claimOf(err error) string {
	if wrong, ok := errors.AsType[*ClaimsError](err); ok {
		return wrong.Claim
	}
	return ""
}

package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/protocol"
)

// signed signs what a header and claims say, whatever that is.
func signed(t testing.TB, header, claims string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sig, err := jwt.SigningMethodHS256.Sign(text, secret)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// Two ways read a token: one for usual headers, and the library's.
const (
	usualHeader = `{"alg":"HS256","typ":"JWT"}`
	otherHeader = `{"alg":"HS256","kid":"1"}`
)

// What users may choose in a token must not become another claim.
func TestClaimsHaveExactNames(t *testing.T) {
	t.Parallel()
	for _, more := range []string{
		`"Role":"broadcaster"`, `"ROLE":"broadcaster"`, `"rOle":"x"`, `"ROOMS":["*"]`, `"room\u017f":["*"]`, `"roomſ":["*"]`,
		`"Sub":"admin"`, `"ſub":"admin"`, `"SUB":7`, `"Name":"Boss"`, `"EXP":1`, `"Exp":"x"`, `"NBF":99999999999`, `" role":"monitor"`,
		`"a":{"role":"monitor","role":"x"}`,
	} {
		for _, header := range []string{usualHeader, otherHeader} {
			for _, claims := range []string{
				`{"sub":"u","name":"Ann","role":"viewer","rooms":["r"],"exp":9999999999,` + more + `}`,
				`{` + more + `,"sub":"u","name":"Ann","role":"viewer","rooms":["r"],"exp":9999999999}`,
			} {
				c, err := verifier(t).Verify(signed(t, header, claims), "r")
				if err != nil || c.Subject != "u" || c.Name != "Ann" || c.Role != protocol.RoleViewer || c.Allows("s") || c.Expires.Unix() != 9999999999 {
					t.Errorf("%s with %s became %+v, %v", claims, header, c, err)
				}
			}
		}
	}
	// Alone they are no claims either.
	for _, claims := range []string{
		`{"Sub":"u","rooms":["r"],"exp":9999999999}`, `{"sub":"u","ROOMS":["r"],"exp":9999999999}`, `{"sub":"u","roomſ":["r"],"exp":9999999999}`,
		`{"sub":"u","rooms":["r"],"Exp":9999999999}`,
	} {
		for _, header := range []string{usualHeader, otherHeader} {
			if c, err := verifier(t).Verify(signed(t, header, claims), "r"); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s with %s became %+v, %v", claims, header, c, err)
			}
		}
	}
}

func TestClaimsRefused(t *testing.T) {
	t.Parallel()
	const good = `"sub":"u","rooms":["r"],"exp":9999999999`
	ms := time.Now().Add(time.Hour).UnixMilli()
	for name, tt := range map[string]struct{ claims, want string }{
		"sub twice":              {`{` + good + `,"sub":"u"}`, "sub appears twice"},
		"name twice":             {`{"name":"a",` + good + `,"name":null}`, "name appears twice"},
		"role twice":             {`{"role":"viewer",` + good + `,"r\u006fle":"broadcaster"}`, "role appears twice"},
		"rooms twice":            {`{` + good + `,"rooms":"*"}`, "rooms appears twice"},
		"exp twice":              {`{` + good + `,"exp":9999999999}`, "exp appears twice"},
		"nbf twice":              {`{"nbf":1,"nbf":1,` + good + `}`, "nbf appears twice"},
		"exp in milliseconds":    {fmt.Sprintf(`{"sub":"u","rooms":["r"],"exp":%d}`, ms), "exp looks like milliseconds"},
		"nbf in milliseconds":    {fmt.Sprintf(`{%s,"nbf":%d}`, good, ms), "nbf looks like milliseconds"},
		"exp in microseconds":    {fmt.Sprintf(`{"sub":"u","rooms":["r"],"exp":%d000}`, ms), "exp is beyond the year 9999"},
		"exp beyond everything":  {`{"sub":"u","rooms":["r"],"exp":1e400}`, "exp is beyond the year 9999"},
		"nbf beyond 64 bits":     {`{` + good + `,"nbf":18446744073709551616}`, "nbf is beyond the year 9999"},
		"negative exp":           {`{"sub":"u","rooms":["r"],"exp":-1}`, "exp is negative"},
		"exp far below":          {`{"sub":"u","rooms":["r"],"exp":-1e400}`, "exp is negative"},
		"negative nbf":           {`{` + good + `,"nbf":-0.5}`, "nbf is negative"},
		"exp is text":            {`{"sub":"u","rooms":["r"],"exp":"9999999999"}`, "exp must be a number of seconds"},
		"exp is a list":          {`{"sub":"u","rooms":["r"],"exp":[1]}`, "exp must be a number of seconds"},
		"nbf is true":            {`{` + good + `,"nbf":true}`, "nbf must be a number of seconds"},
		"exp is null":            {`{"sub":"u","rooms":["r"],"exp":null}`, "exp is missing"},
		"a room that is null":    {`{"sub":"u","rooms":["r",null],"exp":9999999999}`, "rooms must be a list of strings"},
		"rooms that are objects": {`{"sub":"u","rooms":{"r":1},"exp":9999999999}`, "rooms must be a list of strings"},
		"not UTF-8":              {"{" + good + `,"name":"` + "\xff" + `"}`, "UTF-8"},
		"a list":                 {`[{` + good + `}]`, "not a JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, header := range []string{usualHeader, otherHeader} {
				c, err := verifier(t).Verify(signed(t, header, tt.claims), "r")
				if _, told := errors.AsType[*ClaimsError](err); !told || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("with %s: %v; want %q", header, err, tt.want)
				}
				if c.Subject != "" {
					t.Errorf("a token that was refused says %+v", c)
				}
			}
		})
	}
}

func TestTimesTaken(t *testing.T) {
	t.Parallel()
	for exp, want := range map[string]time.Time{
		"253402300799": time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		"4e9":          time.Unix(4e9, 0),
		"4000000000.5": time.Unix(4e9, 5e8),
	} {
		for _, header := range []string{usualHeader, otherHeader} {
			c, err := verifier(t).Verify(signed(t, header, `{"sub":"u","rooms":["r"],"nbf":0,"exp":`+exp+`}`), "r")
			if err != nil || !c.Expires.Equal(want) {
				t.Errorf("exp %s with %s: %v, %v; want %v", exp, header, c.Expires, err, want)
			}
		}
	}
}

func TestHeadersRefused(t *testing.T) {
	t.Parallel()
	const claims = `{"sub":"u","rooms":["r"],"exp":9999999999}`
	for header, want := range map[string]string{
		`{"alg":"HS256","crit":["b64"],"b64":false}`:     "crit",
		`{"alg":"HS256","crit":[]}`:                      "crit",
		`{"alg":"HS256","\u0063rit":null}`:               "crit",
		`{"alg":"none","alg":"HS256"}`:                   "alg appears twice",
		`{"alg":"HS256","alg":"HS256"}`:                  "alg appears twice",
		`{"alg":"HS256","typ":"JWT","typ":"at+jwt"}`:     "typ appears twice",
		`{"kid":"a","alg":"HS256","\u006bid":"b"}`:       "kid appears twice",
		`{"Alg":"HS256"}`:                                "alg",
		`["HS256"]`:                                      "not a JSON object",
		"{\"alg\":\"HS256\",\"kid\":\"" + "\xff" + "\"}": "UTF-8",
	} {
		if _, err := verifier(t).Verify(signed(t, header, claims), "r"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", header, err, want)
		}
	}
	// A name that is like one of these is another one.
	for _, header := range []string{`{"alg":"HS256","ALG":"none","Crit":["x"],"cr\u0131t":1}`, `{"typ":"JWT","kid":"k","alg":"HS256","x":{"crit":1}}`} {
		if _, err := verifier(t).Verify(signed(t, header, claims), "r"); err != nil {
			t.Errorf("%s: %v", header, err)
		}
	}
}

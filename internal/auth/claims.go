package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/protocol"
)

// This file reads what is signed. encoding/json would take "Role" for "role", and the
// last of two: a back end that lets its users choose a claim of their own, or checks a
// token itself, would see other claims than we do.

// ClaimsError says what is wrong with the claims of a token whose signature holds. It is
// for the makers of tokens, and holds nothing but claims.
type ClaimsError struct {
	Claim string // sub, name, role, rooms, exp, nbf or can; [AllClaims] for the object that they are in
	what  string
}

// AllClaims is the Claim of an error that concerns no single one.
const AllClaims = "all"

// ClaimNames are those that an error may name.
func ClaimNames() []string {
	return []string{"sub", "name", "role", "rooms", "exp", "nbf", "can", AllClaims}
}

func (e *ClaimsError) Error() string { return e.what }

func claimsError(claim, format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, &ClaimsError{claim, fmt.Sprintf(format, a...)})
}

// asSigned keeps claims as they were signed when the library has checked the signature.
type asSigned struct {
	jwt.MapClaims // nil; the library asks it nothing
	json          []byte
}

// UnmarshalJSON keeps p.
func (c *asSigned) UnmarshalJSON(p []byte) error {
	c.json = slices.Clone(p)
	return nil
}

// readClaims reads the claims of a token whose signature holds, and judges them but for
// the room.
func readClaims(p []byte, now time.Time) (Claims, error) {
	fields, ok := protocol.Fields(p)
	if !ok {
		return Claims{}, claimsError(AllClaims, "the claims are not a JSON object in UTF-8")
	}
	var c Claims
	var role string
	var begins time.Time
	var seen uint
	for name, value := range fields {
		var bit uint
		var err error
		switch string(name) {
		case "sub":
			bit, err = 1, readString("sub", value, &c.Subject)
		case "name":
			bit, err = 2, readString("name", value, &c.Name)
		case "role":
			bit, err = 4, readString("role", value, &role)
		case "rooms":
			bit, err = 8, readList("rooms", value, &c.Rooms)
		case "exp":
			bit, err = 16, readTime("exp", value, &c.Expires)
		case "nbf":
			bit, err = 32, readTime("nbf", value, &begins)
		case "can":
			bit, err = 64, readList("can", value, &c.Can)
		}
		if seen&bit != 0 {
			err = claimsError(string(name), "%s appears twice", name)
		}
		if err != nil {
			return Claims{}, err
		}
		seen |= bit
	}
	switch {
	case c.Expires.IsZero():
		return Claims{}, claimsError("exp", "exp is missing")
	case !now.Before(c.Expires.Add(Leeway)):
		return Claims{}, ErrExpired
	case now.Before(begins.Add(-Leeway)):
		return Claims{}, ErrNotYet
	}
	c.Role = protocol.Role(role)
	if err := c.check(); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return c, nil
}

// issuerClaim returns the claim iss of claims that nobody believes yet; empty without one
// that can be read, or with two.
func issuerClaim(claims []byte) string {
	fields, ok := protocol.Fields(claims)
	if !ok {
		return ""
	}
	var issuer string
	seen := false
	for name, value := range fields {
		if string(name) != "iss" {
			continue
		}
		if seen || readString("iss", value, &issuer) != nil {
			return ""
		}
		seen = true
	}
	return issuer
}

const null = "null" // counts as left out

func readString(name string, value []byte, into *string) error {
	if string(value) == null {
		return nil
	}
	switch {
	case value[0] != '"':
		return claimsError(name, "%s must be a string", name)
	case bytes.IndexByte(value, '\\') < 0: // as nearly all are
		*into = string(value[1 : len(value)-1])
		return nil
	}
	return json.Unmarshal(value, into) // it is valid
}

// readList reads a list of strings. It takes a string for a list of one.
func readList(name string, value []byte, into *[]string) error {
	switch {
	case string(value) == null:
		return nil
	case value[0] == '"':
		*into = make([]string, 1)
		return readString(name, value, &(*into)[0])
	case value[0] != '[' || json.Unmarshal(value, into) != nil || slices.Contains(*into, "") && holdsNull(value):
		return claimsError(name, "%s must be a list of strings", name)
	}
	return nil
}

// holdsNull reports whether a list of strings has a null among them, which
// encoding/json takes for an empty one.
func holdsNull(list []byte) bool {
	var all []*string
	return json.Unmarshal(list, &all) != nil || slices.Contains(all, nil)
}

// lastTime is the last second of the year 9999, beyond which times cannot be written.
const lastTime = 253402300799

// readTime reads Unix seconds, which may have a fraction.
func readTime(name string, value []byte, into *time.Time) error {
	if string(value) == null {
		return nil
	}
	t, err := strconv.ParseFloat(string(value), 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange): // what is out of range is infinite
		return claimsError(name, "%s must be a number of seconds", name)
	case t < 0:
		return claimsError(name, "%s is negative", name)
	case t > lastTime && t <= 1000*lastTime:
		return claimsError(name, "%s looks like milliseconds, and must be seconds", name)
	case t > lastTime:
		return claimsError(name, "%s is beyond the year 9999", name)
	}
	whole, fraction := math.Modf(t)
	*into = time.Unix(int64(whole), int64(fraction*1e9))
	return nil
}

// checkHeader refuses a header that others may understand otherwise: one with a name
// twice, or with extensions that must be understood (crit), of which we know none. What
// else is wrong with it is for the library to say.
func checkHeader(segment string) error {
	p, err := base64.RawURLEncoding.DecodeString(segment)
	if err != nil {
		return nil
	}
	fields, ok := protocol.Fields(p)
	if !ok {
		return errors.New("the header is not a JSON object in UTF-8")
	}
	var seen []string
	for name := range fields {
		switch n := string(name); n {
		case "crit":
			return errors.New("the header names extensions that must be understood (crit), which are not known")
		case "alg", "typ", "kid":
			if slices.Contains(seen, n) {
				return fmt.Errorf("%s appears twice in the header", n)
			}
			seen = append(seen, n)
		}
	}
	return nil
}

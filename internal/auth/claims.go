package auth

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// This file reads what is signed. encoding/json would take "Role" for "role", and the
// last of two: a back end that lets its users choose a claim of their own, or checks a
// token itself, would see other claims than we do.

// ClaimsError says what is wrong with the claims of a token whose signature holds. It is
// for the makers of tokens, and holds nothing but claims.
type ClaimsError struct {
	Claim string // one of [ClaimNames]
	what  string
}

// AllClaims is the Claim of an error that concerns no single one.
const AllClaims = "all"

// ClaimNames are those that an error may name: what a claim means, whatever an issuer calls it.
func ClaimNames() []string {
	return []string{"sub", "name", "role", "rooms", "exp", "nbf", "can", "iss", "aud", "iat", "jti", "avatar", "members", AllClaims}
}

func (e *ClaimsError) Error() string { return e.what }

func claimsError(claim, format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, &ClaimsError{claim, fmt.Sprintf(format, a...)})
}

// claimSet is a set of claims, by what they mean. An issuer may give one name to several.
type claimSet uint16

const (
	claimSub claimSet = 1 << iota
	claimName
	claimRole
	claimRooms
	claimExp
	claimNbf
	claimCan
	claimAud
	claimIat
	claimJti
	claimAvatar
	claimMembers
)

// set returns what each name of a claim means.
func (n *Names) set() map[string]claimSet {
	all := map[string]claimSet{"exp": claimExp, "nbf": claimNbf, "aud": claimAud, "iat": claimIat, "jti": claimJti}
	for _, c := range []struct {
		given, usual string
		is           claimSet
	}{
		{n.User, "sub", claimSub}, {n.Name, "name", claimName}, {n.Avatar, "avatar", claimAvatar}, {n.Role, "role", claimRole},
		{n.Rooms, "rooms", claimRooms}, {n.Can, "can", claimCan}, {n.Members, "members", claimMembers},
	} {
		all[cmp.Or(c.given, c.usual)] |= c.is
	}
	return all
}

// reading is claims while they are read.
type reading struct {
	Claims
	roles    []string
	audience []string
	begins   time.Time
}

// readClaims reads the claims of an issuer's token whose signature holds, and judges them but for
// the room. maxAge is how long a token may hold; 0: as long as it says.
func readClaims(p []byte, i *issuer, now time.Time, maxAge time.Duration) (Claims, error) {
	fields, ok := protocol.Fields(p)
	if !ok {
		return Claims{}, claimsError(AllClaims, "the claims are not a JSON object in UTF-8")
	}
	var c reading
	var seen claimSet
	for name, value := range fields {
		means := i.claims[string(name)]
		if seen&means != 0 {
			return Claims{}, claimsError(means.String(), "%s appears twice", name)
		}
		seen |= means
		for ; means != 0; means &= means - 1 {
			if err := c.read(means&-means, name, value); err != nil {
				return Claims{}, err
			}
		}
	}
	if len(i.Audience) > 0 && !slices.ContainsFunc(c.audience, func(a string) bool { return slices.Contains(i.Audience, a) }) {
		return Claims{}, claimsError("aud", "aud is not %s: the token is for somebody else", strings.Join(i.Audience, " or "))
	}
	c.Until = c.Expires.Add(i.Leeway)
	switch {
	case c.Expires.IsZero():
		return Claims{}, claimsError("exp", "exp is missing")
	case !now.Before(c.Until):
		return Claims{}, ErrExpired
	case now.Before(c.begins.Add(-i.Leeway)):
		return Claims{}, ErrNotYet
	}
	since, what := now, "now"
	if !c.Issued.IsZero() {
		since, what = c.Issued, "iat"
	}
	if age := c.Expires.Sub(since); maxAge > 0 && age > maxAge+i.Leeway {
		return Claims{}, claimsError("exp", "exp is %v after %s, at most %v is allowed (--max-token-age)", age.Round(time.Second), what, maxAge)
	}
	if len(c.ID) > maxTokenID {
		return Claims{}, claimsError("jti", "jti has %d bytes, at most %d are allowed", len(c.ID), maxTokenID)
	}
	c.Role = i.roleOf(c.roles)
	if len(c.Rooms) == 0 {
		c.Rooms = i.DefaultRooms
	}
	if err := c.check(); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return c.Claims, nil
}

// read reads one claim, which has a name of the issuer's.
func (c *reading) read(is claimSet, name, value []byte) error {
	claim := is.String()
	switch is {
	case claimSub:
		return readString(claim, name, value, &c.Subject)
	case claimName:
		return readString(claim, name, value, &c.Name)
	case claimAvatar:
		return readString(claim, name, value, &c.Avatar)
	case claimJti:
		return readString(claim, name, value, &c.ID)
	case claimRole:
		if value[0] != '[' { // as nearly all are
			c.roles = make([]string, 1)
			return readString(claim, name, value, &c.roles[0])
		}
		return readList(claim, name, value, &c.roles)
	case claimRooms:
		return readList(claim, name, value, &c.Rooms)
	case claimCan:
		return readList(claim, name, value, &c.Can)
	case claimAud:
		return readList(claim, name, value, &c.audience)
	case claimExp:
		return readTime(claim, name, value, &c.Expires)
	case claimNbf:
		return readTime(claim, name, value, &c.begins)
	case claimIat:
		return readTime(claim, name, value, &c.Issued)
	case claimMembers:
		return readBool(claim, name, value, &c.Member)
	}
	return nil
}

// maxTokenID is how long the id of a token may be, in bytes.
const maxTokenID = 128

// roleOf returns the highest of the roles that a token names in an issuer's words. One word that
// is no role is returned as it is.
func (i *issuer) roleOf(words []string) protocol.Role {
	role := i.DefaultRole
	highest := -1
	for _, w := range words {
		r, ok := i.Roles[w]
		if !ok {
			r = protocol.Role(w)
		}
		if at := slices.Index(ranks, r); at > highest {
			role, highest = r, at
		} else if at < 0 && len(words) == 1 && w != "" {
			role = r
		}
	}
	return role
}

// ranks are the roles, the lowest first.
var ranks = []protocol.Role{protocol.RoleViewer, protocol.RoleMonitor, protocol.RoleModerator, protocol.RoleBroadcaster}

// String is the usual name of a claim; of the first, if there are several.
func (c claimSet) String() string {
	names := [...]string{"sub", "name", "role", "rooms", "exp", "nbf", "can", "aud", "iat", "jti", "avatar", "members"}
	return names[bits.TrailingZeros16(uint16(c))]
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
		if seen || readString("iss", name, value, &issuer) != nil {
			return ""
		}
		seen = true
	}
	return issuer
}

const null = "null" // counts as left out

func readString(claim string, name, value []byte, into *string) error {
	if string(value) == null {
		return nil
	}
	switch {
	case value[0] != '"':
		return claimsError(claim, "%s must be a string", name)
	case bytes.IndexByte(value, '\\') < 0: // as nearly all are
		*into = string(value[1 : len(value)-1])
		return nil
	}
	return json.Unmarshal(value, into) // it is valid
}

// readList reads a list of strings. It takes a string for a list of one.
func readList(claim string, name, value []byte, into *[]string) error {
	switch {
	case string(value) == null:
		return nil
	case value[0] == '"':
		*into = make([]string, 1)
		return readString(claim, name, value, &(*into)[0])
	case plainList(value, into):
		return nil
	case value[0] != '[' || json.Unmarshal(value, into) != nil || slices.Contains(*into, "") && holdsNull(value):
		return claimsError(claim, "%s must be a list of strings", name)
	}
	return nil
}

// plainList reads a valid list of strings without escapes, as nearly all are; false for any other
// value. encoding/json takes so much stack that a newcomer's would have to grow for it.
func plainList(value []byte, into *[]string) bool {
	if value[0] != '[' || bytes.IndexByte(value, '\\') >= 0 {
		return false
	}
	all := make([]string, 0, 1)
	for rest := bytes.TrimLeft(value[1:], " \t\r\n"); rest[0] != ']'; rest = bytes.TrimLeft(rest, " \t\r\n,") {
		if rest[0] != '"' {
			return false
		}
		end := bytes.IndexByte(rest[1:], '"')
		all = append(all, string(rest[1:1+end]))
		rest = rest[end+2:]
	}
	*into = all
	return true
}

// holdsNull reports whether a list of strings has a null among them, which
// encoding/json takes for an empty one.
func holdsNull(list []byte) bool {
	var all []*string
	return json.Unmarshal(list, &all) != nil || slices.Contains(all, nil)
}

// readBool reads true or false.
func readBool(claim string, name, value []byte, into *bool) error {
	switch string(value) {
	case "true":
		*into = true
	case "false", null:
	default:
		return claimsError(claim, "%s must be true or false", name)
	}
	return nil
}

// lastTime is the last second of the year 9999, beyond which times cannot be written.
const lastTime = 253402300799

// readTime reads Unix seconds, which may have a fraction.
func readTime(claim string, name, value []byte, into *time.Time) error {
	if string(value) == null {
		return nil
	}
	t, err := strconv.ParseFloat(string(value), 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange): // what is out of range is infinite
		return claimsError(claim, "%s must be a number of seconds", name)
	case t < 0:
		return claimsError(claim, "%s is negative", name)
	case t > lastTime && t <= 1000*lastTime:
		return claimsError(claim, "%s looks like milliseconds, and must be seconds", name)
	case t > lastTime:
		return claimsError(claim, "%s is beyond the year 9999", name)
	}
	whole, fraction := math.Modf(t)
	*into = time.Unix(int64(whole), int64(fraction*1e9))
	return nil
}

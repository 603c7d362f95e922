// Package auth says who somebody is, from a token alone: no query, no network, so
// that a whole audience can join at once.
//
// A token is a JWT, signed with HS256 and a secret that the back ends which hand out
// tokens share with every node. Its claims are
//
//	sub    the user's id: 1 to 64 bytes that print, without blanks at the ends; required
//	name   what others see of the user; cleaned and cut to 64 code points
//	role   viewer, monitor, moderator or broadcaster; viewer when left out
//	rooms  a list of the rooms it is for, "*" for all; required
//	exp    when it ends, Unix seconds; required
//	can    a list of what its user may do beside what the role may; uncounted is known
//	nbf    when it begins, Unix seconds
//
// and others are ignored. Names are exact: Role is another claim than role, and ignored.
// A token in which one of these appears twice is refused, because the program that
// signed or checked it before may have read the other one. A [Verifier] checks tokens and [Mint]
// makes them; [Guests] says who somebody is without one. The secrets of a node that stands
// alone come from [LoadOrMakeSecret].
//
// Keys belong to issuers (keys.go). A token's issuer is chosen first, by the claim iss, and then
// its key, by the kid in its header, both from memory. Today's secrets are keys of the default
// issuer, whose tokens are all those that bear no other issuer's name.
//
// Clocks may differ by [Leeway]: a token holds that much longer, and that much
// earlier, than it says. Nodes and back ends keep time by NTP, where half a minute is
// already a fault, while a token that is refused when it has just been made is a viewer
// who cannot get in.
package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/internal/private"
	"github.com/kansei-live/kansei/internal/text"
	"github.com/kansei-live/kansei/protocol"
)

const (
	// Leeway is by how much the clocks of who made a token and who checks it may differ.
	Leeway = 30 * time.Second
	// MaxToken is how long a token may be, in bytes. It bounds the work for a token that
	// is none; some proxies cut longer headers.
	MaxToken = 4096
	// MaxSecrets is how many secrets count at a time: one, or two while one replaces the
	// other.
	MaxSecrets = 2
	// AllRooms among the rooms of a token stands for all.
	AllRooms = "*"
	// maxID is how long the id of a user may be with the name of an issuer, in bytes.
	maxID = 128
)

// Why a token is refused. Every error of [Verifier.Verify] is one of these.
var (
	// ErrInvalid: no token, not signed with this secret, or claims that are missing
	// or wrong.
	ErrInvalid = errors.New("auth: the token is not valid")
	// ErrExpired: the token was valid once.
	ErrExpired = errors.New("auth: the token has expired")
	// ErrNotYet: the token will be valid.
	ErrNotYet = errors.New("auth: the token is not valid yet")
	// ErrRoom: the token is valid, but not for this room.
	ErrRoom = errors.New("auth: the token is not for this room")
)

// ErrSecret is the error of a secret that is too short.
var ErrSecret = fmt.Errorf("auth: the secret must have at least %d bytes", private.MinSecret)

// checkSecrets says what is wrong with secrets that are to count at a time.
func checkSecrets(secrets [][]byte) error {
	if len(secrets) > MaxSecrets {
		return fmt.Errorf("auth: there are %d secrets, at most %d are taken", len(secrets), MaxSecrets)
	}
	for _, s := range secrets {
		if len(s) < private.MinSecret {
			return fmt.Errorf("%w, not %d", ErrSecret, len(s))
		}
	}
	return nil
}

// Claims is what a token says.
type Claims struct {
	Subject string        // the user's id
	Name    string        // clean; may be empty
	Role    protocol.Role // never empty once verified
	Rooms   []string
	Can     []string // beside what the role may do; what is not known is ignored
	Expires time.Time
}

// Allows reports whether the claims are for a room.
func (c *Claims) Allows(room string) bool {
	return slices.Contains(c.Rooms, room) || slices.Contains(c.Rooms, AllRooms)
}

// check makes c clean and complete, or says what is wrong with it: [*ClaimsError].
func (c *Claims) check() error {
	if err := CheckUser(c.Subject); err != nil {
		return &ClaimsError{"sub", "sub: " + err.Error()}
	}
	if len(c.Rooms) == 0 {
		return &ClaimsError{"rooms", "rooms is missing"}
	}
	if c.Role == "" {
		c.Role = protocol.RoleViewer
	}
	if !c.Role.Valid() {
		return &ClaimsError{"role", fmt.Sprintf("role is %.20q, not viewer, monitor, moderator or broadcaster", string(c.Role))}
	}
	c.Name = text.CleanName(c.Name, protocol.MaxUserName)
	return nil
}

// CheckUser says what is wrong with the id of a user, if anything is: it has 1 to 64
// bytes that print, without blanks at the ends, and does not begin like a guest's.
func CheckUser(s string) error {
	if s == "" {
		return errors.New("the user id is missing")
	}
	if strings.HasPrefix(s, GuestPrefix) {
		return fmt.Errorf("the user id begins with %s, as those of guests do", GuestPrefix)
	}
	if len(s) > protocol.MaxUserID {
		return fmt.Errorf("the user id has %d bytes, at most %d are allowed", len(s), protocol.MaxUserID)
	}
	if !utf8.ValidString(s) || strings.TrimSpace(s) != s {
		return fmt.Errorf("the user id is %q, with blanks around it or not UTF-8", s)
	}
	for _, r := range s {
		// The replacement character is what decoders put for broken text: different
		// broken ids must not become the same user.
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return fmt.Errorf("the user id has the character %U in it, which does not print", r)
		}
	}
	return nil
}

// Verifier checks tokens. Its methods may be called from any goroutine.
type Verifier struct {
	keys   atomic.Pointer[keySet]
	parser *jwt.Parser
}

// usualHeaders are those with which nearly all libraries begin a token, in base64. Whose
// token has another one waits for the library to make sense of it.
var usualHeaders = [...]string{
	"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", // {"alg":"HS256","typ":"JWT"}
	"eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9", // {"typ":"JWT","alg":"HS256"}
	"eyJhbGciOiJIUzI1NiJ9",                 // {"alg":"HS256"}
}

// NewVerifier makes a Verifier for tokens that were signed with one of the secrets, of
// which there are one or two. Its error is that of [Verifier.Prepare].
func NewVerifier(secrets ...[]byte) (*Verifier, error) {
	// The claims are readClaims's to judge.
	v := &Verifier{parser: jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithoutClaimsValidation())}
	apply, err := v.Prepare(secrets...)
	if err != nil {
		return nil, err
	}
	apply()
	return v, nil
}

// Prepare checks one or two secrets of the default issuer, and returns what puts them in the
// place of those that v has. Tokens that are being checked meanwhile are checked with either.
// Its error is [ErrSecret], or that there are none or too many.
func (v *Verifier) Prepare(secrets ...[]byte) (apply func(), err error) {
	if err := checkSecrets(secrets); err != nil {
		return nil, err
	}
	keys := make([]Key, len(secrets))
	for i, s := range secrets {
		keys[i].Secret = s
	}
	return v.PrepareIssuers(Issuer{Keys: keys})
}

// PrepareIssuers is Prepare for several issuers.
func (v *Verifier) PrepareIssuers(issuers ...Issuer) (apply func(), err error) {
	keys, err := newKeySet(issuers)
	if err != nil {
		return nil, err
	}
	return func() { v.keys.Store(keys) }, nil
}

// Verify returns what a token says, if it holds for room. Its errors never contain
// the token.
func (v *Verifier) Verify(token, room string) (Claims, error) {
	c, err := v.Read(token)
	if err == nil && !c.Allows(room) {
		return Claims{}, ErrRoom
	}
	return c, err
}

// Read returns what a token says, whatever rooms it is for.
func (v *Verifier) Read(token string) (Claims, error) {
	if len(token) > MaxToken {
		return Claims{}, fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrInvalid, len(token), MaxToken)
	}
	keys := v.keys.Load()
	d := keys.desks.Get().(*desk)
	defer keys.desks.Put(d)
	issuer, signed, ok := keys.usual(token, d)
	if !ok {
		var err error
		if issuer, signed, err = v.unusual(keys, token); err != nil {
			return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, whyUnsigned(token, err))
		}
	}
	c, err := readClaims(signed, time.Now())
	if err != nil {
		return Claims{}, err
	}
	if c.Subject, err = keys.userOf(issuer, c.Subject); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return c, nil
}

// usual returns the issuer and the claims of a token with a usual header, which names no
// key, if its signature holds; the claims are d's. What it does not take is for the library to judge, which makes a map of the
// header and takes many times as long: a tenth of a join.
func (s *keySet) usual(token string, d *desk) (issuer string, claims []byte, ok bool) {
	end := strings.LastIndexByte(token, '.')
	if end < 0 {
		return "", nil, false
	}
	header, payload, ok := strings.Cut(token[:end], ".")
	if !ok || !slices.Contains(usualHeaders[:], header) {
		return "", nil, false
	}
	d.buf = append(d.buf[:0], token...) // a hash takes no strings
	var err error
	if d.given, err = base64.RawURLEncoding.AppendDecode(d.given[:0], d.buf[end+1:]); err != nil {
		return "", nil, false
	}
	at := len(d.buf)
	if d.buf, err = base64.RawURLEncoding.AppendDecode(d.buf, d.buf[len(header)+1:len(header)+1+len(payload)]); err != nil {
		return "", nil, false
	}
	claims = d.buf[at:]
	issuer = s.issuerOf(claims)
	return issuer, claims, d.signed(d.buf[:end], s.find(issuer, ""))
}

// unusual returns the issuer and the claims of a token as the library judges it.
func (v *Verifier) unusual(keys *keySet, token string) (issuer string, claims []byte, err error) {
	header, _, _ := strings.Cut(token, ".")
	if err := checkHeader(header); err != nil {
		return "", nil, err
	}
	var c asSigned
	_, err = v.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		issuer = keys.issuerOf(c.json)
		var set jwt.VerificationKeySet
		for _, k := range keys.find(issuer, id) {
			set.Keys = append(set.Keys, keys.keys[k].Secret)
		}
		return set, nil
	})
	return issuer, c.json, err
}

// Mint makes a token that says c and holds for ttl from now; c.Expires is not
// looked at. It refuses what [Verifier.Verify] would.
func Mint(secret []byte, c Claims, ttl time.Duration) (string, error) {
	if len(secret) < private.MinSecret {
		return "", ErrSecret
	}
	if err := c.check(); err != nil {
		return "", fmt.Errorf("auth: mint a token: %w", err)
	}
	for _, room := range c.Rooms {
		if room != AllRooms && !protocol.ValidRoom(room) {
			return "", fmt.Errorf("auth: mint a token: %q is not the name of a room: 1 to %d of A-Z a-z 0-9 _ -, the first a letter or digit", room, protocol.MaxRoomName)
		}
	}
	if ttl < time.Second {
		return "", fmt.Errorf("auth: mint a token: it must hold for at least a second, not %v", ttl)
	}
	claims := jwt.MapClaims{"sub": c.Subject, "role": c.Role, "rooms": c.Rooms, "exp": time.Now().Add(ttl).Unix()}
	if c.Name != "" {
		claims["name"] = c.Name
	}
	if len(c.Can) > 0 {
		claims["can"] = c.Can
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
	if err != nil {
		return "", fmt.Errorf("auth: mint a token: %w", err)
	}
	if len(token) > MaxToken {
		return "", fmt.Errorf("auth: mint a token: %d rooms make it %d bytes long, at most %d are allowed", len(c.Rooms), len(token), MaxToken)
	}
	return token, nil
}

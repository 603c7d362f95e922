// Package auth says who somebody is, from a token alone: no query, no network, so
// that a whole audience can join at once.
//
// A token is a JWT, signed with a secret that the back ends which hand out tokens share with
// every node (HS256), or with a private key of which every node has the public one (RS, PS and
// ES with 256, 384 and 512, and EdDSA). Its claims are
//
//	sub     the user's id: 1 to 64 bytes that print, without blanks at the ends; required
//	name    what others see of the user; cleaned and cut to 64 code points
//	avatar  the address of a picture of the user
//	role    viewer, monitor, moderator or broadcaster; viewer when left out
//	rooms   a list of the rooms it is for, "lesson-*" for all that begin so, "*" for all; required
//	exp     when it ends, Unix seconds; required
//	iat     when it was made, Unix seconds
//	nbf     when it begins, Unix seconds
//	jti     its own id
//	can     a list of what its user may do beside what the role may
//	members whether its user is a member of whatever the room belongs to
//
// and others are ignored. Names are exact: Role is another claim than role, and ignored.
// A token in which one of these appears twice is refused, because the program that
// signed or checked it before may have read the other one. A [Verifier] checks tokens and a
// [Signer] makes them; [Guests] says who somebody is without one. The secrets of a node that stands
// alone come from [LoadOrMakeSecret].
//
// Keys belong to issuers (keys.go), and algorithms to keys: what a token says of its algorithm
// chooses among the keys that count with it, and no more. A token's issuer is chosen first, by the
// claim iss, and then its key, by the kid in its header, both from memory; what else a header says
// of keys (jku, jwk, x5u, x5c) is ignored. An issuer may call claims and roles otherwise ([Names]).
//
// Clocks may differ by [Leeway], or by what is set for an issuer: a token holds that much longer,
// and that much earlier, than it says. Nodes and back ends keep time by NTP, where half a minute is
// already a fault, while a token that is refused when it has just been made is a viewer
// who cannot get in.
package auth

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	// MaxSecrets is how many secrets of tokens count at a time: one, and more while one replaces
	// another. The first signs.
	MaxSecrets = 8
	// MaxNodeSecrets is the same for the secrets of guests.
	MaxNodeSecrets = 2
	// AllRooms among the rooms of a token stands for all.
	AllRooms = "*"
	// KeyUsers begins the ids of users that API keys comment as.
	KeyUsers = "key" + namespace
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
func checkSecrets(secrets [][]byte, most int) error {
	if len(secrets) > most {
		return fmt.Errorf("auth: there are %d secrets, at most %d are taken", len(secrets), most)
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
	Avatar  string        // the address of a picture; may be anything
	Role    protocol.Role // never empty once verified
	Rooms   []string      // names, and beginnings of names with * behind them
	Can     []string      // beside what the role may do; what is not known is ignored
	Member  bool
	ID      string    // of the token; may be empty
	Issued  time.Time // may be zero
	Expires time.Time
	Until   time.Time // up to when the token holds here: Expires and the leeway
}

// Allows reports whether the claims are for a room.
func (c *Claims) Allows(room string) bool { return Matches(c.Rooms, room) }

// Matches reports whether a room is among those that a token or key is for.
func Matches(rooms []string, room string) bool {
	return slices.ContainsFunc(rooms, func(r string) bool {
		prefix, many := strings.CutSuffix(r, AllRooms)
		return r == room || many && strings.HasPrefix(room, prefix)
	})
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
func CheckUser(s string) error { return checkID(s, protocol.MaxUserID) }

// CheckAuthor is CheckUser for a user of any issuer, whose id may have 128 bytes.
func CheckAuthor(s string) error { return checkID(s, maxID) }

func checkID(s string, most int) error {
	if s == "" {
		return errors.New("the user id is missing")
	}
	if strings.HasPrefix(s, KeyUsers) {
		return fmt.Errorf("the user id begins with %s, as those of API keys do", KeyUsers)
	}
	if strings.HasPrefix(s, GuestPrefix) {
		return fmt.Errorf("the user id begins with %s, as those of guests do", GuestPrefix)
	}
	if len(s) > most {
		return fmt.Errorf("the user id has %d bytes, at most %d are allowed", len(s), most)
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

// Signer makes tokens, with a secret of the default issuer.
type Signer struct {
	Secret           []byte
	Issuer, Audience string        // iss and aud; empty: the tokens have none
	MaxAge           time.Duration // longer tokens are refused; 0: any
}

// Mint makes a token that says c and holds for ttl from now; one without an ID gets one. Issued,
// Expires and Until are not looked at. It refuses what [Verifier.Verify] would.
func (s *Signer) Mint(c Claims, ttl time.Duration) (string, error) {
	if len(s.Secret) < private.MinSecret {
		return "", ErrSecret
	}
	if err := c.check(); err != nil {
		return "", fmt.Errorf("auth: mint a token: %w", err)
	}
	for _, room := range c.Rooms {
		if !ValidRooms(room) {
			return "", fmt.Errorf("auth: mint a token: %q is not the name of a room: 1 to %d of A-Z a-z 0-9 _ -, the first a letter or digit, or the beginning of one and *", room, protocol.MaxRoomName)
		}
	}
	if ttl < time.Second {
		return "", fmt.Errorf("auth: mint a token: it must hold for at least a second, not %v", ttl)
	}
	if s.MaxAge > 0 && ttl > s.MaxAge {
		return "", fmt.Errorf("auth: mint a token: it must hold for at most %v, not %v: nodes refuse longer ones (--max-token-age)", s.MaxAge, ttl)
	}
	now := time.Now()
	claims := jwt.MapClaims{
		"sub": c.Subject, "role": c.Role, "rooms": c.Rooms, "exp": now.Add(ttl).Unix(), "iat": now.Unix(), "jti": cmp.Or(c.ID, rand.Text()),
	}
	for name, value := range map[string]string{"name": c.Name, "avatar": c.Avatar, "iss": s.Issuer, "aud": s.Audience} {
		if value != "" {
			claims[name] = value
		}
	}
	if len(c.Can) > 0 {
		claims["can"] = c.Can
	}
	if c.Member {
		claims["members"] = true
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(s.Secret)
	if err != nil {
		return "", fmt.Errorf("auth: mint a token: %w", err)
	}
	if len(token) > MaxToken {
		return "", fmt.Errorf("auth: mint a token: %d rooms make it %d bytes long, at most %d are allowed", len(c.Rooms), len(token), MaxToken)
	}
	return token, nil
}

// ValidRooms reports whether s is the name of a room, or stands for all, or for those that begin
// with what is in front of its *.
func ValidRooms(s string) bool {
	prefix, many := strings.CutSuffix(s, AllRooms)
	return protocol.ValidRoom(prefix) || many && prefix == ""
}

// Mint makes a token of an issuer without a name.
func Mint(secret []byte, c Claims, ttl time.Duration) (string, error) {
	return (&Signer{Secret: secret}).Mint(c, ttl)
}

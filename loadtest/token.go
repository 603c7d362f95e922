package loadtest

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/protocol"
)

// tokenLife is how long the tokens of a run are valid: longer than any run.
const tokenLife = 24 * time.Hour

// Mint makes a token for one user of one room, signed with HS256.
func Mint(secret, room, user, name string, role protocol.Role, now time.Time) (string, error) {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "name": name, "role": role, "rooms": []string{room},
		"exp": now.Add(tokenLife).Unix(),
	}).SignedString([]byte(secret))
	if err != nil {
		return "", fmt.Errorf("loadtest: token: %w", err)
	}
	return token, nil
}

// uuid makes a random UUID of version 4.
func uuid(rng *rand.Rand) string {
	var b [16]byte
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

package bench

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signed is how the tokens of a crowd are signed.
type signed struct {
	method jwt.SigningMethod
	key    any
}

// tokens is what a stampede of fresh tokens costs, by how they are signed: joins with each, beside
// those of the floor, which looks at none.
func (b *bench) tokens(ctx context.Context) error {
	viewers := b.scaled(5000)
	if err := sockets(viewers + spareFiles); err != nil {
		return err
	}
	ways, file, err := b.signers()
	if err != nil {
		return err
	}
	n, err := b.startNode(ctx, "--jwks="+file)
	if err != nil {
		return err
	}
	f, err := b.startFloor(ctx)
	if err != nil {
		return err
	}
	others, err := b.floorCrowd(f)
	if err != nil {
		return err
	}
	crowds := make([]*crowd, len(ways))
	for i, way := range ways {
		// Made before, so that making them is not in the time of the joins.
		requests := make([][]byte, viewers)
		for v := range requests {
			user := fmt.Sprintf("%s-%d", way.method.Alg(), v)
			token, err := jwt.NewWithClaims(way.method, jwt.MapClaims{
				"sub": user, "name": user, "role": "viewer", "rooms": []string{"tokens"}, "iat": time.Now().Unix(), "exp": time.Now().Add(24 * time.Hour).Unix(),
			}).SignedString(way.key)
			if err != nil {
				return fmt.Errorf("bench: sign a token: %w", err)
			}
			requests[v] = upgrade(n.address, "tokens", token, b.cmd.Compress)
		}
		if crowds[i], err = b.newCrowd(n.address, true, func(v int) []byte { return requests[v] }); err != nil {
			return err
		}
	}
	cost := make([]Spread, len(ways))
	ratio := make([]Spread, len(ways))
	var floor Spread
	for pair := range b.cmd.Pairs {
		bare, err := b.cost(ctx, f.process, others, viewers)
		if err != nil {
			return err
		}
		floor = append(floor, bare)
		for k := range ways { // in another order each time
			i := (k + pair) % len(ways)
			mine, err := b.cost(ctx, n.process, crowds[i], viewers)
			if err != nil {
				return err
			}
			if err := n.settled(ctx, 0); err != nil {
				return err
			}
			cost[i], ratio[i] = append(cost[i], mine), append(ratio[i], mine/bare)
			b.say("  pair %d: %s %.1f µs a join, bare %.1f µs", pair+1, ways[i].method.Alg(), mine, bare)
		}
	}
	for i, way := range ways {
		b.report.add(Row{Goal: 5, Scenario: "tokens", Figure: "CPU of a join with a fresh token, " + way.method.Alg() + ", of a bare websocket.Accept", Unit: "×",
			Values: ratio[i], Node: cost[i], Floor: floor, Raw: "µs", Note: fmt.Sprintf("%d joins at %.0f/s", viewers, b.cmd.JoinRate)})
	}
	return nil
}

// signers makes keys, and the file of the public ones for a node.
func (b *bench) signers() ([]signed, string, error) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, "", fmt.Errorf("bench: %w", err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("bench: %w", err)
	}
	var file []byte
	for _, public := range []crypto.PublicKey{r.Public(), e.Public()} {
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return nil, "", fmt.Errorf("bench: %w", err)
		}
		file = append(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	path := filepath.Join(b.dir, "keys.pem")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		return nil, "", fmt.Errorf("bench: %w", err)
	}
	return []signed{{jwt.SigningMethodHS256, []byte(b.secret)}, {jwt.SigningMethodRS256, r}, {jwt.SigningMethodES256, e}}, path, nil
}

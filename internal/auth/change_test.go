package auth

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/protocol"
)

// mintAny makes a token with one of the headers that libraries write, or with another one.
func mintAny(t testing.TB, secret []byte, usual bool) string {
	t.Helper()
	if usual {
		token, err := Mint(secret, Claims{Subject: "u", Role: protocol.RoleViewer, Rooms: []string{"r"}}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	j := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "u", "rooms": "r", "exp": time.Now().Add(time.Hour).Unix()})
	j.Header["kid"] = "1"
	token, err := j.SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// While one secret replaces another tokens of both are taken, and whoever is refused or not
// meanwhile is so for the secrets of one of the two moments.
func TestVerifierChangesSecrets(t *testing.T) {
	t.Parallel()
	third := []byte("a third secret, of thirty-two bytes.")
	v, err := NewVerifier(oldSecret)
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		secrets [][]byte
		old     bool
		new     bool
	}{
		{[][]byte{oldSecret}, true, false},
		{[][]byte{oldSecret, newSecret}, true, true},
		{[][]byte{newSecret, oldSecret}, true, true},
		{[][]byte{newSecret}, false, true},
	} {
		apply, err := v.Prepare(step.secrets...)
		if err != nil {
			t.Fatal(err)
		}
		apply()
		for _, usual := range []bool{true, false} {
			for name, c := range map[string]struct {
				secret []byte
				want   bool
			}{"old": {oldSecret, step.old}, "new": {newSecret, step.new}, "another": {third, false}} {
				_, err := v.Verify(mintAny(t, c.secret, usual), "r")
				if c.want && err != nil || !c.want && !errors.Is(err, ErrInvalid) {
					t.Errorf("step %d, %s secret, usual header %v: %v; want it taken: %v", i, name, usual, err, c.want)
				}
			}
		}
	}
}

func TestVerifierChangesUnderLoad(t *testing.T) {
	t.Parallel()
	v, err := NewVerifier(oldSecret, newSecret)
	if err != nil {
		t.Fatal(err)
	}
	g := guests(t, oldSecret, newSecret)
	session := guests(t, oldSecret).Session()
	id := idOf(g, session)
	tokens := []string{mintAny(t, oldSecret, true), mintAny(t, newSecret, true), mintAny(t, oldSecret, false), mintAny(t, newSecret, false)}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { // ends with stop
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, token := range tokens {
					if _, err := v.Verify(token, "r"); err != nil {
						t.Error(err)
						return
					}
				}
				if got := idOf(g, session); got != id {
					t.Errorf("the guest is %q, and was %q", got, id)
					return
				}
			}
		})
	}
	for i := range 200 {
		secrets := [][]byte{oldSecret, newSecret}
		if i%2 == 0 {
			secrets = [][]byte{newSecret, oldSecret}
		}
		applyTokens, err1 := v.Prepare(secrets...)
		applyGuests, err2 := g.Prepare(secrets...)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		applyTokens()
		applyGuests()
		runtime.Gosched()
	}
	close(stop)
	all.Wait()
}

// What is prepared changes nothing, and what is wrong cannot be prepared.
func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	v, err := NewVerifier(oldSecret)
	if err != nil {
		t.Fatal(err)
	}
	g := guests(t, oldSecret)
	id := idOf(g, "a session of the guest's own")
	for _, secrets := range [][][]byte{{}, {newSecret, []byte("short")}, slices.Repeat([][]byte{oldSecret}, MaxSecrets+1), {newSecret}} {
		_, errTokens := v.Prepare(secrets...)
		_, errGuests := g.Prepare(secrets...)
		good := len(secrets) == 1
		if (errTokens == nil) != good || (errGuests == nil) != (good || len(secrets) == 0) {
			t.Errorf("%d secrets: %v, %v", len(secrets), errTokens, errGuests)
		}
	}
	if _, err := v.Verify(mintAny(t, oldSecret, true), "r"); err != nil {
		t.Errorf("the secret does not count any more: %v", err)
	}
	if got := idOf(g, "a session of the guest's own"); got != id {
		t.Errorf("the guest is %q, and was %q", got, id)
	}
}

// A second secret costs nobody memory.
func TestVerifyAllocations(t *testing.T) {
	one, err := NewVerifier(oldSecret)
	if err != nil {
		t.Fatal(err)
	}
	two, err := NewVerifier(oldSecret, newSecret)
	if err != nil {
		t.Fatal(err)
	}
	// The least of many runs: the race detector has pools forget some of what they are given.
	allocs := func(v *Verifier, token string) float64 {
		least := math.Inf(1)
		for range 200 {
			least = min(least, testing.AllocsPerRun(1, func() {
				if _, err := v.Verify(token, "r"); err != nil {
					t.Error(err)
				}
			}))
		}
		return least
	}
	alone := allocs(one, mintAny(t, oldSecret, true))
	for _, secret := range [][]byte{oldSecret, newSecret} {
		if got := allocs(two, mintAny(t, secret, true)); got > alone {
			t.Errorf("with two secrets a token takes %v allocations, with one %v", got, alone)
		}
	}
}

func TestReadSecrets(t *testing.T) {
	t.Parallel()
	const one, two = "11111111111111111111111111111111", "22222222222222222222222222222222"
	for _, c := range []struct {
		content, says string
		want          []string
	}{
		{one, "", []string{one}},
		{one + "\n", "", []string{one}},
		{one + "\r\n\r\n" + two + "\r\n", "", []string{one, two}},
		{"", "there is no secret in it", nil},
		{"\n\n", "there is no secret in it", nil},
		{one + "\n" + two[1:] + "\n", ":2: it has 31 bytes", nil},
		{one + "," + two + "\n", ":1: there is a comma in it", nil},
		{one + " \n", ":1: there are blanks around", nil},
		{"\ufeff" + one, ":1: it is not UTF-8 text without a mark", nil},
		{strings.Repeat("\xff", 40), ":1: it is not UTF-8", nil},
		{strings.Repeat(one+"\n", MaxSecrets+1), "there are 9 secrets in it", nil},
		{strings.Repeat("1", 5000), "it is too large", nil},
	} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadSecrets(path)
		switch {
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path)):
			t.Errorf("%.50q: %v; want %q and the path", c.content, err, c.says)
		case err != nil && (strings.Contains(err.Error(), one) || strings.Contains(err.Error(), two[1:])):
			t.Errorf("%.50q: the error tells the secret: %v", c.content, err)
		case c.says == "" && (err != nil || fmt.Sprintf("%s", got) != fmt.Sprint(c.want)):
			t.Errorf("%.50q: %s, %v; want %s", c.content, got, err, c.want)
		}
	}
	if _, err := ReadSecrets(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
}

// A volume of Kubernetes is root's, for everybody to read; what anybody may write is no secret.
func TestReadSecretsOfOthers(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // modes say nothing there
	}
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(strings.Repeat("s", 40)), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, says := range map[os.FileMode]string{0o644: "", 0o440: "", 0o602: "anybody may write it (mode 0602)"} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSecrets(path); says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("mode %04o: %v; want %q", mode, err, says)
		}
	}
}

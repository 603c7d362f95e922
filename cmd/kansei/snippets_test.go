package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The snippets that sign tokens in other languages make what a node takes.
func TestTokenSnippets(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	keyFile, publicFile := filepath.Join(dir, "key.pem"), filepath.Join(dir, "public.pem")
	writeFile(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	writeFile(t, publicFile, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	n := runNode(t, "--jwks="+publicFile)
	for _, program := range [][]string{{"php", "token.php"}, {"node", "token.mjs"}} {
		if _, err := exec.LookPath(program[0]); err != nil {
			t.Errorf("%s is missing: make setup installs it", program[0])
			continue
		}
		for _, env := range []string{"KANSEI_AUTH_SECRET=" + testSecret, "KANSEI_PRIVATE_KEY=" + keyFile} {
			cmd := exec.CommandContext(t.Context(), program[0], filepath.Join("../../docs/examples/tokens", program[1]), "user-17", "lesson-42")
			cmd.Env = append(os.Environ(), env)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v: %v\n%s", program, err, out)
				continue
			}
			w := n.mustDial("lesson-42", "?token="+strings.TrimSpace(string(out))).next("welcome")
			if you := w["you"].(map[string]any); you["id"] != "user-17" || you["name"] != "さくら" || you["ends"] == nil {
				t.Errorf("%v with %.20s: %v", program, env, you)
			}
		}
	}
}

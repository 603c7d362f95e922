//go:build unix

// Package proxyrig runs nginx and HAProxy for tests, as any user, on a free port of
// loopback. [NGINX] and [HAProxy] take a function that writes the part of the
// configuration that a test is about, for the address that was found free. The proxy
// ends with the test, and what it wrote is shown when the test has failed.
//
// Documents have whole configurations for operators: [Block] finds them, so that a test
// can run what a reader would copy.
package proxyrig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// patience is how long a proxy may take to start or to end: much longer than it does.
	patience = 30 * time.Second
	// tries is how many addresses are tried: another process may take one before the proxy does.
	tries = 5
)

// NGINX runs nginx until the test ends, and returns its address. http returns what stands
// in its http block and listens on that address.
func NGINX(t testing.TB, http func(address string) string) string {
	t.Helper()
	program := find(t, "nginx")
	return run(t, func(address, dir string) *exec.Cmd {
		// One process that stays in front, so that it needs no other user, and all that it
		// writes lies in dir.
		conf := fmt.Sprintf(`daemon off;
master_process off;
pid %[1]s/pid;
events { worker_connections 4096; }
http {
access_log off;
client_body_temp_path %[1]s/body;
proxy_temp_path %[1]s/proxy;
fastcgi_temp_path %[1]s/fastcgi;
uwsgi_temp_path %[1]s/uwsgi;
scgi_temp_path %[1]s/scgi;
%[2]s
}
`, dir, http(address))
		return exec.Command(program, "-e", "stderr", "-p", dir, "-c", write(t, dir, "nginx.conf", conf))
	})
}

// HAProxy runs HAProxy until the test ends, and returns its address. config returns its
// whole configuration, which binds that address.
func HAProxy(t testing.TB, config func(address string) string) string {
	t.Helper()
	program := find(t, "haproxy")
	return run(t, func(address, dir string) *exec.Cmd {
		return exec.Command(program, "-db", "-f", write(t, dir, "haproxy.cfg", config(address)))
	})
}

// Block returns the first fenced block of a language in a document that contains mark.
func Block(t testing.TB, document, language, mark string) string {
	t.Helper()
	page, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for rest := string(page); ; {
		_, after, found := strings.Cut(rest, "```"+language+"\n")
		if !found {
			t.Fatalf("%s has no block of %s with %q", document, language, mark)
		}
		block, next, closed := strings.Cut(after, "```")
		if !closed {
			t.Fatalf("%s: a block of %s does not end", document, language)
		}
		if strings.Contains(block, mark) {
			return block
		}
		rest = next
	}
}

// Certificate makes a certificate of loopback that signs itself, and returns the files of
// it and its key.
func Certificate(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return write(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public}))),
		write(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// Replace replaces each old text of a configuration, which must be there, by the new one
// behind it.
func Replace(t testing.TB, config string, oldnew ...string) string {
	t.Helper()
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(config, oldnew[i]) {
			t.Fatalf("there is no %q in:\n%s", oldnew[i], config)
		}
		config = strings.ReplaceAll(config, oldnew[i], oldnew[i+1])
	}
	return config
}

// find returns the path of a program.
func find(t testing.TB, name string) string {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/" + name); err != nil { // not in everybody's PATH
			t.Fatalf("%s is not installed: run make setup (%v)", name, err)
		}
	}
	return program
}

func write(t testing.TB, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// run starts what command returns, at another address if the first one was taken.
func run(t testing.TB, command func(address, dir string) *exec.Cmd) string {
	t.Helper()
	said := new(output)
	for range tries {
		said = new(output)
		address := free(t)
		cmd := command(address, t.TempDir())
		cmd.Stdout, cmd.Stderr = said, said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		// Ends with the process, which stop ends.
		go func() {
			defer close(ended)
			_ = cmd.Wait() // what it said tells more
		}()
		if up(t, address, ended) {
			t.Cleanup(func() {
				stop(t, cmd, ended)
				if t.Failed() {
					t.Logf("%s:\n%s", filepath.Base(cmd.Path), said)
				}
			})
			return address
		}
		stop(t, cmd, ended)
		if !strings.Contains(strings.ToLower(said.String()), "in use") && !strings.Contains(said.String(), "cannot bind") {
			break
		}
	}
	t.Fatalf("the proxy did not start:\n%s", said)
	return ""
}

// free returns an address that nobody listens on.
func free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close() // nobody has used it
	return l.Addr().String()
}

// up waits until a process listens at an address, and reports whether it does.
func up(t testing.TB, address string, ended <-chan struct{}) bool {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case <-ended:
			return false
		case <-tick.C:
		}
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			_ = c.Close() // it says that somebody listens
			select {
			case <-ended: // it was somebody else
				return false
			default:
				return true
			}
		}
	}
	return false
}

// stop ends a process and waits for it.
func stop(t testing.TB, cmd *exec.Cmd, ended <-chan struct{}) {
	t.Helper()
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-ended:
	case <-time.After(patience):
		t.Errorf("%s does not end", cmd.Path)
		_ = cmd.Process.Kill()
		<-ended
	}
}

// output keeps what a process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

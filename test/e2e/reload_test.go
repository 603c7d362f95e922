package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	goredis "github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/proxyrig"
)

// logged is the log of a process, which is read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestReload changes every file that a node reads, while viewers are there and comments
// come: the certificate, the secrets of tokens and guests, and the passwords of NATS and
// Redis, by SIGHUP and by the change alone. No socket ends, nothing is lost, a broken file
// changes nothing, and SIGHUP ends nobody.
func TestReload(t *testing.T) {
	t.Parallel()
	kansei, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	at := freePorts(t, 4)
	nats, redis, public, ops := at[0], at[1], at[2], at[3]
	natsHost, natsPort, _ := strings.Cut(nats, ":")
	_, redisPort, _ := strings.Cut(redis, ":")
	runs(t, nil, program(t, "nats-server"), "-c", write(t, "nats.conf", fmt.Sprintf(
		"listen: %q\njetstream { store_dir: %q }\nauthorization { user: kansei, password: nats-1 }\n", natsHost+":"+natsPort, t.TempDir())))
	runs(t, nil, program(t, "redis-server"), "--port", redisPort, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir(), "--requirepass", "redis-1")

	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	shown := func() (cert, key string) {
		c, k := proxyrig.Certificate(t)
		read := func(path string) string {
			p, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return string(p)
		}
		return read(c), read(k)
	}
	cert, key := shown()
	const oldTokens, newTokens = "a first secret of tokens with 32 bytes or more", "another secret of tokens with 32 bytes or more"
	const oldGuests, newGuests = "a first secret of guests with 32 bytes or more", "another secret of guests with 32 bytes or more"
	put("cert.pem", cert)
	put("key.pem", key)
	put("tokens", oldTokens+"\n")
	put("guests", oldGuests+"\n")
	put("nats", "nats-1\n")
	put("redis", "redis-1\n")

	log := new(logged)
	node := exec.Command(kansei, "serve", "--listen", public, "--ops-listen", ops, "--tls-cert", file("cert.pem"), "--tls-key", file("key.pem"), // #nosec G204 -- of the tests
		"--auth-secret-file", file("tokens"), "--node-secret-file", file("guests"), "--guests=comment", "--log-replicas=1", "--drain=1s",
		"--nats", "nats://"+nats, "--nats-user=kansei", "--nats-password-file", file("nats"), "--redis", "redis://"+redis, "--redis-password-file", file("redis"))
	node.Env, node.Stderr = settingsEnv(t, ""), log
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- node.Wait() }() // ends with the process
	t.Cleanup(func() {
		_ = node.Process.Kill() // it has ended by then, if all went well
		if t.Failed() {
			t.Logf("the node:\n%s", log)
		}
	})
	hup := func() {
		t.Helper()
		if err := node.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, time.Minute, "the node says its first word", func() bool { return log.String() != "" })
	hup() // before it is ready: it goes on
	becomesReady(t, ops)

	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // #nosec G402 -- which certificate it is is looked at below
	dial := func(query string) (*websocket.Conn, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		c, _, err := websocket.Dial(ctx, "wss://"+public+"/v1/rooms/r/ws"+query, &websocket.DialOptions{Subprotocols: []string{protocol.Subprotocol}, HTTPClient: hc})
		return c, err
	}
	mint := func(secret string) string {
		token, err := auth.Mint([]byte(secret), auth.Claims{Subject: "u", Role: protocol.RoleBroadcaster, Rooms: []string{"r"}}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	// come is how a newcomer is received: with an id, or closed with a code.
	come := func(query string) string {
		c, err := dial(query)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = c.CloseNow() }()
		_, p, err := c.Read(t.Context())
		if err != nil {
			return fmt.Sprint(websocket.CloseStatus(err))
		}
		_, id, _ := strings.Cut(string(p), `"you":{"id":"`)
		id, _, _ = strings.Cut(id, `"`)
		return id
	}
	serial := func() string {
		c, err := tls.Dial("tcp", public, &tls.Config{InsecureSkipVerify: true}) // #nosec G402 -- as above
		if err != nil {
			return err.Error()
		}
		defer func() { _ = c.Close() }()
		return fmt.Sprintf("%x", c.ConnectionState().PeerCertificates[0].Signature)
	}

	// The audience: each of them gets every comment, on the socket that it has.
	const viewers = 20
	var got [viewers]atomic.Int64
	var ended atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	for i := range viewers {
		c, err := dial("")
		if err != nil {
			t.Fatal(err)
		}
		watching.Go(func() { // ends with ctx
			defer func() { _ = c.CloseNow() }()
			for {
				_, p, err := c.Read(ctx)
				if err != nil {
					if ctx.Err() == nil {
						ended.Add(1)
					}
					return
				}
				got[i].Add(int64(bytes.Count(p, []byte(`"text":"tick `))))
			}
		})
	}
	host, err := dial("?token=" + mint(oldTokens))
	if err != nil {
		t.Fatal(err)
	}
	var said atomic.Int64
	watching.Go(func() { // ends with ctx
		defer func() { _ = host.CloseNow() }()
		for ctx.Err() == nil {
			m := fmt.Appendf(nil, `{"type":"comment","text":"tick %d"}`, said.Load())
			if err := host.Write(ctx, websocket.MessageText, m); err != nil {
				if ctx.Err() == nil {
					ended.Add(1)
				}
				return
			}
			said.Add(1)
			time.Sleep(20 * time.Millisecond)
		}
	})
	watching.Go(func() { // what the host's socket brings has to be read; ends with ctx
		for {
			if _, _, err := host.Read(ctx); err != nil {
				return
			}
		}
	})

	session := "?session=YXNkZmdoamtsMTIzNDU2Nw"
	firstGuest, firstSerial := come(session), serial()
	read := func(result string) float64 {
		_, body, _ := fetch("http://" + ops + "/metrics")
		_, value, _ := strings.Cut(body, "\nkansei_reloads_total{result=\""+result+"\"} ")
		var n float64
		_, _ = fmt.Sscan(value, &n) // 0 if there is none
		return n
	}
	becomes := func(what string, f func() bool) { t.Helper(); eventually(t, time.Minute, what, f) }

	// Certificate and key are replaced one after the other, and found by themselves.
	nextCert, nextKey := shown()
	put("cert.pem", nextCert)
	put("key.pem", nextKey)
	becomes("the other certificate is shown", func() bool { return serial() != firstSerial })

	// Two secrets at a time, then the new one alone.
	put("tokens", newTokens+"\n"+oldTokens+"\n")
	put("guests", newGuests+"\n"+oldGuests+"\n")
	hup()
	becomes("tokens of both secrets are taken", func() bool {
		return come("?token="+mint(newTokens)) == "u" && come("?token="+mint(oldTokens)) == "u"
	})
	made := func() string { // a session of the server's, under the secret in use
		c, err := dial("")
		if err != nil {
			return ""
		}
		defer func() { _ = c.CloseNow() }()
		_, p, err := c.Read(t.Context())
		if err != nil {
			return ""
		}
		_, s, _ := strings.Cut(string(p), `"session":"`)
		s, _, _ = strings.Cut(s, `"`)
		return "?session=" + s
	}()
	guest := come(made)
	put("tokens", newTokens+"\n")
	put("guests", newGuests+"\n")
	hup()
	becomes("tokens of the old secret are refused", func() bool {
		return come("?token="+mint(oldTokens)) == "StatusCode(4401)" && come("?token="+mint(newTokens)) == "u"
	})
	if again := come(made); again != guest || !strings.HasPrefix(guest, "guest-") {
		t.Errorf("a guest of the new secret was %q and is %q", guest, again)
	}
	if again := come(session); again == firstGuest {
		t.Errorf("a guest of a session of its own is %q under another secret, too", again)
	}

	// The passwords of NATS and Redis: connections that are there stay.
	put("nats", "nats-2\n")
	change := goredis.NewClient(&goredis.Options{Addr: net.JoinHostPort("127.0.0.1", redisPort), Password: "redis-1"})
	if err := change.ConfigSet(t.Context(), "requirepass", "redis-2").Err(); err != nil {
		t.Fatal(err)
	}
	_ = change.Close()
	put("redis", "redis-2\n")
	before := read("ok")
	becomes("the passwords are read", func() bool { return read("ok") > before })

	// One broken file, and nothing changes, though another is good.
	failed, now := read("failed"), serial()
	put("tokens", "too short\n")
	put("cert.pem", cert)
	put("key.pem", key)
	hup()
	becomes("the broken file is told", func() bool {
		return read("failed") > failed && strings.Contains(log.String(), "--auth-secret-file") && strings.Contains(log.String(), file("tokens"))
	})
	if serial() != now || come("?token="+mint(newTokens)) != "u" {
		t.Error("a broken file has changed something")
	}
	put("tokens", newTokens+"\n")
	becomes("it is mended, and the certificate is in force", func() bool { return serial() == firstSerial })

	cancelled := said.Load()
	becomes("everybody has every comment", func() bool {
		for i := range got {
			if got[i].Load() < cancelled {
				return false
			}
		}
		return true
	})
	if n := ended.Load(); n > 0 {
		t.Errorf("%d sockets ended", n)
	}
	for _, secret := range []string{oldTokens, newTokens, oldGuests, newGuests, "nats-1", "nats-2", "redis-1", "redis-2"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has %q in it", secret)
		}
	}
	cancel()
	watching.Wait()
	select {
	case err := <-exited:
		t.Fatalf("the node has ended: %v", err)
	default:
	}
	if err := node.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-exited; err != nil {
		t.Errorf("the node has ended with %v", err)
	}
}

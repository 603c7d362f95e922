package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kansei-live/kansei/test/ports"
)

// clusterPage is the document that has the files of a cluster.
const clusterPage = "../../docs/CLUSTER.md"

// documented returns the file that a document shows behind a line that begins with its path
// in back quotes.
func documented(t *testing.T, page, path string) string {
	t.Helper()
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?ms)^`" + regexp.QuoteMeta(path) + "`[^`]*?(?:`[^`\n]+`[^`]*?)*\n```[a-z]+\n(.*?)^```$").FindSubmatch(raw)
	if m == nil {
		t.Fatalf("%s does not show %s", page, path)
	}
	return string(m[1])
}

// replaced replaces what must be there.
func replaced(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("there is no %q in\n%s", pairs[i], text)
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// program is the path of a server that the tests need.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, at := range []string{filepath.Join("..", "..", "bin", name), name, filepath.Join("/usr/sbin", name)} {
		if path, err := exec.LookPath(at); err == nil {
			if path, err = filepath.Abs(path); err == nil {
				return path
			}
		}
	}
	t.Fatalf("%s is not installed: run make setup", name)
	return ""
}

// freePorts returns addresses on loopback that nobody else gets while the test lasts.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var addresses []string
	for range n {
		addresses = append(addresses, ports.ForTest(t).String())
	}
	return addresses
}

// runs starts a process that ends with the test, which shows its log if it has failed.
func runs(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(name, args...) // #nosec G204 -- of the tests
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // its status does not matter
		kill.Stop()
		if t.Failed() {
			t.Logf("%s %q:\n%s", name, args, log.String()[max(0, log.Len()-4000):])
		}
	})
}

// write writes a file into a new directory, and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// settingsEnv is the environment of a node: nothing of whoever runs the test.
func settingsEnv(t *testing.T, secrets string) []string {
	return append([]string{"HOME=" + t.TempDir(), "PATH=/bin"}, strings.Split(strings.TrimSpace(secrets), "\n")...)
}

// becomesReady waits until a node is.
func becomesReady(t *testing.T, ops string) {
	t.Helper()
	body := ""
	eventually(t, 2*time.Minute, "the node at "+ops+" is ready", func() bool {
		status := 0
		status, body, _ = fetch("http://" + ops + "/readyz")
		return status == http.StatusOK
	})
	if strings.Count(body, ": ready") < 3 {
		t.Errorf("%s says %s", ops, body)
	}
}

// The files of the document make a cluster: three NATS servers, Redis, and nodes that are
// ready and have each other's comments.
func TestDocumentedCluster(t *testing.T) {
	t.Parallel()
	kansei, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 3*3+1+2*3)
	take := func() string { defer func() { ports = ports[1:] }(); return ports[0] }
	var client, route [3]string
	hosts := []string{"10.0.0.11", "10.0.0.12", "10.0.0.13"}
	var reach []string // pairs, for whoever reaches a NATS server
	for i, h := range hosts {
		client[i], route[i] = take(), take()
		reach = append(reach, h+":4222", client[i])
	}
	natsConf := documented(t, clusterPage, "/etc/nats/nats-server.conf")
	for i, h := range hosts {
		// The three differences that the document names, and then what is this machine's.
		text := replaced(t, natsConf, `"nats-1"`, fmt.Sprintf(`"nats-%d"`, i+1), `listen: "10.0.0.11:4222"`, `listen: "`+h+`:4222"`, `listen: "10.0.0.11:6222"`, `listen: "`+h+`:6222"`)
		text = replaced(t, text, h+":4222", client[i], hosts[0]+":6222", route[0], hosts[1]+":6222", route[1], hosts[2]+":6222", route[2],
			"127.0.0.1:8222", take(), "/var/lib/nats", t.TempDir(), "20GB", "1GB")
		runs(t, os.Environ(), program(t, "nats-server"), "-c", write(t, "nats-server.conf", text))
	}
	redis := take()
	redisHost, redisPort, err := net.SplitHostPort(redis)
	if err != nil {
		t.Fatal(err)
	}
	redisConf := replaced(t, documented(t, clusterPage, "/etc/redis/redis.conf"), "bind 10.0.0.11", "bind "+redisHost, "port 6379", "port "+redisPort)
	runs(t, os.Environ(), program(t, "redis-server"), write(t, "redis.conf", redisConf), "--dir", t.TempDir())

	env := settingsEnv(t, documented(t, clusterPage, "/etc/kansei/secrets.env"))
	settings := documented(t, clusterPage, "/etc/kansei/kansei.yaml")
	var urls, ops []string
	for range hosts {
		public, operators := take(), take()
		text := replaced(t, settings, append([]string{`":8080"`, `"` + public + `"`, "10.0.0.11:8081", operators, "10.0.0.11:6379", redis}, reach...)...)
		runs(t, env, kansei, "serve", "--config", write(t, "kansei.yaml", text), "--data-dir", t.TempDir(), "--drain=1s")
		urls, ops = append(urls, "http://"+public), append(ops, operators)
	}
	for _, o := range ops {
		becomesReady(t, o)
	}

	// The token that the document has made by hand is good for the studio's room.
	cmd := exec.CommandContext(t.Context(), kansei, "token", "--room", "ROOM", "--role", "broadcaster", "--user", "alice", "--name", "Alice", "--ttl", "12h") // #nosec G204 -- of the tests
	cmd.Env = env
	token, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if status, body, err := fetch(urls[0] + "/studio/ROOM"); status != http.StatusOK || err != nil {
		t.Errorf("the studio: %d %.200s %v", status, body, err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, urls[0]+"/v1/rooms/ROOM/comments", strings.NewReader(`{"text":"on all three"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("POST: %s %s %v", res.Status, answer, err)
	}
	for _, u := range urls {
		eventually(t, time.Minute, u+" has the comment", func() bool {
			status, body, _ := fetch(u + "/v1/rooms/ROOM/comments")
			return status == http.StatusOK && strings.Contains(body, "on all three")
		})
	}
}

// On one NATS server a node needs what the document says, and no more.
func TestDocumentedNATSAlone(t *testing.T) {
	t.Parallel()
	kansei, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 4)
	conf := documented(t, clusterPage, "/etc/nats/nats-server.conf")
	conf, _, _ = strings.Cut(conf, "cluster {")
	conf = replaced(t, conf, "10.0.0.11:4222", ports[0], "127.0.0.1:8222", ports[1], "/var/lib/nats", t.TempDir(), "20GB", "1GB")
	runs(t, os.Environ(), program(t, "nats-server"), "-c", write(t, "nats-server.conf", conf))
	env := settingsEnv(t, documented(t, clusterPage, "/etc/kansei/secrets.env"))
	settings := fmt.Sprintf("listen: %q\nops-listen: %q\nnats: [%q]\nlog-replicas: 1\n", ports[2], ports[3], "nats://"+ports[0])
	runs(t, env, kansei, "serve", "--config", write(t, "kansei.yaml", settings), "--data-dir", t.TempDir(), "--drain=1s")
	becomesReady(t, ports[3])
}

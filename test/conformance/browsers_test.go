package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func playChromium(t *testing.T, table []scenario) {
	path := lookPath("chromium", "chromium-browser", "google-chrome")
	if path == "" {
		t.Fatal("there is no chromium, chromium-browser or google-chrome in PATH: run make setup")
	}
	playBrowser(t, table, func(h *house, profile, url string) *exec.Cmd {
		_, _, key := h.certificate()
		return exec.Command(path, "--headless=new", "--no-first-run", "--no-default-browser-check",
			"--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-breakpad",
			"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
			"--disable-background-timer-throttling", "--disable-renderer-backgrounding",
			"--ignore-certificate-errors-spki-list="+key,
			"--proxy-server="+nowhere, // this machine is reached without
			"--user-data-dir="+profile, url)
	})
}

// playFirefox plays with Firefox where that is, and on Debian it has to be: setup
// installs it there. Other systems need not have it, or have it as a snap, which sees
// a /tmp of its own and so not its profile.
func playFirefox(t *testing.T, table []scenario) {
	path := lookPath("firefox-esr", "firefox")
	release, _ := os.ReadFile("/etc/os-release") // other systems have none
	debian := slices.Contains(strings.Split(string(release), "\n"), "ID=debian")
	if _, err := os.Stat("/snap/firefox"); err == nil && !debian {
		path = ""
	}
	switch {
	case path == "" && debian:
		t.Fatal("there is no firefox-esr or firefox in PATH: run make setup")
	case path == "":
		t.Log("not played: Firefox is required on Debian alone, and is not here (in PATH, and not a snap)")
		return
	}
	playBrowser(t, table, func(h *house, profile, url string) *exec.Cmd {
		_, fingerprint, _ := h.certificate()
		write := func(name, content string) {
			if err := os.WriteFile(filepath.Join(profile, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("user.js", preferences())
		write("cert_override.txt", h.tls.Listener.Addr().String()+":\tOID.2.16.840.1.101.3.4.2.1\t"+fingerprint+"\t\n")
		return exec.Command(path, "--headless", "--no-remote", "--profile", profile, url)
	})
}

func lookPath(names ...string) string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// nowhere is a proxy that is not there, so that a browser reaches nothing but this
// machine.
const nowhere = "127.0.0.1:9"

// preferences are Firefox's: nothing goes out, and no page opens but ours.
func preferences() string {
	host, port, _ := net.SplitHostPort(nowhere)
	prefs := map[string]any{
		"network.proxy.type":                         1, // this machine is reached without
		"network.proxy.http":                         host,
		"network.proxy.http_port":                    json.Number(port),
		"network.proxy.ssl":                          host,
		"network.proxy.ssl_port":                     json.Number(port),
		"network.trr.mode":                           5,
		"services.settings.server":                   "data:,",
		"app.normandy.enabled":                       false,
		"app.update.disabledForTesting":              true,
		"browser.aboutwelcome.enabled":               false,
		"browser.preonboarding.enabled":              false,
		"browser.shell.checkDefaultBrowser":          false,
		"browser.startup.page":                       0,
		"datareporting.policy.dataSubmissionEnabled": false,
		"dom.push.connection.enabled":                false,
		"network.captive-portal-service.enabled":     false,
		"network.connectivity-service.enabled":       false,
		"termsofuse.bypassNotification":              true,
		"toolkit.telemetry.enabled":                  false,
	}
	var b strings.Builder
	for name, v := range prefs {
		value, _ := json.Marshal(v) // strings, numbers and booleans
		fmt.Fprintf(&b, "user_pref(%q, %s);\n", name, value)
	}
	return b.String()
}

// playBrowser plays in a browser that command starts with the page at url.
func playBrowser(t *testing.T, table []scenario, command func(h *house, profile, url string) *exec.Cmd) {
	h := newHouse(t)
	h.add(table, 0, []mode{
		{name: "declined", offer: true},
		{name: "agreed", offer: true, agree: true},
	})
	s := newStage(t, h)
	home := tempHome(t)
	profile := filepath.Join(home, "profile")
	if err := os.Mkdir(profile, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := command(h, profile, s.URL)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home, "XDG_RUNTIME_DIR="+home, "TMPDIR="+home)
	exited, output := start(t, cmd)
	select {
	case failure := <-s.done:
		if failure != "" {
			t.Errorf("the page failed: %s", failure)
		}
	case err := <-exited:
		t.Errorf("%s ended by itself: %v\n%s", cmd.Path, err, output)
	case <-time.After(playLimit):
		t.Errorf("%s has not finished\n%s", cmd.Path, output)
	}
	h.check(t, s.played(), 0)
}

// stage is the page that a browser plays, and what it posts.
type stage struct {
	*httptest.Server
	done chan string // why the page failed; empty if it did not

	mu      sync.Mutex
	reports []*report
}

func newStage(t *testing.T, h *house) *stage {
	s := &stage{done: make(chan string, 1), reports: make([]*report, len(h.runs))}
	scripts := h.scripts(t)
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServer(http.Dir("testdata")))
	mux.HandleFunc("GET /runs", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(scripts) // a browser that is gone is seen elsewhere
	})
	mux.HandleFunc("POST /report", func(w http.ResponseWriter, q *http.Request) {
		var p report
		if err := json.NewDecoder(q.Body).Decode(&p); err != nil || p.ID < 0 || p.ID >= len(s.reports) {
			t.Errorf("report %d: %v", p.ID, err)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reports[p.ID] = &p
	})
	mux.HandleFunc("POST /done", func(w http.ResponseWriter, q *http.Request) {
		failure, err := io.ReadAll(q.Body)
		if err != nil {
			failure = []byte(err.Error())
		}
		select {
		case s.done <- string(failure):
		default: // it has told before
		}
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *stage) played() []*report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*report(nil), s.reports...)
}

// start starts a program with its own process group, all of which is killed when the
// test is over. exited gets what Wait returns.
func start(t *testing.T, cmd *exec.Cmd) (exited <-chan error, output *tail) {
	t.Helper()
	output = &tail{}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.WaitDelay = 5 * time.Second // for who holds the output and is not the program
	cmd.SysProcAttr = ownGroup()
	started, ended := make(chan error), make(chan error, 1)
	// It ends with the program, which the clean-up below ends. The program may be tied
	// to the thread that started it, hence the lock.
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // an error says that all have ended
		for range ended {                                   // until it is closed
		}
	})
	return ended, output
}

// tail keeps the end of what a program has printed.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (o *tail) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	const most = 4000
	o.b = append(o.b, p...)
	if len(o.b) > most {
		o.b = append([]byte(nil), o.b[len(o.b)-most:]...)
	}
	return len(p), nil
}

func (o *tail) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}

// tempHome is a directory for a program whose killed processes may take a moment to
// end, and write until then.
func tempHome(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		for end := time.Now().Add(patience); os.RemoveAll(dir) != nil && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond)
		}
	})
	return dir
}

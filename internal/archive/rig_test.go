package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog"
	"github.com/kansei-live/kansei/internal/watchlog"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/ports"
)

// startNATS starts a server in this process.
func startNATS(t testing.TB) string {
	t.Helper()
	p := ports.ForTest(t)
	s, err := server.NewServer(&server.Options{ServerName: "one", Host: "127.0.0.1", Port: p.Number, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("nats-server does not start")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s.ClientURL()
}

// stage is a log whose time and states a test makes up.
type stage struct {
	*natslog.Log
	mu     sync.Mutex
	now    time.Time
	states map[string]protocol.State
	failAt int // the operation at which the worker is killed; 0: none
	kill   context.CancelFunc
	ops    int
}

func newStage(t testing.TB) *stage {
	t.Helper()
	log, err := natslog.Open(natslog.Config{URLs: []string{startNATS(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); log.Ready() != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(log.Ready())
		}
	}
	return &stage{Log: log, now: time.Now().Add(-time.Hour), states: map[string]protocol.State{}}
}

func (s *stage) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *stage) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *stage) State(_ context.Context, room string) (hub.State, error) {
	if err := s.op(); err != nil {
		return hub.State{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, is := s.states[room]
	if !is {
		return hub.State{}, nil
	}
	body, err := json.Marshal(st)
	return hub.State{Rev: st.Rev, Body: body}, err
}

func (s *stage) set(room string, st protocol.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Rev = s.states[room].Rev + 1
	s.states[room] = st
}

// op counts an operation, and kills the worker at one.
func (s *stage) op() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ops++; s.ops == s.failAt {
		s.kill()
		return context.Canceled
	}
	return nil
}

func (s *stage) Archived(ctx context.Context, key string) ([]byte, uint64, error) {
	if err := s.op(); err != nil {
		return nil, 0, err
	}
	return s.Log.Archived(ctx, key)
}

// PutArchived is killed before it is done, or after.
func (s *stage) PutArchived(ctx context.Context, key string, body []byte, rev uint64, life time.Duration) error {
	if err := s.op(); err != nil {
		return err
	}
	if err := s.Log.PutArchived(ctx, key, body, rev, life); err != nil {
		return err
	}
	return s.op()
}

func (s *stage) TellArchive(ctx context.Context, room, id string, body []byte) error {
	if err := s.op(); err != nil {
		return err
	}
	if err := s.Log.TellArchive(ctx, room, id, body); err != nil {
		return err
	}
	return s.op()
}

// worker makes a worker, and what it is made of.
func (s *stage) worker(t testing.TB, files *Files, change func(*Config)) *Worker {
	t.Helper()
	cfg := Config{
		Log: s, Files: files, Reader: NewReader(s, files, 10*time.Minute), Settle: 2 * time.Minute, Late: time.Hour, Poll: 10 * time.Millisecond, Lease: time.Second,
		Metrics: NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	return NewWorker(cfg)
}

func openFiles(t testing.TB, address string) *Files {
	t.Helper()
	files, err := OpenFiles(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = files.Close() })
	return files
}

func inDir(t testing.TB) *Files { return openFiles(t, "file://"+filepath.ToSlash(t.TempDir())) }

// tell stores a batch of a room.
func (s *stage) tell(t testing.TB, room string, b *watchlog.Batch) {
	t.Helper()
	if err := s.TellWatch(t.Context(), room, b.ID(room), b.Encode()); err != nil {
		t.Fatal(err)
	}
}

func (s *stage) record(t testing.TB, room, broadcast string) *Record {
	t.Helper()
	rec, err := record(t.Context(), s, keyOf(room, broadcast))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func round(t testing.TB, w *Worker) {
	t.Helper()
	clear(w.open) // it looks at all
	clear(w.seen)
	if err := w.round(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// row is a row of a user, in seconds behind a moment.
func row(at time.Time, conn uint32, who string, from, to int, end watchlog.End) watchlog.Row {
	ms := func(s int) int64 { return at.Add(time.Duration(s) * time.Second).UnixMilli() }
	r := watchlog.Row{Conn: conn, User: who, Name: "name of " + who, Session: "s-" + who, Device: watchlog.DevicePhone, From: ms(from), To: ms(to), End: end}
	r.Visible = []watchlog.Range{{ms(from), ms((from + to) / 2)}}
	r.Played = []watchlog.Played{{ms(from), ms(to), 0, ms(to) - ms(from)}}
	return r
}

// program finds a program of a database server.
func program(t testing.TB, name, pattern, pkg string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	if all, _ := filepath.Glob(pattern); len(all) > 0 {
		return all[len(all)-1]
	}
	t.Fatalf("%s is not installed, which the tests need: make setup, or the package %s", name, pkg)
	return ""
}

// as has a command run as a user, if this process is root's: database servers refuse to be. dir becomes that user's.
func as(t testing.TB, cmd *exec.Cmd, name, dir string) *exec.Cmd {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		return cmd
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir)
	return cmd
}

// startProcess runs a server until the test ends.
func startProcess(t testing.TB, cmd *exec.Cmd, stop os.Signal) {
	t.Helper()
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(stop)
		_ = cmd.Wait()
	})
}

// databaseDir makes a directory that another user may reach, unlike those of t.TempDir.
func databaseDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kansei-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// startPostgres starts PostgreSQL, and returns the address of a database.
func startPostgres(t testing.TB) string {
	t.Helper()
	dir, p := databaseDir(t), ports.ForTest(t)
	initdb := program(t, "initdb", "/usr/lib/postgresql/*/bin/initdb", "postgresql")
	//nolint:gosec // programs of the machine's own
	if out, err := as(t, exec.CommandContext(t.Context(), initdb, "-D", dir, "-A", "trust", "-U", "kansei", "--no-sync", "-E", "UTF8", "--locale", "C"), "postgres", dir).CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p.Close()
	//nolint:gosec // as above
	startProcess(t, as(t, exec.Command(program(t, "postgres", "/usr/lib/postgresql/*/bin/postgres", "postgresql"),
		"-D", dir, "-h", "127.0.0.1", "-p", strconv.Itoa(p.Number), "-k", dir, "-F"), "postgres", dir), syscall.SIGINT)
	return fmt.Sprintf("postgres://kansei@127.0.0.1:%d/postgres?sslmode=disable", p.Number)
}

// startMariaDB does the same for MariaDB.
func startMariaDB(t testing.TB) string {
	t.Helper()
	dir, p := databaseDir(t), ports.ForTest(t)
	install := program(t, "mariadb-install-db", "/usr/bin/mariadb-install-db", "mariadb-server")
	//nolint:gosec // programs of the machine's own
	if out, err := as(t, exec.CommandContext(t.Context(), install, "--no-defaults", "--datadir="+dir, "--auth-root-authentication-method=normal", "--skip-test-db"), "mysql", dir).CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	p.Close()
	//nolint:gosec // as above
	startProcess(t, as(t, exec.Command(program(t, "mariadbd", "/usr/sbin/mariadbd", "mariadb-server"),
		"--no-defaults", "--datadir="+dir, "--bind-address=127.0.0.1", "--port="+strconv.Itoa(p.Number), "--socket="+filepath.Join(dir, "s"),
		"--innodb-flush-log-at-trx-commit=0", "--skip-log-bin"), "mysql", dir), syscall.SIGTERM)
	return fmt.Sprintf("mysql://root@127.0.0.1:%d/mysql", p.Number)
}

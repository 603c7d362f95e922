package natslog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/test/ports"
)

// A server of a cluster that is stopped while it is told of a stream may leave that stream's store behind (nats-server
// 2.15.2). Of a server that was not stopped there would be much more.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// startServer starts a server in process that keeps its store in dir, at port, or
// a free one when that is 0.
func startServer(t testing.TB, dir string, port int) *server.Server {
	t.Helper()
	return startServerWith(t, dir, port, server.Options{})
}

func startServerWith(t testing.TB, dir string, port int, o server.Options) *server.Server {
	t.Helper()
	if port == 0 {
		port = freePorts(t, 1)[0]
	}
	o.ServerName, o.Host, o.Port, o.JetStream, o.StoreDir = "one", "127.0.0.1", port, true, dir
	o.NoLog, o.NoSigs = true, true
	s, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	t.Cleanup(func() { stopServer(s) })
	return s
}

func stopServer(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// freePorts returns ports that nobody else gets while the test lasts.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = ports.ForTest(t).Number
	}
	return numbers
}

// open opens a log and closes it when the test ends.
func open(t testing.TB, cfg Config) *Log {
	t.Helper()
	if cfg.Logger == nil && os.Getenv("NATSLOG_TEST_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeLog(t, l) })
	return l
}

func closeLog(t testing.TB, l *Log) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Error("close:", err)
	}
}

func urls(ss ...*server.Server) []string {
	var u []string
	for _, s := range ss {
		u = append(u, s.ClientURL())
	}
	return u
}

// openReady opens a log and waits until it is ready.
func openReady(t testing.TB, cfg Config) *Log {
	t.Helper()
	l := open(t, cfg)
	waitReady(t, l)
	return l
}

func waitReady(t testing.TB, l *Log) {
	t.Helper()
	eventually(t, 30*time.Second, "the log is ready", func() error { return l.Ready() })
}

// eventually waits until check finds nothing wrong.
func eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("not within %v: %s: %v", limit, what, err)
}

func draft1(id string) hub.Draft {
	return hub.Draft{ID: id, Kind: hub.KindComment, Body: []byte(`{"text":"` + id + `"}`)}
}

type appended struct {
	hub.Receipt
	err error
}

// appendAll appends and waits for the answers.
func appendAll(t testing.TB, l *Log, room string, ds ...hub.Draft) []appended {
	t.Helper()
	out := make([]appended, len(ds))
	var wg sync.WaitGroup
	for i, d := range ds {
		wg.Add(1)
		l.Append(room, d, func(r hub.Receipt, err error) {
			out[i] = appended{r, err}
			wg.Done()
		})
	}
	wg.Wait()
	return out
}

func mustAppend(t testing.TB, l *Log, room, id string) uint64 {
	t.Helper()
	a := appendAll(t, l, room, draft1(id))[0]
	if a.err != nil {
		t.Fatalf("append %s to %s: %v", id, room, a.err)
	}
	return a.Seq
}

// observer is a follower that remembers and checks what it is told.
type observer struct {
	mu       sync.Mutex
	resets   int
	epoch    string
	recent   []hub.Event // of the last reset
	head     uint64
	events   []hub.Event // since the last reset, recent first
	states   []hub.State
	degraded []bool
	forgot   []uint64
	headAt   int64
	wrong    error
	inside   bool
	standing []hub.Standing
}

func (o *observer) enter() func() {
	o.mu.Lock()
	if o.inside {
		o.fail(errors.New("two reports at once"))
	}
	o.inside = true
	return func() { o.inside = false; o.mu.Unlock() }
}

func (o *observer) fail(err error) {
	if o.wrong == nil {
		o.wrong = err
	}
}

func (o *observer) Reset(epoch string, recent []hub.Event, at hub.Position) {
	defer o.enter()()
	o.resets++
	head := at.Seq
	o.epoch, o.recent, o.head, o.headAt = epoch, recent, head, at.At
	o.events = append([]hub.Event(nil), recent...)
	for i, e := range recent {
		if e.Seq > head || i > 0 && e.Seq <= recent[i-1].Seq {
			o.fail(fmt.Errorf("recent event at %d is out of order (head %d)", e.Seq, head))
		}
	}
}

func (o *observer) Deliver(events []hub.Event) {
	defer o.enter()()
	if o.resets == 0 {
		o.fail(errors.New("events before the first reset"))
	}
	for _, e := range events {
		if e.Seq <= o.head {
			o.fail(fmt.Errorf("event at %d after one at %d", e.Seq, o.head))
		}
		o.head = e.Seq
		o.events = append(o.events, e)
	}
}

func (o *observer) Forgot(at hub.Position) {
	defer o.enter()()
	head := at.Seq
	o.forgot = append(o.forgot, head)
	if head < o.head {
		o.fail(fmt.Errorf("forgotten up to %d, behind %d", head, o.head))
	}
	o.head = head
}

func (o *observer) Standing(all []hub.Standing, _ hub.State) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.standing = all
}

func (o *observer) Stands(s hub.Standing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.standing = append(o.standing, s)
}

func (o *observer) SetState(s hub.State) {
	defer o.enter()()
	o.states = append(o.states, s)
}

func (o *observer) Degraded(is bool) {
	defer o.enter()()
	o.degraded = append(o.degraded, is)
}

// look gives access to what was observed, and fails the test for what was wrong.
func (o *observer) look(t testing.TB, see func()) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.wrong != nil {
		t.Fatal(o.wrong)
	}
	see()
}

func (o *observer) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.events)
}

func (o *observer) isReset() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.resets > 0 && len(o.states) > 0
}

// roomIn is a room of a partition.
func roomIn(p, partitions int) string {
	for i := 0; ; i++ {
		if room := fmt.Sprint("room", i); partition(room, partitions) == p {
			return room
		}
	}
}

// epochOf is the epoch of a room's log; empty for what is no room.
func (l *Log) epochOf(room string) string {
	return l.logs[partition(room, len(l.logs))].identity().epoch
}

// placed is the position of a record that a room's stream has.
func placed(t testing.TB, l *Log, room string, seq uint64) hub.Position {
	t.Helper()
	if seq == 0 {
		return hub.Position{}
	}
	rec, err := l.logs[partition(room, len(l.logs))].leaderGet(testContext(t), getRequest{Seq: seq})
	if err != nil || rec == nil {
		t.Fatalf("record %d: %v, %v", seq, rec, err)
	}
	return rec.position()
}

// lastOf is the sequence of a room's last record; 0 when it has none.
func lastOf(t testing.TB, l *Log, room string) uint64 {
	t.Helper()
	rec, err := l.logs[partition(room, len(l.logs))].leaderLast(testContext(t), room)
	if err != nil {
		t.Fatal(err)
	}
	if rec == nil {
		return 0
	}
	return rec.seq
}

// follow follows until the test ends, and waits for the first report.
func followRoom(t testing.TB, l *Log, room string, recent int) (*observer, *follow) {
	t.Helper()
	o := new(observer)
	f := l.Follow(room, recent, o)
	t.Cleanup(f.Stop)
	eventually(t, 20*time.Second, "the first report", func() error {
		if !o.isReset() {
			return errors.New("no reset")
		}
		return nil
	})
	return o, f.(*follow)
}

// waitEvents waits until the observer has seen the events with those texts, and
// nothing else, since its last reset.
func waitEvents(t testing.TB, o *observer, limit time.Duration, ids ...string) {
	t.Helper()
	eventually(t, limit, "the events", func() error { return sameEvents(o, ids) })
}

func sameEvents(o *observer, ids []string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.wrong != nil {
		return o.wrong
	}
	if len(o.events) != len(ids) {
		return fmt.Errorf("%d events, wanted %d; the last ones are %s", len(o.events), len(ids), bodies(o.events[max(0, len(o.events)-12):]))
	}
	for i, e := range o.events {
		if want := `{"text":"` + ids[i] + `"}`; string(e.Body) != want {
			return fmt.Errorf("event %d is %s, wanted %s", i, e.Body, want)
		}
	}
	return nil
}

// bodies are those of events.
func bodies(events []hub.Event) []byte {
	var all []byte
	for _, e := range events {
		all = fmt.Appendf(all, "%d %s, ", e.Seq, e.Body)
	}
	return all
}

// dial is a plain connection to a server.
func dial(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func names(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprint(prefix, i)
	}
	return ids
}

// setState sets a state and returns its revision.
func setState(ctx context.Context, l *Log, room string, rev uint64, body []byte) (uint64, error) {
	st, err := l.SetState(ctx, room, rev, body)
	return st.Rev, err
}

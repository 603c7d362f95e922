package natslog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// scripted appends to a stream that answers what the test says: one answer for
// each try, none for those that are empty, the last one for all further tries.
func scripted(t *testing.T, l *Log, url, subject string, answers ...string) (appended, []string) {
	t.Helper()
	return scriptedBy(t, l, l.logs[0], url, subject, answers...)
}

func scriptedBy(t *testing.T, l *Log, st *stream, url, subject string, answers ...string) (appended, []string) {
	t.Helper()
	nc := dial(t, url)
	var (
		mu    sync.Mutex
		tries []string
	)
	sub, err := nc.Subscribe(subject, func(m *nats.Msg) {
		mu.Lock()
		n := min(len(tries), len(answers)-1)
		tries = append(tries, m.Header.Get(nats.MsgIdHdr))
		mu.Unlock()
		switch answers[n] {
		case "":
		case "503":
			r := nats.NewMsg(m.Reply)
			r.Header = nats.Header{"Status": {"503"}}
			_ = nc.PublishMsg(r)
		default:
			for _, answer := range strings.Split(answers[n], "\n") {
				_ = nc.Publish(m.Reply, []byte(strings.ReplaceAll(answer, "MINE", st.name)))
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	done := make(chan appended, 2)
	l.appender.add(st, encodeDraft(subject, draft1("the-id")), func(r hub.Receipt, err error) { done <- appended{r, err} })
	a := <-done
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
		t.Error("answered twice")
	case <-time.After(50 * time.Millisecond):
	}
	mu.Lock()
	defer mu.Unlock()
	for _, id := range tries {
		if id != "the-id" {
			t.Errorf("a try with the id %q", id)
		}
	}
	return a, tries
}

func apiAnswer(code int) string {
	b, _ := json.Marshal(map[string]any{"error": natsconn.APIError{Code: 400, ErrCode: code, Description: "because"}})
	return string(b)
}

func TestAnswersToAppends(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), AppendTimeout: 3 * time.Second, RequestTimeout: 500 * time.Millisecond})
	const strange = `{"stream":"OTHER","seq":9}`
	const full, inProcess, ok = 10077, natsconn.CodeDuplicateInProcess, `{"stream":"MINE","seq":7}`
	cases := []struct {
		name    string
		answers []string
		tries   int // 0: several
		receipt hub.Receipt
		err     error
	}{
		{"ok", []string{ok}, 1, hub.Receipt{Seq: 7}, nil},
		{"duplicate", []string{`{"stream":"MINE","seq":7,"duplicate":true}`}, 1, hub.Receipt{Seq: 7, Duplicate: true}, nil},
		{"lost answer", []string{"", `{"stream":"MINE","seq":7,"duplicate":true}`}, 2, hub.Receipt{Seq: 7}, nil},
		{"no leader", []string{"503", "503", ok}, 3, hub.Receipt{Seq: 7}, nil},
		{"in process", []string{apiAnswer(inProcess), `{"stream":"MINE","seq":7,"duplicate":true}`}, 2, hub.Receipt{Seq: 7}, nil},
		{"garbage, then ok", []string{"garbage", `{}`, ok}, 3, hub.Receipt{Seq: 7}, nil},
		{"refused", []string{apiAnswer(full)}, 1, hub.Receipt{}, hub.ErrUnavailable},
		{"never answered", []string{""}, 0, hub.Receipt{}, hub.ErrUnknownOutcome},
		{"never a leader", []string{"503"}, 0, hub.Receipt{}, hub.ErrUnavailable},
		{"lost, then never a leader", []string{"", "503"}, 0, hub.Receipt{}, hub.ErrUnknownOutcome},
		{"no leader, then refused", []string{"503", apiAnswer(full)}, 2, hub.Receipt{}, hub.ErrUnavailable},
		{"no leader, then another's", []string{"503", `{"stream":"MINE","seq":7,"duplicate":true}`}, 2, hub.Receipt{Seq: 7, Duplicate: true}, nil},
		{"in process for ever", []string{apiAnswer(inProcess)}, 0, hub.Receipt{}, hub.ErrUnknownOutcome},
		{"lost, then refused", []string{"", apiAnswer(full)}, 0, hub.Receipt{}, hub.ErrUnknownOutcome},
		{"lost, refused, ok", []string{"", apiAnswer(full), ok}, 3, hub.Receipt{Seq: 7}, nil},
		{"another stream's, then ok", []string{strange + "\n" + ok}, 1, hub.Receipt{Seq: 7}, nil},
		{"another stream's alone, then ok", []string{strange, ok}, 2, hub.Receipt{Seq: 7}, nil},
		{"another domain's, then ok", []string{`{"stream":"MINE","domain":"leaf","seq":9}` + "\n" + ok}, 1, hub.Receipt{Seq: 7}, nil},
		{"another stream's duplicate", []string{`{"stream":"OTHER","seq":9,"duplicate":true}`, ok}, 2, hub.Receipt{Seq: 7}, nil},
		{"refused by another stream", []string{`{"stream":"OTHER","seq":0,"error":{"code":503,"err_code":10077}}` + "\n" + ok}, 1, hub.Receipt{Seq: 7}, nil},
		{"another stream's, and refused", []string{strange + "\n" + apiAnswer(full)}, 1, hub.Receipt{}, hub.ErrUnavailable},
		{"another stream's alone", []string{strange}, 0, hub.Receipt{}, hub.ErrUnknownOutcome},
		{"no stream's", []string{`{"seq":9}`, ok}, 2, hub.Receipt{Seq: 7}, nil},
		{"no cluster", []string{apiAnswer(natsconn.CodeClusterNotAvailable), ok}, 2, hub.Receipt{Seq: 7}, nil},
	}
	t.Run("cases", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				start := time.Now()
				subject := "fake." + strings.ReplaceAll(c.name, " ", "-")
				a, tries := scripted(t, l, s.ClientURL(), subject, c.answers...)
				if a.Receipt != c.receipt || !errors.Is(a.err, c.err) || c.tries > 0 && len(tries) != c.tries || len(tries) == 0 {
					t.Errorf("%+v after %d tries, wanted %+v, %v after %d", a, len(tries), c.receipt, c.err, c.tries)
				}
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("took %v", took)
				}
			})
		}
	})
	for result, want := range map[string]float64{resultOK: 13, resultDuplicate: 2, resultUnavailable: 4, resultUnknown: 5} {
		if got := counter(t, l.metrics.appends.WithLabelValues(result)); got != want {
			t.Errorf("%v appends were %s, wanted %v", got, result, want)
		}
	}
}

// The leader of several replicas may refuse what they have agreed on already, when it is
// its own store that fails: that leaves the outcome open. Alone, a store has refused.
func TestRefusalsOfReplicas(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), AppendTimeout: time.Second, RequestTimeout: 300 * time.Millisecond})
	failed, behind, full := apiAnswer(natsconn.CodeStoreFailed), apiAnswer(natsconn.CodeSequenceMismatch), apiAnswer(10047)
	for _, c := range []struct {
		name       string
		replicated bool
		answers    []string
		err        error
	}{
		{"failed", true, []string{failed}, hub.ErrUnknownOutcome},
		{"failed then stored", true, []string{failed, `{"stream":"MINE","seq":7,"duplicate":true}`}, nil},
		{"failed then full", true, []string{failed, full}, hub.ErrUnknownOutcome},
		{"behind", true, []string{behind}, hub.ErrUnknownOutcome},
		{"full", true, []string{full}, hub.ErrUnavailable},
		{"alone and failed", false, []string{failed}, hub.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := newStream(l, "FAKE", 0, "fake.", "0")
			st.id.epoch, st.usable = "e", true
			st.replicated.Store(c.replicated)
			a, tries := scriptedBy(t, l, st, s.ClientURL(), "fake."+strings.ReplaceAll(c.name, " ", "-"), c.answers...)
			if !errors.Is(a.err, c.err) || len(tries) == 0 || a.err == nil && (a.Duplicate || a.Seq != 7) {
				t.Errorf("%+v after %d tries, wanted %v", a, len(tries), c.err)
			}
		})
	}
}

// A write of a state whose first answer is lost finds the subject at another
// sequence: its own.
func TestStateWriteThatWasDoneAlready(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), RequestTimeout: 300 * time.Millisecond})
	a, tries := scripted(t, l, s.ClientURL(), "fake.r", "", apiAnswer(natsconn.CodeWrongLastSequence))
	if e, ok := errors.AsType[*sequenceError](a.err); !ok || e.tries != 2 || len(tries) != 2 {
		t.Errorf("%+v after %d tries", a, len(tries))
	}

	// The same through SetState: the answer to its first try is kept from it, by
	// another subscriber's having the appender's inbox in the meantime.
	ctx := testContext(t)
	inbox := l.appender.inbox
	l.appender.inbox = l.conn.NewInbox()
	type outcome struct {
		rev uint64
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		rev, err := setState(ctx, l, "r", 0, []byte(`{"title":"mine"}`))
		done <- outcome{rev, err}
	}()
	var d *draft
	eventually(t, 5*time.Second, "the first try is done", func() error {
		st, err := l.State(ctx, "r")
		l.appender.mu.Lock()
		defer l.appender.mu.Unlock()
		for _, d = range l.appender.pending {
		}
		if err != nil || st.Rev == 0 || d == nil || d.queued {
			return fmt.Errorf("not yet: %+v, %w", st, err)
		}
		// Further tries are answered where they are heard.
		d.msg.Reply = inbox + d.token
		return nil
	})
	want := revision(1, changeID("r", 0, []byte(`{"title":"mine"}`)))
	if o := <-done; o.err != nil || o.rev != want {
		t.Errorf("the state was set to %d, %v; wanted %d", o.rev, o.err, want)
	}
}

func TestAppendsInFlightAreBounded(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), MaxPending: 10, AppendTimeout: time.Second, RequestTimeout: 200 * time.Millisecond})
	nc := dial(t, s.ClientURL())
	if _, err := nc.Subscribe("fake.r", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 20)
	for range 15 {
		l.appender.add(l.logs[0], encodeDraft("fake.r", draft1("x")), func(_ hub.Receipt, err error) { errs <- err })
	}
	for i := range 15 {
		want := hub.ErrUnavailable // at once
		if i >= 5 {
			want = hub.ErrUnknownOutcome
		}
		if err := <-errs; !errors.Is(err, want) {
			t.Errorf("answer %d: %v, wanted %v", i, err, want)
		}
	}
	mustAppend(t, l, "r", "a")
}

func TestCloseFinishesAppends(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	const n = 500
	var ok, wrong atomic.Int64
	for i := range n {
		l.Append("r", draft1(fmt.Sprint(i)), func(_ hub.Receipt, err error) {
			if i == n-1 {
				time.Sleep(100 * time.Millisecond) // Close waits for the last answer too
			}
			if err == nil {
				ok.Add(1)
			} else {
				wrong.Add(1)
			}
		})
	}
	closeLog(t, l)
	if ok.Load() != n || wrong.Load() != 0 {
		t.Errorf("%d of %d are acknowledged, %d failed", ok.Load(), n, wrong.Load())
	}
	if a := appendAllClosed(l); !errors.Is(a, hub.ErrUnavailable) {
		t.Errorf("after Close: %v", a)
	}
	if err := l.Ready(); err == nil {
		t.Error("ready after Close")
	}
	closeLog(t, l) // again, which does nothing
	o := new(observer)
	l.Follow("r", 1, o).Stop()
	if _, _, err := l.Read(testContext(t), "r", l.epochOf("r"), hub.Position{}, 1); err == nil {
		t.Error("read after Close")
	}
}

func appendAllClosed(l *Log) error {
	done := make(chan error, 1)
	l.Append("r", draft1("late"), func(_ hub.Receipt, err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-time.After(5 * time.Second):
		return errors.New("never answered")
	}
}

func TestCloseDoesNotWaitForever(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	nc := dial(t, s.ClientURL())
	if _, err := nc.Subscribe("fake.r", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	l.appender.add(l.logs[0], encodeDraft("fake.r", draft1("x")), func(_ hub.Receipt, err error) { done <- err })
	eventually(t, 5*time.Second, "it is sent", func() error {
		l.appender.mu.Lock()
		defer l.appender.mu.Unlock()
		for _, d := range l.appender.pending {
			if d.tries == 0 {
				return errors.New("it is not")
			}
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close: %v", err)
	}
	if err := <-done; !errors.Is(err, hub.ErrUnknownOutcome) {
		t.Errorf("the append: %v", err)
	}
}

// proxy stands between a log and a server, and can freeze: connections stay, and
// nothing comes through.
type proxy struct {
	url string
	gen atomic.Int64 // connections of earlier generations are frozen
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{url: "nats://" + ln.Addr().String()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", target)
			if err != nil {
				_ = a.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, a, b)
			mu.Unlock()
			gen := p.gen.Load()
			pipe := func(to, from net.Conn) {
				defer func() { _ = to.Close() }()
				buf := make([]byte, 32<<10)
				for {
					n, err := from.Read(buf)
					if err != nil {
						return
					}
					if p.gen.Load() != gen {
						_, _ = io.Copy(io.Discard, from)
						return
					}
					if _, err := to.Write(buf[:n]); err != nil {
						return
					}
				}
			}
			wg.Go(func() { pipe(a, b) })
			wg.Go(func() { pipe(b, a) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return p
}

// freeze stops the connections that there are; later ones work.
func (p *proxy) freeze() { p.gen.Add(1) }

// A connection that is dead without a word is noticed by its pings; what was sent
// over it is sent again with its id, and what came meanwhile is read back.
func TestFrozenConnection(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	p := startProxy(t, s.Addr().String())
	l := openReady(t, Config{URLs: []string{p.url}, Options: []nats.Option{nats.IgnoreDiscoveredServers()}})
	other := openReady(t, Config{URLs: urls(s)})
	o, _ := followRoom(t, l, "r", 10)
	mustAppend(t, l, "r", "a")
	waitEvents(t, o, 5*time.Second, "a")
	p.freeze()
	mustAppend(t, other, "r", "b")
	start := time.Now()
	mustAppend(t, l, "r", "c")
	t.Logf("healed after %v", time.Since(start))
	waitEvents(t, o, 5*time.Second, "a", "b", "c")
	eventually(t, 10*time.Second, "the log is ready", l.Ready)
	eventually(t, 10*time.Second, "the room is not degraded", func() error { return degradedIs(o, false) })
}

// The channel of live messages overflows while nobody reads it: the probe finds
// every room that has lost something.
func TestLiveChannelOverflows(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), LiveBuffer: 100})
	other := openReady(t, Config{URLs: urls(s)})
	const rooms = 20
	os := make([]*observer, rooms)
	for i := range os {
		os[i], _ = followRoom(t, l, fmt.Sprint("r", i), 0)
	}
	l.logs[0].mu.Lock() // move waits for it, and everybody else
	const n = 3000
	want := make([][]string, rooms)
	drafts := make([][]hub.Draft, rooms)
	for i := range n {
		id := fmt.Sprint("o", i)
		want[i%rooms] = append(want[i%rooms], id)
		drafts[i%rooms] = append(drafts[i%rooms], draft1(id))
	}
	for i := range rooms {
		for _, a := range appendAll(t, other, fmt.Sprint("r", i), drafts[i]...) {
			if a.err != nil {
				t.Error(a.err)
			}
		}
	}
	l.logs[0].mu.Unlock()
	for i, o := range os {
		waitEvents(t, o, 20*time.Second, want[i]...)
	}
	if counter(t, l.metrics.nats.Errors.WithLabelValues(natsconn.OpSlowConsumer)) == 0 {
		t.Error("nothing was dropped, so nothing was tested")
	}
}

// A log without anything in flight is finished, also when there is no time left.
func TestFinishWithoutTime(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 100 { // a select takes either
		a := &appender{idle: make(chan struct{})}
		if err := a.finish(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

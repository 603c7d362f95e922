package conformance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// goClient is a client in Go. Of all methods but read, which a goroutine calls all
// the time, one is called at a time.
type goClient interface {
	read() (string, error)
	send(text string) error
	binary(text string) error
	// fragments sends a message in fragments, and calls between after each but the last.
	fragments(parts [][]byte, between func() error) error
	ping(data string) error
	close(code int, reason string) error
	// closed tells by what read returned how the connection was closed.
	closed(err error) (code int, reason string, clean bool)
	// release ends what is left.
	release()
}

// dial connects a client for a run. It tells what was agreed on, and tells seen of
// the pings and pongs that arrive.
type dial func(ctx context.Context, r *run, w *wire, s *seen) (goClient, error)

func playGo(t *testing.T, table []scenario, dial dial, can ability, modes []mode) {
	h := newHouse(t)
	h.add(table, can, modes)
	reports := make([]*report, len(h.runs))
	var playing sync.WaitGroup
	next := make(chan *run)
	for range 16 {
		// It ends when there is no further run; every run is bounded.
		playing.Go(func() {
			for r := range next {
				reports[r.id] = r.playGo(dial)
			}
		})
	}
	for _, r := range h.runs {
		next <- r
	}
	close(next)
	playing.Wait()
	h.check(t, reports, can)
}

// seen is what a client has seen so far.
type seen struct {
	mu      sync.Mutex
	report  report
	ended   bool
	changed chan struct{}
}

func (s *seen) note(f func(*report)) {
	s.mu.Lock()
	f(&s.report)
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// until waits until ok, which holds for what is seen, or until the end.
func (s *seen) until(ctx context.Context, what string, ok func(*report) bool) error {
	for {
		s.mu.Lock()
		done, ended := ok(&s.report), s.ended
		s.mu.Unlock()
		if done {
			return nil
		}
		if ended {
			return fmt.Errorf("the end instead of %s", what)
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return fmt.Errorf("%w instead of %s", ctx.Err(), what)
		}
	}
}

func (r *run) playGo(dial dial) *report {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s := &seen{changed: make(chan struct{}, 1)}
	w := &wire{chopped: r.mode.chopped}
	c, err := dial(ctx, r, w, s)
	if err != nil {
		return &report{Error: err.Error()}
	}
	var reading sync.WaitGroup
	// It ends with the connection, at the latest when that is released.
	reading.Go(func() {
		for {
			m, err := c.read()
			if err == nil {
				s.note(func(p *report) { p.Messages = append(p.Messages, m) })
				continue
			}
			code, reason, clean := c.closed(err)
			s.note(func(p *report) {
				p.Code, p.Reason, p.Clean = code, reason, clean
				s.ended = true
			})
			return
		}
	})
	for _, st := range r.steps {
		if err := perform(ctx, c, w, s, st); err != nil {
			// Once the server closes, what is still to be sent may fail.
			if r.hangUp == nil && !r.refused {
				s.note(func(p *report) { p.Error = fmt.Sprintf("%s: %v", st.Op, err) })
			}
			break
		}
	}
	if err := s.until(ctx, "the end", func(*report) bool { return s.ended }); err != nil {
		s.note(func(p *report) { p.Error += err.Error() })
	}
	c.release()
	reading.Wait()
	return &s.report
}

func perform(ctx context.Context, c goClient, w *wire, s *seen, st step) error {
	switch st.Op {
	case "send":
		return c.send(st.Text)
	case "binary":
		return c.binary(st.Text)
	case "fragments":
		if !st.Between {
			return c.fragments(st.Parts, func() error { return nil })
		}
		return answered(ctx, s, st.Text, func() error {
			return c.fragments(st.Parts, func() error { return c.ping(st.Text) })
		})
	case "ping":
		return answered(ctx, s, st.Text, func() error { return c.ping(st.Text) })
	case "cork":
		w.cork()
		return nil
	case "uncork":
		return w.uncork()
	case "await":
		return s.until(ctx, "messages", func(p *report) bool { return len(p.Messages) >= st.Messages })
	case "hold":
		select {
		case <-time.After(time.Duration(st.Millis) * time.Millisecond):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	case "close":
		code := st.Code
		if code == 0 {
			code = 1005
		}
		return c.close(code, st.Reason)
	}
	return fmt.Errorf("no such step: %q", st.Op)
}

// answered waits for a pong to what f pings.
func answered(ctx context.Context, s *seen, data string, f func() error) error {
	s.mu.Lock()
	n := len(s.report.Pongs)
	s.mu.Unlock()
	if err := f(); err != nil {
		return err
	}
	return s.until(ctx, "a pong", func(p *report) bool { return len(p.Pongs) > n && p.Pongs[len(p.Pongs)-1] == data })
}

// agreed notes what the handshake has settled.
func (s *seen) agreed(res *http.Response) {
	s.report.Protocol = res.Header.Get("Sec-WebSocket-Protocol")
	s.report.Extensions = res.Header.Get("Sec-WebSocket-Extensions")
}

// trust trusts the certificate of the house alone.
func (h *house) trust() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(h.tls.Certificate())
	return &tls.Config{RootCAs: pool}
}

// writeParts writes a message in parts, and does something between them.
func writeParts(w io.WriteCloser, parts [][]byte, between func() error) error {
	for i, p := range parts {
		if i > 0 {
			if err := between(); err != nil {
				return err
			}
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return w.Close()
}

package client

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

func code(err error) protocol.ErrorCode {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return e.Code
	}
	return ""
}

// publish comments once through a server with those scripts, within 50 seconds,
// and returns the refs that the server saw.
func publish(t *testing.T, scripts ...func(p *peer, m map[string]any)) (id string, refs []string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		servers := make([]func(*peer), 0, len(scripts))
		for _, script := range scripts {
			servers = append(servers, func(p *peer) {
				p.welcome(true)
				p.answer(func(m map[string]any) {
					refs = append(refs, m["ref"].(string))
					script(p, m)
				})
			})
		}
		r := start(t, newServer(t, servers...), nil)
		defer r.stop()
		synctest.Wait() // it has its welcome, or none for a while
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
		defer cancel()
		id, err = r.Comment(ctx, protocol.CommentRequest{Text: "わあ"})
	})
	return id, refs, err
}

func answerOK(p *peer, m map[string]any) {
	p.sendMessage(&protocol.OK{Ref: m["ref"].(string), ID: "id1"})
}

func answerError(code protocol.ErrorCode, retryMS int64) func(*peer, map[string]any) {
	return func(p *peer, m map[string]any) {
		p.sendMessage(&protocol.Error{Ref: m["ref"].(string), Code: code, Message: "no", RetryMS: retryMS})
	}
}

// once does f the first time and answers ok later.
func once(f func(*peer, map[string]any)) func(*peer, map[string]any) {
	done := false
	return func(p *peer, m map[string]any) {
		if done {
			answerOK(p, m)
			return
		}
		done = true
		f(p, m)
	}
}

func TestComment(t *testing.T) {
	t.Parallel()
	lost := func(p *peer, _ map[string]any) { _ = p.ws.CloseNow() }
	silent := func(*peer, map[string]any) {}
	for name, tc := range map[string]struct {
		scripts []func(*peer, map[string]any)
		code    protocol.ErrorCode // "": published
		sent    int
	}{
		"ok":              {[]func(*peer, map[string]any){answerOK}, "", 1},
		"refused":         {[]func(*peer, map[string]any){answerError(protocol.CodeTooLong, 0)}, protocol.CodeTooLong, 1},
		"too fast":        {[]func(*peer, map[string]any){answerError(protocol.CodeRateLimited, 100)}, protocol.CodeRateLimited, 1},
		"unavailable":     {[]func(*peer, map[string]any){once(answerError(protocol.CodeUnavailable, 3000))}, "", 2},
		"unknown outcome": {[]func(*peer, map[string]any){once(answerError(protocol.CodeUnknownOutcome, 0))}, "", 2},
		"lost connection": {[]func(*peer, map[string]any){lost, lost, answerOK}, "", 3},
		"no answer":       {[]func(*peer, map[string]any){once(silent)}, "", 2},
		"never answered":  {[]func(*peer, map[string]any){silent}, protocol.CodeUnknownOutcome, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, refs, err := publish(t, tc.scripts...)
			if got := code(err); got != tc.code || (err == nil) != (tc.code == "") {
				t.Errorf("error %v, want code %q", err, tc.code)
			}
			if err == nil && id != "id1" {
				t.Errorf("id %q, want id1", id)
			}
			if len(refs) != tc.sent {
				t.Errorf("sent %d times, want %d", len(refs), tc.sent)
			}
			for _, ref := range refs {
				if ref != refs[0] || ref == "" {
					t.Errorf("refs %v, want one for all", refs)
				}
			}
		})
	}
}

// What may have been published is not called refused: it is asked again, or unknown.
func TestCommentInDoubt(t *testing.T) {
	t.Parallel()
	lost := func(p *peer, _ map[string]any) { _ = p.ws.CloseNow() }
	for code, want := range map[protocol.ErrorCode]protocol.ErrorCode{
		protocol.CodeUnavailable:    "",
		protocol.CodeUnknownOutcome: "",
		protocol.CodeRateLimited:    "",
		protocol.CodeSlowMode:       "",
		protocol.CodeMuted:          protocol.CodeUnknownOutcome,
		protocol.CodeLocked:         protocol.CodeUnknownOutcome,
		protocol.CodeForbidden:      protocol.CodeUnknownOutcome,
		"a_later_one":               protocol.CodeUnknownOutcome,
		protocol.CodeTooLong:        protocol.CodeTooLong,
		protocol.CodeEmpty:          protocol.CodeEmpty,
		protocol.CodeBadMessage:     protocol.CodeBadMessage,
		protocol.CodeUnsupported:    protocol.CodeUnsupported,
	} {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			id, refs, err := publish(t, lost, once(answerError(code, 2000)))
			sent := 2
			if want == "" {
				sent = 3
			}
			if (id == "id1") != (want == "") || len(refs) != sent || len(slices.Compact(refs)) != 1 {
				t.Errorf("published as %q, sent as %q, error %v", id, refs, err)
			}
			got, _ := errors.AsType[*protocol.Error](err)
			if want != "" && (got == nil || got.Code != want) {
				t.Errorf("error %v, want %s", err, want)
			}
		})
	}
}

// An answer that does not come makes the client look whether anybody is there, before
// the next beat does.
func TestCommentWithoutAnswerProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, func(p *peer) {
			p.sendMessage(&protocol.Welcome{V: 1, Room: "r", Session: testSession, Recovered: true, BeatMS: 600_000})
			for p.read() != nil {
			}
		}, func(p *peer) {
			p.welcome(true)
			p.answer(func(m map[string]any) { answerOK(p, m) })
		})
		r := start(t, s, nil)
		defer r.stop()
		began := time.Now()
		id, err := r.Comment(t.Context(), protocol.CommentRequest{Text: "a"})
		if took := time.Since(began); id != "id1" || err != nil || took > 40*time.Second {
			t.Errorf("published as %q, %v, after %v", id, err, took)
		}
	})
}

func TestCommentIsNotRepeatedInAnotherSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, func(p *peer) { p.welcome(true); p.read(); _ = p.ws.CloseNow() },
			func(p *peer) {
				p.sendMessage(&protocol.Welcome{V: 1, Room: "r", Session: "another-session-01", Recovered: true})
				p.answer(func(map[string]any) { t.Error("the comment was sent again") })
			})
		r := start(t, s, nil)
		defer r.stop()
		if _, err := r.Comment(t.Context(), protocol.CommentRequest{Text: "a"}); code(err) != protocol.CodeUnknownOutcome {
			t.Errorf("error %v, want unknown_outcome", err)
		}
	})
}

func TestCommentIsNotRepeatedTooLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newServer(t, func(p *peer) { p.welcome(true); p.answer(nil) }), nil)
		defer r.stop()
		began := time.Now()
		if _, err := r.Comment(t.Context(), protocol.CommentRequest{Text: "a"}); code(err) != protocol.CodeUnknownOutcome {
			t.Errorf("error %v, want unknown_outcome", err)
		}
		if d := time.Since(began); d > 2*time.Minute {
			t.Errorf("given up after %v, want within the 2 minutes of a ref", d)
		}
	})
}

func TestCommentEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, func(p *peer) { p.read() })
		r := start(t, s, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := r.Comment(ctx, protocol.CommentRequest{Text: "a"})
		if !errors.Is(err, context.DeadlineExceeded) || code(err) != "" {
			t.Errorf("error %v, want the deadline alone: nothing was sent", err)
		}
		if _, err := r.Comment(ctx, protocol.CommentRequest{Ref: strings.Repeat("é", 65), Text: "a"}); err == nil {
			t.Error("a ref of 65 characters was taken")
		}
		r.stop()
		if _, err := r.Comment(t.Context(), protocol.CommentRequest{Text: "a"}); !errors.Is(err, ErrEnded) {
			t.Errorf("error %v, want ErrEnded", err)
		}
	})
}

func TestAnAnswerCountsBesideAnEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ended := &link{done: make(chan struct{})}
	close(ended.done)
	for range 100 { // select chooses at random
		answers := make(chan protocol.Message, 1)
		answers <- &protocol.OK{ID: "id1"}
		if a, err := waitFor(ctx, answers, ended); err != nil || a == nil {
			t.Fatalf("answer %v, error %v, want the answer that was there", a, err)
		}
	}
}

func TestCommentWhileItsRefIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newServer(t, func(p *peer) { p.welcome(true); p.answer(nil) }), nil)
		defer r.stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := make(chan error, 1)
		go func() { // ends with ctx
			_, err := r.Comment(ctx, protocol.CommentRequest{Ref: "x", Text: "a"})
			first <- err
		}()
		synctest.Wait()
		if _, err := r.Comment(ctx, protocol.CommentRequest{Ref: "x", Text: "a"}); err == nil || code(err) != "" {
			t.Errorf("error %v, want that the ref is in use", err)
		}
		if err := <-first; code(err) != protocol.CodeUnknownOutcome || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want unknown_outcome because of the deadline", err)
		}
	})
}

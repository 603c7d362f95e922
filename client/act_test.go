package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// An act is sent again, under the same ref, when its outcome is not known, and answered once.
func TestAct(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var refs []string
		s := newServer(t, func(p *peer) {
			p.welcome(false)
			p.answer(func(m map[string]any) {
				refs = append(refs, m["ref"].(string))
				switch len(refs) {
				case 1:
					p.sendMessage(&protocol.Error{Ref: m["ref"].(string), Code: protocol.CodeUnknownOutcome, RetryMS: 10})
				case 2:
					p.end(lost, "")
				}
			})
		}, func(p *peer) {
			p.welcome(false)
			p.answer(func(m map[string]any) {
				refs = append(refs, m["ref"].(string))
				switch m["type"] {
				case "mute":
					p.sendMessage(&protocol.OK{Ref: m["ref"].(string), Act: "a", Cursor: "c1"})
				case "set":
					if m["rev"] == nil {
						p.sendMessage(&protocol.OK{Ref: m["ref"].(string), Rev: 9})
					} else {
						p.sendMessage(&protocol.Error{Ref: m["ref"].(string), Code: protocol.CodeConflict, State: []byte(`{"rev":9}`)})
					}
				default:
					p.sendMessage(&protocol.Error{Ref: m["ref"].(string), Code: protocol.CodeForbidden})
				}
			})
		})
		r := start(t, s, nil)
		defer r.stop()
		done, err := r.Act(t.Context(), protocol.ActRequest{Type: protocol.TypeMute, User: "ken", ForMS: 60_000})
		if err != nil || done != (protocol.ActDone{Act: "a", Cursor: "c1"}) {
			t.Errorf("%+v, %v", done, err)
		}
		if len(refs) != 3 || refs[0] != refs[1] || refs[1] != refs[2] {
			t.Errorf("it was sent as %v", refs)
		}
		if _, err := r.Act(t.Context(), protocol.ActRequest{Type: protocol.TypeClear}); !isCode(err, protocol.CodeForbidden) {
			t.Errorf("%v", err)
		}
		if _, err := r.Act(t.Context(), protocol.ActRequest{Type: protocol.TypeMute}); !isCode(err, protocol.CodeBadMessage) || len(refs) != 4 {
			t.Errorf("what no server takes was sent: %v", err)
		}
		if rev, err := r.Set(t.Context(), 0, map[string]any{"slow_ms": 1000, "notice": nil}); rev != 9 || err != nil {
			t.Errorf("%d, %v", rev, err)
		}
		_, err = r.Set(t.Context(), 7, map[string]any{"slow_ms": 1000})
		if e, is := errors.AsType[*protocol.Error](err); !is || e.Code != protocol.CodeConflict || string(e.State) != `{"rev":9}` {
			t.Errorf("%v", err)
		}
		if _, err := r.Set(t.Context(), 0, map[string]any{"slow_ms": -1}); !isCode(err, protocol.CodeBadMessage) {
			t.Errorf("%v", err)
		}
	})
}

func isCode(err error, code protocol.ErrorCode) bool {
	e, is := errors.AsType[*protocol.Error](err)
	return is && e.Code == code
}

// The end of the context while the outcome is not known is unknown_outcome.
func TestActWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, func(p *peer) { p.welcome(false); p.answer(nil) })
		r := start(t, s, nil)
		defer r.stop()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := r.Act(ctx, protocol.ActRequest{Type: protocol.TypeClear}); !isCode(err, protocol.CodeUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

func TestRemovedAndRestored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, func(p *peer) {
			p.welcome(false)
			p.sendMessage(&protocol.Removed{IDs: []string{"a1234"}})
			p.sendMessage(&protocol.Restored{Items: []protocol.Comment{{ID: "a1234", Text: "x"}}})
			p.answer(nil)
		})
		var got []string
		r := start(t, s, func(cfg *Config) {
			cfg.Handler.Removed = func(m *protocol.Removed) { got = append(got, "removed "+m.IDs[0]) }
			cfg.Handler.Restored = func(m *protocol.Restored) { got = append(got, "restored "+m.Items[0].ID) }
		})
		defer r.stop()
		time.Sleep(time.Second)
		synctest.Wait()
		if len(got) != 2 || got[0] != "removed a1234" || got[1] != "restored a1234" {
			t.Errorf("%v", got)
		}
	})
}

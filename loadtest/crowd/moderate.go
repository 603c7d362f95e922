package crowd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/kansei-live/kansei/loadtest"
	"github.com/kansei-live/kansei/loadtest/audit"
	"github.com/kansei-live/kansei/protocol"
)

// Moderators act on hecklers: users who comment over HTTP, and are removed, cleared, muted, banned, swept, and
// forgiven; and they lay a shield over the room, and take it away. What nobody but the log knows of them is judged from the log.

// heckler is a back end that comments as a viewer.
type heckler struct {
	*backEnd
	mu   sync.Mutex
	said []string // ids, the latest ones
}

func (h *heckler) say(ctx context.Context, req protocol.CommentRequest) (audit.Outcome, string, string) {
	o, id, why := h.backEnd.say(ctx, req)
	if o == audit.Acknowledged {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.said = append(h.said[max(0, len(h.said)-20):], id)
	}
	return o, id, why
}

// moderator acts in one room.
type moderator struct {
	crowd *Crowd
	room  string
	token string
	rng   *rand.Rand
	done  []string // ids of acts that may be undone, the latest ones
	on    bool     // the shield
}

// keepModerating acts in a room until ctx ends: one act after the other, so that each knows those before.
func (c *Crowd) keepModerating(ctx context.Context, room string, rng *rand.Rand) {
	token, err := loadtest.Mint(c.cfg.Secret, room, "moderator", "moderator", protocol.RoleModerator, time.Now())
	if err != nil {
		return // the publishers' tokens are made alike
	}
	m := &moderator{crowd: c, room: room, token: token, rng: rng}
	pause := time.Duration(float64(time.Second) / c.cfg.Acts)
	for {
		select {
		case <-time.After(time.Duration(rng.ExpFloat64() * float64(pause))):
		case <-ctx.Done():
			return
		}
		switch rng.IntN(14) {
		case 0:
			m.shield()
		case 1:
			if req := m.sweep(); req != nil {
				m.do(req)
			}
		default:
			if req := m.choose(); req != nil {
				m.do(req)
			}
		}
	}
}

// choose draws an act; nil when there is nothing to act on.
func (m *moderator) choose() *protocol.ActRequest {
	all := m.crowd.hecklers[m.room]
	h := all[m.rng.IntN(len(all))]
	h.mu.Lock()
	defer h.mu.Unlock()
	switch k := m.rng.IntN(11); {
	case k < 4 && len(h.said) > 0:
		req := &protocol.ActRequest{Type: protocol.TypeRemove}
		for range 1 + m.rng.IntN(3) {
			req.IDs = append(req.IDs, h.said[m.rng.IntN(len(h.said))])
		}
		return req
	case k == 4:
		return &protocol.ActRequest{Type: protocol.TypeClear, User: h.name}
	case k == 5:
		return &protocol.ActRequest{Type: protocol.TypeMute, User: h.name, ForMS: 1000 + m.rng.Int64N(2000), Clear: m.rng.IntN(2) == 0}
	case k == 6:
		return &protocol.ActRequest{Type: protocol.TypeBan, User: h.name, ForMS: 1000 + m.rng.Int64N(2000)}
	case k == 7:
		return &protocol.ActRequest{Type: protocol.TypeUnmute, User: h.name}
	case len(m.done) > 0:
		return &protocol.ActRequest{Type: protocol.TypeUndo, Act: m.done[m.rng.IntN(len(m.done))]}
	}
	return nil
}

// sweep makes the dry run of a sweep, and returns the act that cites it; nil when it finds nothing, or is not answered.
func (m *moderator) sweep() *protocol.ActRequest {
	ctx, cancel := context.WithTimeout(m.crowd.life, askPatience)
	defer cancel()
	said := []string{"w", "8", "の", "a", "！"}
	body, _ := json.Marshal(&protocol.SweepQuery{LastMS: 2000 + m.rng.Int64N(20_000), Text: said[m.rng.IntN(len(said))]}) // strings and numbers
	var found protocol.Sweep
	status, answer, err := m.post(ctx, http.MethodPost, "/sweeps", body)
	if err != nil || status != http.StatusOK || json.Unmarshal(answer, &found) != nil || found.Comments == 0 {
		return nil
	}
	req := &protocol.ActRequest{Type: protocol.TypeSweep, Sweep: found.Sweep, Sure: true, Spare: m.rng.IntN(3) == 0}
	if !req.Spare {
		req.ForMS = 1000 + m.rng.Int64N(2000)
	}
	return req
}

// shield lays a shield over the room, or takes it away. It keeps nobody who is there from commenting now and then.
func (m *moderator) shield() {
	m.on = !m.on
	n := m.crowd.cfg.Journal.Acting(m.room)
	body := fmt.Appendf(nil, `{"shield":%t,"shield_preset":{"mode":"users","slow_ms":300,"links":"none"},"data":{"act":%d}}`, m.on, n)
	m.until(n, func(ctx context.Context) (audit.Outcome, string, string) {
		return m.ask(ctx, http.MethodPatch, "", body)
	})
}

// do does an act.
func (m *moderator) do(req *protocol.ActRequest) {
	n := m.crowd.cfg.Journal.Acting(m.room)
	req.Ref, req.Reason = fmt.Sprint("act", n), fmt.Sprint("act ", n)
	body := protocol.EncodeRequest(req)
	id := m.until(n, func(ctx context.Context) (audit.Outcome, string, string) {
		return m.ask(ctx, http.MethodPost, "/acts", body)
	})
	if id != "" && req.Type != protocol.TypeUndo && req.Type != protocol.TypeUnmute {
		m.done = append(m.done[max(0, len(m.done)-10):], id)
	}
}

// until asks until the outcome is known, or askPatience is over, and returns the id of what is done.
func (m *moderator) until(n int, ask func(context.Context) (audit.Outcome, string, string)) string {
	c := m.crowd
	ctx, cancel := context.WithTimeout(c.life, askPatience)
	defer cancel()
	unsure := false
	for {
		o, id, why := ask(ctx)
		unsure = unsure || o == audit.Unknown
		if o == audit.Refused && unsure { // an earlier try may have been done
			o = audit.Unknown
		}
		if o != audit.Unknown || ctx.Err() != nil {
			c.cfg.Journal.Acted(n, o, id, why)
			if o == audit.Acknowledged {
				return id
			}
			return ""
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// post makes a request about the room.
func (m *moderator) post(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error) {
	post, err := http.NewRequestWithContext(ctx, method, m.crowd.cfg.Front+"/v1/rooms/"+m.room+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	post.Header.Set("Authorization", "Bearer "+m.token)
	res, err := m.crowd.http.RoundTrip(post)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(res.Body, 1<<16))
	return res.StatusCode, answer, err
}

// ask asks once: the id is that of an act, or the revision of a state.
func (m *moderator) ask(ctx context.Context, method, path string, body []byte) (audit.Outcome, string, string) {
	status, answer, err := m.post(ctx, method, path, body)
	if err != nil {
		return audit.Unknown, "", err.Error()
	}
	var said struct {
		Act  string
		Rev  uint64
		Code protocol.ErrorCode
	}
	err = json.Unmarshal(answer, &said)
	switch {
	case err == nil && status == http.StatusOK && said.Rev > 0:
		return audit.Acknowledged, fmt.Sprint("rev ", said.Rev), ""
	case err == nil && status == http.StatusOK:
		return audit.Acknowledged, said.Act, ""
	case err == nil && said.Code != "" && said.Code != protocol.CodeUnknownOutcome:
		return audit.Refused, "", string(said.Code)
	}
	return audit.Unknown, "", fmt.Sprintf("%d: %.100s", status, answer)
}

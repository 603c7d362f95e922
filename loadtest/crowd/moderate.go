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

// Moderators act on hecklers: users who comment over HTTP, and are removed, cleared, muted, banned, and
// forgiven. What nobody but the log knows of them is judged from the log.

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
		if req := m.choose(); req != nil {
			m.do(req)
		}
	}
}

// choose draws an act; nil when there is nothing to act on.
func (m *moderator) choose() *protocol.ActRequest {
	all := m.crowd.hecklers[m.room]
	h := all[m.rng.IntN(len(all))]
	h.mu.Lock()
	defer h.mu.Unlock()
	switch k := m.rng.IntN(10); {
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
	case len(m.done) > 0:
		return &protocol.ActRequest{Type: protocol.TypeUndo, Act: m.done[m.rng.IntN(len(m.done))]}
	}
	return nil
}

// do asks for an act until its outcome is known, or askPatience is over.
func (m *moderator) do(req *protocol.ActRequest) {
	c := m.crowd
	n := c.cfg.Journal.Acting(m.room)
	req.Ref, req.Reason = fmt.Sprint("act", n), fmt.Sprint("act ", n)
	body := protocol.EncodeRequest(req)
	ctx, cancel := context.WithTimeout(c.life, askPatience)
	defer cancel()
	unsure := false
	for {
		o, id, why := m.ask(ctx, body)
		unsure = unsure || o == audit.Unknown
		if o == audit.Refused && unsure { // an earlier try may have been done
			o = audit.Unknown
		}
		if o != audit.Unknown || ctx.Err() != nil {
			c.cfg.Journal.Acted(n, o, id, why)
			if o == audit.Acknowledged && id != "" && req.Type != protocol.TypeUndo {
				m.done = append(m.done[max(0, len(m.done)-10):], id)
			}
			return
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// ask asks once.
func (m *moderator) ask(ctx context.Context, body []byte) (audit.Outcome, string, string) {
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, m.crowd.cfg.Front+"/v1/rooms/"+m.room+"/acts", bytes.NewReader(body))
	if err != nil {
		return audit.Refused, "", err.Error()
	}
	post.Header.Set("Authorization", "Bearer "+m.token)
	res, err := m.crowd.http.RoundTrip(post)
	if err != nil {
		return audit.Unknown, "", err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err != nil {
		return audit.Unknown, "", err.Error()
	}
	var said struct {
		Act  string
		Code protocol.ErrorCode
	}
	err = json.Unmarshal(answer, &said)
	switch {
	case err == nil && res.StatusCode == http.StatusOK:
		return audit.Acknowledged, said.Act, ""
	case err == nil && said.Code != "" && said.Code != protocol.CodeUnknownOutcome:
		return audit.Refused, "", string(said.Code)
	}
	return audit.Unknown, "", fmt.Sprintf("%s: %.100s", res.Status, answer)
}

package crowd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

const (
	// askPatience is how long a publisher asks again: longer than a node takes to say that
	// an outcome is unknown, and to be restarted.
	askPatience = 40 * time.Second
	// maxWaiting bounds the comments of a room that wait for their answer.
	maxWaiting = 2000
)

// texts is what is said, in turns.
type texts struct {
	mu   sync.Mutex
	next func() protocol.CommentRequest
}

// comment makes the next one, which carries the number.
func (t *texts) comment(s audit.Serial) protocol.CommentRequest {
	t.mu.Lock()
	req := t.next()
	t.mu.Unlock()
	n := int64(s)
	req.Ref, req.MediaMS = ref(s), &n
	return req
}

// talker is a publisher. Its answers go to the journal.
type talker interface {
	author() string
	once() bool // it does not ask again
	say(ctx context.Context, req protocol.CommentRequest) (o audit.Outcome, id, why string)
}

// publisher is a client that asks again until it knows.
type publisher struct{ *member }

func (p *publisher) author() string { return p.name }
func (p *publisher) once() bool     { return false }

func (p *publisher) say(ctx context.Context, req protocol.CommentRequest) (audit.Outcome, string, string) {
	id, err := p.client.Comment(ctx, req)
	if err == nil {
		return audit.Acknowledged, id, ""
	}
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		if e.Code == protocol.CodeUnknownOutcome {
			return audit.Unknown, "", err.Error()
		}
		return audit.Refused, "", err.Error()
	}
	// It was never sent, or is known not to have been taken.
	return audit.Refused, "", err.Error()
}

// said is the data of an event: what a comment would have said.
type said struct {
	N    int64  `json:"n"` // the serial
	Text string `json:"text"`
}

// backEnd posts over HTTP and asks once.
type backEnd struct {
	crowd *Crowd
	url   string
	name  string
	token string
}

func (c *Crowd) backEnd(room, name string, role protocol.Role) (*backEnd, error) {
	token, err := loadtest.Mint(c.cfg.Secret, room, name, name, role, time.Now())
	if err != nil {
		return nil, err
	}
	return &backEnd{crowd: c, url: c.cfg.Front + "/v1/rooms/" + room + "/", name: name, token: token}, nil
}

func (b *backEnd) author() string { return b.name }
func (b *backEnd) once() bool     { return true }

func (b *backEnd) say(ctx context.Context, req protocol.CommentRequest) (audit.Outcome, string, string) {
	body, url := any(req), b.url+"comments"
	if b.crowd.cfg.Events && *req.MediaMS%4 == 0 {
		data, err := json.Marshal(said{*req.MediaMS, req.Text})
		if err != nil {
			return audit.Refused, "", err.Error()
		}
		body, url = protocol.EventRequest{Ref: req.Ref, Name: EventName, Data: data}, b.url+"events"
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return audit.Refused, "", err.Error()
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(raw))
	if err != nil {
		return audit.Refused, "", err.Error()
	}
	post.Header.Set("Authorization", "Bearer "+b.token)
	res, err := b.crowd.http.RoundTrip(post)
	if err != nil {
		return audit.Unknown, "", err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err != nil {
		return audit.Unknown, "", err.Error()
	}
	var told struct {
		ID   string
		Code protocol.ErrorCode
	}
	err = json.Unmarshal(answer, &told)
	switch {
	case err == nil && res.StatusCode == http.StatusCreated && told.ID != "":
		return audit.Acknowledged, told.ID, ""
	case err == nil && told.Code != "" && told.Code != protocol.CodeUnknownOutcome:
		return audit.Refused, "", string(told.Code)
	}
	// Unknown to the node, or what stands before it could not say.
	return audit.Unknown, "", fmt.Sprintf("%s: %.100s", res.Status, answer)
}

// Publishing is comments that are being sent.
type Publishing struct {
	stop    context.CancelFunc
	sending sync.WaitGroup
}

// Publish has every room's publishers and back ends speak, in turns and at their rate,
// until Stop.
func (c *Crowd) Publish() *Publishing {
	ctx, stop := context.WithCancel(c.life)
	p := &Publishing{stop: stop}
	for i, room := range c.cfg.Rooms {
		rng := rand.New(rand.NewPCG(c.cfg.Seed, uint64(i)))
		p.sending.Go(func() { c.keepTalking(ctx, room, rng) }) // ends with Stop
		if c.cfg.Acts > 0 {
			rng := rand.New(rand.NewPCG(c.cfg.Seed, uint64(i)+1<<32))
			p.sending.Go(func() { c.keepModerating(ctx, room, rng) }) // ends with Stop
		}
	}
	return p
}

// Stop ends the publishing and waits until every comment has its answer.
func (p *Publishing) Stop() {
	p.stop()
	p.sending.Wait()
}

// keepTalking sends comments of one room until ctx ends, and waits for the answers.
func (c *Crowd) keepTalking(ctx context.Context, room string, rng *rand.Rand) {
	talkers := c.talkers(room)
	waiting := make(chan struct{}, maxWaiting)
	var sending sync.WaitGroup
	defer sending.Wait()
	pause := time.Duration(float64(time.Second) / c.cfg.Rate)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next := time.Now(); ; {
		timer.Reset(time.Until(next))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		// As people do: not evenly.
		next = next.Add(time.Duration(rng.ExpFloat64() * float64(pause)))
		if late := time.Since(next); late > time.Second {
			next = next.Add(late)
		}
		select {
		case waiting <- struct{}{}:
		case <-ctx.Done():
			return
		}
		t := talkers[rng.IntN(len(talkers))]
		sending.Go(func() { // ends with its answer, or after askPatience
			defer func() { <-waiting }()
			c.say(t, room)
		})
	}
}

func (c *Crowd) talkers(room string) []talker {
	var all []talker
	for _, p := range c.publishers[room] {
		all = append(all, p)
	}
	for _, b := range c.backEnds[room] {
		all = append(all, b)
	}
	for _, h := range c.hecklers[room] {
		all = append(all, h, h) // they talk more
	}
	return all
}

// say says one thing and returns its number, and whether it is in the log.
func (c *Crowd) say(t talker, room string) (audit.Serial, bool) {
	ctx, cancel := context.WithTimeout(c.life, askPatience)
	defer cancel()
	s := c.cfg.Journal.Sending(room, t.author(), t.once())
	o, id, why := t.say(ctx, c.texts.comment(s))
	c.cfg.Journal.Answered(s, o, id, why)
	return s, o == audit.Acknowledged
}

// Flood sends n comments to a room at once, through its back ends, and waits for the
// answers.
func (c *Crowd) Flood(room string, n int) {
	var sending sync.WaitGroup
	slots := make(chan struct{}, 64) // connections at a time
	for i := range n {
		slots <- struct{}{}
		b := c.backEnds[room][i%len(c.backEnds[room])]
		sending.Go(func() { // ends with its answer, or after askPatience
			defer func() { <-slots }()
			c.say(b, room)
		})
	}
	sending.Wait()
}

// Mark sends a last comment to each room, and returns their serials. When a viewer has received
// it, nothing else is to come.
func (c *Crowd) Mark(ctx context.Context) (map[string]audit.Serial, error) {
	last := map[string]audit.Serial{}
	for _, room := range c.cfg.Rooms {
		for {
			s, ok := c.say(c.publishers[room][0], room)
			if ok {
				last[room] = s
				break
			}
			if ctx.Err() != nil {
				return nil, fmt.Errorf("crowd: nothing can be said in %s any more: %w", room, ctx.Err())
			}
		}
	}
	return last, nil
}

var _, _, _ talker = (*publisher)(nil), (*backEnd)(nil), (*heckler)(nil)

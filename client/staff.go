package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// What the staff of a room read is read over HTTP, with a token of the source's, from the first address that answers.
// A refusal is a *[protocol.Error].

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 16 << 20

// Sweep makes the dry run of a sweep, which changes nothing; [Client.Act] does it, with [protocol.TypeSweep] and the
// answer's Sweep.
func (c *Client) Sweep(ctx context.Context, q protocol.SweepQuery) (*protocol.Sweep, error) {
	body, err := json.Marshal(&q)
	if err != nil {
		return nil, fmt.Errorf("client: sweep: %w", err)
	}
	if _, err := protocol.DecodeSweep(body); err != nil {
		return nil, err
	}
	return ask[protocol.Sweep](ctx, c, http.MethodPost, "/sweeps", body)
}

// Moderation reads a page of the log of moderation.
func (c *Client) Moderation(ctx context.Context, q protocol.ModerationQuery) (*protocol.ModerationLog, error) {
	values := url.Values{}
	if q.Cursor != "" {
		values.Set("cursor", q.Cursor)
	}
	if q.Limit > 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.AllRooms {
		values.Set("all_rooms", "1")
	}
	return ask[protocol.ModerationLog](ctx, c, http.MethodGet, "/moderation?"+values.Encode(), nil)
}

// Person reads what the staff may know of a user.
func (c *Client) Person(ctx context.Context, user string) (*protocol.Person, error) {
	return ask[protocol.Person](ctx, c, http.MethodGet, "/users/"+url.PathEscape(user), nil)
}

// ask makes a request about the room.
func ask[A any](ctx context.Context, c *Client, method, path string, body []byte) (*A, error) {
	token := ""
	if c.cfg.Token != nil {
		var err error
		if token, err = c.fetch(ctx); err != nil {
			return nil, err
		}
	}
	var failed error
	for _, base := range c.cfg.URLs {
		answer := new(A)
		err := c.askAt(ctx, base, method, path, token, body, answer)
		refusal, refused := errors.AsType[*protocol.Error](err)
		if err == nil || refused && refusal.Code != protocol.CodeUnavailable || ctx.Err() != nil {
			if err != nil {
				return nil, err
			}
			return answer, nil
		}
		failed = err
	}
	return nil, failed
}

func (c *Client) askAt(ctx context.Context, base, method, path, token string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	if rest, is := strings.CutPrefix(base, "ws"); is { // or wss
		base = "http" + rest
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(base, "/")+"/v1/rooms/"+c.cfg.Room+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if c.cfg.Header != nil {
		req.Header = c.cfg.Header.Clone()
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	hc := c.cfg.HTTPClient
	if hc == nil {
		hc = http.DefaultClient
	}
	res, err := hc.Do(req)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	p, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var told protocol.Problem
		if json.Unmarshal(p, &told) != nil || told.Code == "" {
			return &RefusedError{Status: res.StatusCode, RetryAfter: parseRetryAfter(res.Header.Get("Retry-After"), time.Now()), Detail: string(p[:min(len(p), 300)])}
		}
		return &protocol.Error{Code: told.Code, Message: told.Detail, RetryMS: told.RetryMS, Sanction: told.Sanction}
	}
	if err := json.Unmarshal(p, into); err != nil {
		return fmt.Errorf("client: the answer is not JSON: %w", err)
	}
	return nil
}

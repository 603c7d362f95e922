package archive

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/watchlog"
)

// Delivery is what became of the web hook of a revision.
type Delivery struct {
	Delivered   int64  `json:"delivered,omitempty"` // when it was taken, Unix milliseconds
	First       int64  `json:"first,omitempty"`     // when it was tried first
	Next        int64  `json:"next,omitempty"`      // when it is tried again
	Tries       int    `json:"tries,omitempty"`
	Undelivered bool   `json:"undelivered,omitempty"` // it was given up
	Error       string `json:"error,omitempty"`       // of the last try
}

const (
	firstHookRetry = 5 * time.Second
	lastHookRetry  = 30 * time.Minute
	hookPatience   = 24 * time.Hour
	hookTime       = 15 * time.Second // of one try
)

// due reports whether it is to be tried now.
func (d *Delivery) due(now time.Time) bool {
	return d.Delivered == 0 && !d.Undelivered && now.UnixMilli() >= d.Next
}

// wait is after how long it is to be tried; 0: it is not.
func (d *Delivery) wait(h *Hook, now time.Time) time.Duration {
	if h == nil || d.Delivered != 0 || d.Undelivered {
		return 0
	}
	return max(time.Second, time.UnixMilli(d.Next).Sub(now))
}

// tried notes a try.
func (d *Delivery) tried(err error, now time.Time) {
	d.Tries++
	if d.First == 0 {
		d.First = now.UnixMilli()
	}
	if err == nil {
		d.Delivered, d.Next, d.Error = now.UnixMilli(), 0, ""
		return
	}
	d.Error = err.Error()
	if now.Sub(time.UnixMilli(d.First)) >= hookPatience {
		d.Undelivered, d.Next = true, 0
		return
	}
	d.Next = now.Add(min(firstHookRetry<<min(d.Tries-1, 20), lastHookRetry)).UnixMilli()
}

// Hook is an address that is told of every revision.
type Hook struct {
	url    string
	secret []byte
	client *http.Client
}

// NewHook makes a Hook. It follows no redirects: the address is the one that was set.
func NewHook(address string, secret []byte) *Hook {
	return &Hook{address, secret, &http.Client{
		Timeout: hookTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Sign is the header Kansei-Signature of a body that is sent at a time: t=<Unix seconds>,v1=<HMAC-SHA-256 of "t.body", in hex>.
func Sign(secret []byte, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write([]byte(t + ".")) // a hash takes all
	_, _ = mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// call makes one try.
func (h *Hook) call(ctx context.Context, id string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("not an address")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "kansei")
	req.Header.Set("Kansei-Delivery", id)
	if len(h.secret) > 0 {
		req.Header.Set("Kansei-Signature", Sign(h.secret, time.Now(), body))
	}
	answer, err := h.client.Do(req)
	if e, is := errors.AsType[*url.Error](err); is {
		return e.Err // without the address, which may be a secret: errors are logged, and listed
	}
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection can be used again
	_ = answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("it answers %s", answer.Status)
	}
	return nil
}

// Event is what back ends are told of a revision, on NATS and by the web hook.
type Event struct {
	Type      string           `json:"type"` // archive.revision
	Room      string           `json:"room"`
	Broadcast string           `json:"broadcast"`
	Revision  int              `json:"revision"`
	Final     bool             `json:"final"`
	Hash      string           `json:"hash"`
	Summary   watchlog.Summary `json:"summary"`
	Files     []file           `json:"files"`
}

// event makes the event of a revision, from its files.
func (w *Worker) event(ctx context.Context, rec *Record) ([]byte, error) {
	p, err := w.cfg.Files.bucket.ReadAll(ctx, rec.Prefix+"/"+fileManifest)
	if err != nil {
		return nil, fmt.Errorf("archive: %s: %w", rec.Prefix, err)
	}
	var m Manifest
	if err := json.Unmarshal(p, &m); err != nil {
		return nil, fmt.Errorf("archive: %s: %w", rec.Prefix, err)
	}
	e := Event{Type: "archive.revision", Room: rec.Room, Broadcast: rec.Broadcast, Revision: rec.Revision, Final: rec.Final, Hash: rec.Hash, Files: m.Files}
	if p, err = w.cfg.Files.bucket.ReadAll(ctx, rec.Prefix+"/"+fileSummary); err != nil {
		return nil, fmt.Errorf("archive: %s: %w", rec.Prefix, err)
	}
	if err := json.Unmarshal(p, &e.Summary); err != nil {
		return nil, fmt.Errorf("archive: %s: %w", rec.Prefix, err)
	}
	for i := range e.Files {
		e.Files[i].URL = w.cfg.Files.link(ctx, rec.Prefix+"/"+e.Files[i].Name)
	}
	return json.Marshal(e)
}

// deliver brings a revision to the database, to NATS and to the web hook, what of that was not done, and returns after how long
// there is more to do.
func (w *Worker) deliver(ctx context.Context, rec *Record) (time.Duration, error) {
	now := w.cfg.Log.Now()
	hook := w.cfg.Hook != nil && rec.Hook.due(now)
	store := w.cfg.DB != nil && !rec.Stored
	if rec.Told && !store && !hook {
		return rec.Hook.wait(w.cfg.Hook, now), nil
	}
	key := keyOf(rec.Room, rec.Broadcast)
	leave, err := w.lease(ctx, key+".deliver")
	if err != nil || leave == nil {
		return again, err
	}
	defer leave()
	fresh, err := record(ctx, w.cfg.Log, key)
	if err != nil || fresh == nil || fresh.rev != rec.rev {
		return again, err // another worker has
	}
	var errs []error
	body, err := w.event(ctx, rec)
	if err != nil {
		return 0, err
	}
	id := strings.Join([]string{rec.Room, rec.Broadcast, strconv.Itoa(rec.Revision), strconv.FormatBool(rec.Final)}, "/")
	if store {
		s, err := w.cfg.Files.read(ctx, rec)
		if err == nil {
			err = w.cfg.DB.Store(ctx, rec, s)
		}
		rec.Stored = err == nil
		errs = append(errs, err)
	}
	if !rec.Told {
		err := w.cfg.Log.TellArchive(ctx, rec.Room, id, body)
		rec.Told = err == nil
		errs = append(errs, err)
	}
	if hook {
		err := w.cfg.Hook.call(ctx, id, body)
		rec.Hook.tried(err, now)
		w.cfg.Metrics.hook(err, rec.Hook.Undelivered)
		if err != nil {
			w.cfg.Logger.Warn("a web hook was not taken", "room", rec.Room, "broadcast", rec.Broadcast, "revision", rec.Revision, "try", rec.Hook.Tries, "undelivered", rec.Hook.Undelivered, "error", err)
		}
	}
	if err := w.put(ctx, key, rec); err != nil && !errors.Is(err, hub.ErrConflict) {
		errs = append(errs, err)
	}
	return rec.Hook.wait(w.cfg.Hook, now), errors.Join(errs...)
}

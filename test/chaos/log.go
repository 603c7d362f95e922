//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/loadtest/audit"
)

// readLog reads what the log holds, from NATS itself.
func (l *lab) readLog(ctx context.Context) ([]audit.Entry, error) {
	var all []audit.Entry
	for _, name := range l.streams() {
		entries, err := readStream(ctx, l.nc, name)
		if err != nil {
			return nil, fmt.Errorf("chaos: read %s: %w", name, err)
		}
		all = append(all, entries...)
	}
	return all, nil
}

// stored is the answer to $JS.API.STREAM.MSG.GET.
type stored struct {
	Message struct {
		Subject string
		Seq     uint64
		Data    []byte
	}
	Error struct {
		Code        int
		ErrCode     int `json:"err_code"`
		Description string
	}
}

// noMessage is the code of an answer that says that nothing follows.
const noMessage = 10037

// readStream reads a stream message by message, of its leader: a consumer, or a get from any
// server, might read a copy that lacks the latest.
func readStream(ctx context.Context, nc *nats.Conn, name string) ([]audit.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var out []audit.Entry
	for at := uint64(1); ; {
		request := fmt.Appendf(nil, `{"seq":%d,"next_by_subj":">"}`, at)
		var got stored
		m, err := nc.Request("$JS.API.STREAM.MSG.GET."+name, request, 2*time.Second)
		if err == nil {
			err = json.Unmarshal(m.Data, &got)
		}
		switch {
		case err == nil && got.Error.ErrCode == noMessage:
			return out, nil
		case err == nil && got.Error.Code != 0:
			err = errors.New(got.Error.Description)
		}
		if err != nil { // there may be no leader for a while
			if stop := sleep(ctx, 500*time.Millisecond); stop != nil {
				return nil, fmt.Errorf("from %d on: %w", at, errors.Join(err, stop))
			}
			continue
		}
		var body struct {
			Text    string
			MediaMS int64 `json:"media_ms"`
			User    struct{ ID string }
		}
		if err := json.Unmarshal(got.Message.Data, &body); err != nil {
			return nil, fmt.Errorf("at %d: %w", got.Message.Seq, err)
		}
		out = append(out, audit.Entry{
			Room: got.Message.Subject[strings.LastIndexByte(got.Message.Subject, '.')+1:], Seq: got.Message.Seq,
			Serial: audit.Serial(body.MediaMS), Author: body.User.ID, Digest: audit.Digest(body.User.ID, body.Text),
		})
		at = got.Message.Seq + 1
	}
}

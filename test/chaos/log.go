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

	"github.com/kansei-live/kansei/hub"
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
		Hdrs    []byte
		Time    time.Time
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
		e, err := entry(&got)
		if err != nil {
			return nil, fmt.Errorf("at %d: %w", got.Message.Seq, err)
		}
		if e != nil {
			out = append(out, *e)
		}
		at = got.Message.Seq + 1
	}
}

// entry is what a record holds; nil for a kind that is not judged here.
func entry(got *stored) (*audit.Entry, error) {
	m := &got.Message
	header, err := nats.DecodeHeadersMsg(m.Hdrs)
	if err != nil {
		return nil, err
	}
	e := &audit.Entry{Room: m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], Seq: m.Seq, At: m.Time}
	switch kind := header.Get("Kansei-Kind"); kind {
	case "":
		var body struct {
			Text    string
			MediaMS int64 `json:"media_ms"`
			User    struct{ ID, Role string }
		}
		if err := json.Unmarshal(m.Data, &body); err != nil {
			return nil, err
		}
		e.Serial, e.Author, e.Digest = audit.Serial(body.MediaMS), body.User.ID, audit.Digest(body.User.ID, body.Text)
		e.ID, e.Staff = hub.CommentID(m.Seq, header.Get(nats.MsgIdHdr)), body.User.Role == "broadcaster"
	case "event":
		var body struct {
			User struct{ ID, Role string }
			Data struct {
				N    int64
				Text string
			}
		}
		if err := json.Unmarshal(m.Data, &body); err != nil {
			return nil, err
		}
		e.Serial, e.Author, e.Digest, e.Event = audit.Serial(body.Data.N), body.User.ID, audit.Digest(body.User.ID, body.Data.Text), true
		e.ID, e.Staff = hub.CommentID(m.Seq, header.Get(nats.MsgIdHdr)), body.User.Role == "broadcaster"
	case "act":
		var a struct {
			ID, Kind, User, Reason string
			IDs, Undoes, Lifts     []string
			Users                  []struct{ User string }
			Ends                   int64
			Clear                  bool
		}
		if err := json.Unmarshal(m.Data, &a); err != nil {
			return nil, err
		}
		e.Act = &audit.LogAct{ID: a.ID, Kind: a.Kind, Comments: a.IDs, User: a.User, Clear: a.Clear, Undoes: a.Undoes, Lifts: a.Lifts}
		for _, u := range a.Users {
			e.Act.Users = append(e.Act.Users, u.User)
		}
		_, _ = fmt.Sscanf(a.Reason, "act %d", &e.Act.Number) // other acts have no number
		if a.Ends > 0 {
			e.Act.Ends = time.UnixMilli(a.Ends)
		}
	case "state":
		var s struct {
			Rev   uint64
			State struct{ Data struct{ Act int } }
		}
		if err := json.Unmarshal(m.Data, &s); err != nil {
			return nil, err
		}
		e.Act = &audit.LogAct{ID: fmt.Sprint("rev ", s.Rev), Kind: "set", Number: s.State.Data.Act}
	default:
		return nil, nil
	}
	return e, nil
}

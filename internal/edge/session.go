package edge

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/internal/socket"
	"github.com/kansei-live/kansei/internal/watchlog"
	"github.com/kansei-live/kansei/protocol"
)

// maxMalformed is how many malformed messages a connection may send before it is
// closed: enough to debug a client by hand.
const maxMalformed = 10

// session is one viewer's connection. Message is called by one goroutine at a time.
type session struct {
	hub.Viewer
	ticket
	conn *socket.Conn

	gone     atomic.Bool
	settled  atomic.Bool  // it has its welcome
	parting  atomic.Bool  // it is to be closed, and may not comment any more
	underWay atomic.Int32 // comments and events without an answer
	leaveAt  atomic.Int64 // when it is to leave, in Unix ns, while it is to be told so; else 0

	authAt    int64 // when a token came over the connection last, Unix milliseconds
	malformed int32
	asked     atomic.Bool // it is to be asked for a fresh token when it has its welcome
	told      atomic.Pointer[protocol.Blocked]
	apart     bool   // it is in no count
	device    string // its class
	watch     watchlog.View

	// Of expiry; the same lock guards them.
	due     schedule
	place   int32
	sibling *session // the next of its user; the lock of the user's entry guards it
}

var _ socket.Handler = (*session)(nil)

// welcome makes the first message for somebody who has come as p.
func (v *session) welcome(p *identity, blocked *protocol.Blocked, limits protocol.Limits, watch string, recovered bool) []byte {
	s := v.server
	you := s.you(v.room, p)
	you.Blocked = blocked
	v.told.Store(blocked)
	return protocol.Encode(&protocol.Welcome{
		V: protocol.Version, Room: v.room, Session: v.session, You: you,
		Now: time.Now().UnixMilli(), Recovered: recovered, BeatMS: s.cfg.Beat.Milliseconds(), Limits: limits,
		Watch: watch,
	})
}

// send sends a message to this viewer alone.
func (v *session) send(m protocol.Message) {
	v.Send(v.conn, protocol.Encode(m))
}

// Message implements [socket.Handler].
func (v *session) Message(p []byte) {
	now := time.Now()
	if wait := v.user.takeMessage(v.server.messageRate(&v.identity), now); wait > 0 {
		v.conn.Close(int(protocol.CloseTooMany), protocol.CloseReason("too many messages", max(1000, wait.Milliseconds())))
		return
	}
	req, err := protocol.DecodeRequest(p)
	if err != nil {
		e, _ := errors.AsType[*protocol.Error](err) // always
		v.server.cfg.Metrics.comments.WithLabelValues(string(e.Code)).Inc()
		if e.Code == protocol.CodeBadMessage {
			v.malformed++
		}
		if v.malformed > maxMalformed {
			v.conn.Close(int(protocol.CloseMalformed), protocol.CloseReason("too many malformed messages", 0))
			return
		}
		v.send(e)
		return
	}
	switch req := req.(type) {
	case *protocol.CommentRequest:
		v.publish(comment{req: req})
	case *protocol.EventRequest:
		v.publish(comment{event: req})
	case *protocol.ActRequest:
		v.act(req)
	case *protocol.SetRequest:
		v.set(req)
	case *protocol.AuthRequest:
		v.auth(req)
	case *protocol.BeatRequest:
		v.watch.Beat(req.Visible, req.MediaMS)
		v.send(&protocol.Beat{Now: now.UnixMilli()})
	case *protocol.UnknownRequest:
		if req.Ref != "" {
			v.send(&protocol.Error{Ref: req.Ref, Code: protocol.CodeUnsupported, Message: "this server does not know the type " + quiet.Cut(req.Type, maxShown)})
		}
	}
}

// publish publishes what somebody has sent, and answers.
func (v *session) publish(c comment) {
	s, ref := v.server, c.ref()
	v.underWay.Add(1)
	answer := func(id string, e *protocol.Error) {
		defer v.underWay.Add(-1)
		switch {
		case e != nil:
			e.Ref = ref
			v.send(e)
		case ref != "":
			v.send(&protocol.OK{Ref: ref, ID: id})
		}
	}
	if v.parting.Load() {
		answer("", &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: comeBack.Milliseconds(),
			Message: "the comment was not published: this node is leaving; try again on another"})
		return
	}
	if !v.settled.Load() { // it was quick: what it may do is known when it has come in
		s.cfg.Hub.Await(context.Background(), v.room)
	}
	c.room, c.session, c.identity, c.user, c.address = v.room, v.session, &v.identity, v.user, v.address
	s.publish(c, answer)
}

// Closed implements [socket.Handler].
func (v *session) Closed(cause socket.Cause) {
	v.gone.Store(true)
	if d := v.server.leaving(); d != nil {
		d.lag.later(v.Leave)
	} else {
		v.Leave()
	}
	v.watch.Leave(watchEnd(cause), silence(cause, v.conn))
	v.user.detach(v)
	v.release()
	if v.server.dismiss(v) {
		v.server.cfg.Metrics.leaves.WithLabelValues(leaveReason(cause)).Inc()
	}
}

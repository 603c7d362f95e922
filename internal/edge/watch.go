package edge

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/socket"
	"github.com/kansei-live/kansei/internal/watchlog"
	"github.com/kansei-live/kansei/protocol"
)

// Who watches is kept by the [watchlog.Tracker]: from when somebody has come in, as a viewer who counts, to the end of the
// connection.

var _ watchlog.Viewer = (*session)(nil)

// keepWatch begins to keep that somebody watches who has come in. What it tells of itself is in the request: a page that is
// opened in the background has no event to tell of. mode is what is kept, empty where the room does not know that yet: then it
// is nothing until Opened tells.
func (s *Server) keepWatch(r *http.Request, query url.Values, v *session, mode string) {
	if v.apart {
		return
	}
	v.device = watchlog.Device(r.UserAgent())
	var (
		visible *bool
		mediaMS *int64
	)
	if text := query.Get("visible"); text == "0" || text == "1" {
		is := text == "1"
		visible = &is
	}
	if n, err := strconv.ParseInt(query.Get("media_ms"), 10, 64); err == nil && n >= 0 && n <= protocol.MaxMediaMS {
		mediaMS = &n
	}
	if mode != "" {
		s.cfg.Watch.Join(&v.watch, v, v.room, mode, visible, mediaMS)
		return
	}
	s.cfg.Watch.Join(&v.watch, v, v.room, protocol.WatchOff, visible, mediaMS)
	if room := s.cfg.Hub.Find(v.room); room != nil {
		if _, ready := room.UserActs(v.id); ready { // by now: Opened may have been told before
			s.cfg.Watch.Set(v.room, s.watchOf(room))
		}
	}
}

// watchOf is what is kept of who watches a room that knows its state.
func (s *Server) watchOf(room *hub.Room) string {
	state, _ := room.Status()
	return s.cfg.Watch.Mode(state.Watch)
}

// Who implements [watchlog.Viewer].
func (v *session) Who() watchlog.Who {
	s := v.server
	s.mu.Lock()
	defer s.mu.Unlock()
	return watchlog.Who{User: v.id, Name: v.name, Session: v.session, Device: v.device, Guest: v.guest}
}

// Silence implements [watchlog.Viewer].
func (v *session) Silence() time.Duration { return v.conn.Silence() }

// watchEnd is how a connection ended, for the watch log.
func watchEnd(c socket.Cause) watchlog.End {
	switch c.Kind {
	case socket.ClosedByPeer:
		return watchlog.EndLeft
	case socket.Lost:
		return watchlog.EndLost
	case socket.Silent:
		return watchlog.EndSilent
	case socket.ClosedByServer:
		switch protocol.CloseCode(c.Code) {
		case protocol.CloseRestart, protocol.CloseGoingAway:
			return watchlog.EndDrained
		case protocol.CloseBanned:
			return watchlog.EndBanned
		}
	}
	return watchlog.EndClosed
}

// silence is for how long nothing had been heard of a viewer, where that is why it ended: it counts as there until it was
// heard last.
func silence(c socket.Cause, conn *socket.Conn) time.Duration {
	if c.Kind == socket.Silent || c.Kind == socket.TooSlow || c.Kind == socket.Unfinished {
		return conn.Silence()
	}
	return 0
}

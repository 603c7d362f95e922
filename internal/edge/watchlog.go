package edge

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kansei-live/kansei/internal/watchlog"
	"github.com/kansei-live/kansei/protocol"
)

// WatchReader reads who watched a broadcast. Its errors may wrap [ErrNoBroadcast].
type WatchReader interface {
	// WatchLog is a broadcast of a room as it is known by now; the current one, else the latest, if broadcast is empty.
	WatchLog(ctx context.Context, room, broadcast string) (Watched, error)
	// Broadcasts lists those of a room, the latest first.
	Broadcasts(ctx context.Context, room string) ([]protocol.BroadcastEntry, error)
}

// Watched is a broadcast as it is known.
type Watched struct {
	Revision int
	Final    bool
	Summary  watchlog.Summary
	Users    []watchlog.User
}

// ErrNoBroadcast says that a room has no such broadcast.
var ErrNoBroadcast = errors.New("edge: there is no such broadcast")

// enterWatchers is enter for those who may read who watched a room; it has answered when it returns false.
func (s *Server) enterWatchers(w http.ResponseWriter, r *http.Request) (string, bool) {
	name, who, ok := s.enter(w, r, anyone)
	if !ok {
		return "", false
	}
	if reads := who.role == protocol.RoleBroadcaster || who.backEnd && who.role.Staff() || who.admin; !reads {
		writeProblem(w, 0, forbidden("only a broadcaster of this room may read who watched it, or an API key with the scope read"), 0)
		return "", false
	}
	return name, s.mayAsk(w, userOf(name, who.id), who)
}

// getWatchLog is GET /v1/rooms/{room}/watchlog.
func (s *Server) getWatchLog(w http.ResponseWriter, r *http.Request) {
	name, ok := s.enterWatchers(w, r)
	if !ok {
		return
	}
	q, err := protocol.DecodeWatchQuery(r.URL.RawQuery)
	if e, bad := errors.AsType[*protocol.Error](err); bad {
		writeProblem(w, 0, e, 0)
		return
	}
	select { // each reads much
	case s.looking <- struct{}{}:
		defer func() { <-s.looking }()
	default:
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: 1000, Message: "too many look through logs at the moment"}, 0)
		return
	}
	log, err := s.cfg.WatchLog.WatchLog(r.Context(), name, q.Broadcast)
	if err != nil {
		s.noWatchLog(w, name, err)
		return
	}
	out := protocol.WatchLog{Broadcast: log.Summary.Broadcast, Revision: log.Revision, Final: log.Final, Summary: log.Summary, Users: []protocol.WatchUser{}}
	for i := range log.Users {
		if u := &log.Users[i]; q.Users && u.Share >= q.MinShare {
			out.Users = append(out.Users, protocol.WatchUser{
				ID: u.ID, Name: u.Name, Guest: u.Guest, From: u.From, To: u.To, ConnectedMS: u.ConnectedMS, VisibleMS: u.VisibleMS,
				PlayedMS: u.PlayedMS, WaitedMS: u.WaitedMS, Share: u.Share, Connections: u.Connections, Estimated: u.Estimated,
			})
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Add("Vary", "Accept")
	if wantsCSV(r) {
		writeWatchCSV(w, name, &out, q.Zone)
		return
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *Server) noWatchLog(w http.ResponseWriter, room string, err error) {
	if errors.Is(err, ErrNoBroadcast) {
		writeProblem(w, http.StatusNotFound, &protocol.Error{Code: protocol.CodeNoRoom, Message: "there is no such broadcast, or nothing is kept of it"}, 0)
		return
	}
	s.cfg.Logger.Debug("the watch log cannot be read", "room", room, "error", err)
	writeProblem(w, 0, &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: 1000, Message: "the watch log cannot be read"}, 0)
}

// getBroadcasts is GET /v1/rooms/{room}/broadcasts.
func (s *Server) getBroadcasts(w http.ResponseWriter, r *http.Request) {
	name, ok := s.enterWatchers(w, r)
	if !ok {
		return
	}
	all, err := s.cfg.WatchLog.Broadcasts(r.Context(), name)
	if err != nil {
		s.noWatchLog(w, name, err)
		return
	}
	if all == nil {
		all = []protocol.BroadcastEntry{}
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, protocol.Broadcasts{Broadcasts: all})
}

// wantsCSV reports whether a request prefers CSV to JSON.
func wantsCSV(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		switch media, _, _ := mime.ParseMediaType(part); media {
		case "text/csv":
			return true
		case "application/json", "*/*":
			return false
		}
	}
	return false
}

// writeWatchCSV writes users as spreadsheets read them: UTF-8 with a byte order mark, times in ISO 8601 with their zone, and no cell that a
// spreadsheet takes for a formula.
func writeWatchCSV(w http.ResponseWriter, room string, log *protocol.WatchLog, zone *time.Location) {
	w.Header().Set("Content-Type", "text/csv; charset=utf-8; header=present")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s-%s.csv"`, room, log.Broadcast))
	_, _ = w.Write([]byte("\uFEFF")) // the client is gone: nobody to tell
	out := csv.NewWriter(w)
	out.UseCRLF = true
	_ = out.Write([]string{"id", "name", "guest", "from", "to", "connected_ms", "visible_ms", "played_ms", "waited_ms", "share", "connections", "estimated"})
	at := func(ms int64) string { return time.UnixMilli(ms).In(zone).Format("2006-01-02T15:04:05.000Z07:00") }
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	for i := range log.Users {
		u := &log.Users[i]
		_ = out.Write([]string{
			plainCell(u.ID), plainCell(u.Name), strconv.FormatBool(u.Guest), at(u.From), at(u.To), number(u.ConnectedMS), number(u.VisibleMS), number(u.PlayedMS),
			number(u.WaitedMS), strconv.FormatFloat(u.Share, 'f', 4, 64), strconv.Itoa(u.Connections), strconv.FormatBool(u.Estimated),
		})
	}
	out.Flush()
}

// plainCell is a text that no spreadsheet takes for a formula. (OWASP, "CSV injection".)
func plainCell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", []rune(s)[0]) {
		return "'" + s
	}
	return s
}

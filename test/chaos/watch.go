//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/loadtest/crowd"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/ports"
	"github.com/kansei-live/kansei/test/skew"
)

// Two workers of the archive run beside the cluster, with clocks as wrong as those of nodes, and one of them is killed after every
// fault. In the end what they have made of the watch log is compared with when the viewers were connected.

const (
	// A node that is killed takes its viewers' rows of up to a checkpoint with it; one whose rows could not be stored
	// when it was killed, those of as long as that was so.
	checkpoint = 62 * time.Second
	// A connection of whose end the server learns later than its client, or earlier; both tell it when they notice.
	watchSlack = 3 * time.Second
	// archived is how long the workers may take, with the late rows that they wait for.
	archived = 90 * time.Second
	late     = 5 * time.Second
)

// Watched is what came of the watch log.
type Watched struct {
	Users, Intervals, Estimated int
	// Over and Short are the most that a user was said to be connected longer, or shorter, than in truth.
	Over, Short time.Duration
	Kills       int // of workers
	Wrong       []string
}

// String is for reports.
func (w *Watched) String() string {
	return fmt.Sprintf("watch log: %d users, %d connections, %d of them estimated; two workers, killed %d times; users missing or invented 0 unless said; connected at most %.1f s too long, %.1f s too short",
		w.Users, w.Intervals, w.Estimated, w.Kills, w.Over.Seconds(), w.Short.Seconds())
}

// watches reports whether the watch log is looked at: not where the log is put back, with it, nor beside a version that knows none.
func (c Config) watches(plan []fault) bool {
	return c.Other == "" && !slices.ContainsFunc(plan, func(f fault) bool { return f.name == "restore" || f.name == "upgrade" })
}

// worker is a process of kansei archive.
type worker struct {
	lab  *lab
	port *ports.Port
	env  []string
	args []string
	log  string
	cmd  *exec.Cmd
}

func (l *lab) startWorkers() {
	for i := range 2 {
		port, err := ports.Reserve()
		if err != nil {
			continue // the other one does
		}
		w := &worker{
			lab: l, port: port, log: filepath.Join(l.cluster.Dir, fmt.Sprintf("archive-%d.log", i+1)),
			args: []string{
				"archive", "--nats=" + l.cluster.NATSURLs(), "--log-partitions=" + fmt.Sprint(l.cfg.Partitions), "--archive-url=file://" + l.archiveDir(), "--archive-settle=2s",
				"--archive-late=" + late.String(), "--ops-listen=" + port.String(),
			},
			env: append(os.Environ(), skew.Env(l.cfg.Skew*time.Duration(2*i-1))),
		}
		l.workers = append(l.workers, w)
		w.start()
	}
}

func (l *lab) archiveDir() string { return filepath.Join(l.cluster.Dir, "archive") }

func (w *worker) start() {
	log, err := os.OpenFile(w.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer func() { _ = log.Close() }()            // the process has its own
	w.cmd = exec.Command(w.lab.kansei, w.args...) //nolint:gosec // the program under test
	w.cmd.Env, w.cmd.Stdout, w.cmd.Stderr = w.env, log, log
	if err := w.cmd.Start(); err != nil {
		w.cmd = nil
	}
}

// kill ends it as nothing can prevent, and waits for that.
func (w *worker) kill() {
	if w.cmd != nil {
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait() // it was killed
		w.cmd = nil
	}
}

func (w *worker) end() {
	w.kill()
	w.port.Close()
}

// killWorker kills one of them, by turns, and starts it again.
func (l *lab) killWorker(i int) {
	w := l.workers[i%len(l.workers)]
	w.kill()
	w.start()
}

// set changes the state of a room, as often as that takes.
func (l *lab) set(ctx context.Context, room, patch string) error {
	token, err := l.cluster.Token(auth.Claims{Subject: "owner", Name: "owner", Role: protocol.RoleBroadcaster, Rooms: []string{room}}, 12*time.Hour)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodPatch, l.cluster.Edges[i%len(l.cluster.Edges)].URL+"/v1/rooms/"+room, strings.NewReader(patch))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := l.http.Do(req)
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func (l *lab) goLive(ctx context.Context) error {
	l.live = map[string]time.Duration{}
	for _, room := range l.cfg.rooms() {
		if err := l.set(ctx, room, `{"status":"live"}`); err != nil {
			return err
		}
		l.live[room] = l.journal.Now()
	}
	return nil
}

// watched ends the broadcasts, and compares what was made of them with what viewers did.
func (l *lab) watched(ctx context.Context, plan []fault) (*Watched, error) {
	out := &Watched{Kills: len(plan)}
	if err := sleep(ctx, 2*time.Second); err != nil { // what ended last is stored
		return nil, err
	}
	var truth = map[string]map[string][]crowd.Stay{}
	for _, s := range l.crowd.Stays() {
		if truth[s.Room] == nil {
			truth[s.Room] = map[string][]crowd.Stay{}
		}
		truth[s.Room][s.User] = append(truth[s.Room][s.User], s)
	}
	for _, room := range l.cfg.rooms() {
		if err := l.set(ctx, room, `{"status":"ended"}`); err != nil {
			return nil, err
		}
	}
	for _, room := range l.cfg.rooms() {
		log, err := l.archivedLog(ctx, room)
		if err != nil {
			out.Wrong = append(out.Wrong, "watch log: "+err.Error())
			continue
		}
		out.Intervals, out.Estimated, out.Users = out.Intervals+log.Summary.Intervals, out.Estimated+log.Summary.Estimated, out.Users+len(log.Users)
		found := map[string]bool{}
		for _, u := range log.Users {
			found[u.ID] = true
			stays := truth[room][u.ID]
			if stays == nil {
				out.Wrong = append(out.Wrong, fmt.Sprintf("watch log: %s was never in %s", u.ID, room))
				continue
			}
			var connected time.Duration
			for _, s := range stays {
				connected += s.To - s.From
			}
			got := time.Duration(u.ConnectedMS) * time.Millisecond
			out.Over, out.Short = max(out.Over, got-connected), max(out.Short, connected-got)
			n := time.Duration(len(stays))
			if got > connected+n*watchSlack+l.goneUnseen(stays) || got < connected-n*(watchSlack+checkpoint) {
				out.Wrong = append(out.Wrong, fmt.Sprintf("watch log: %s in %s was connected for %v in %d stays, and is said to have been for %v", u.ID, room, connected, n, got))
			}
		}
		for id, stays := range truth[room] {
			if !found[id] && slices.ContainsFunc(stays, func(s crowd.Stay) bool { return s.To-s.From > watchSlack }) {
				out.Wrong = append(out.Wrong, fmt.Sprintf("watch log: %s was in %s, and is not in it", id, room))
			}
		}
	}
	return out, nil
}

// goneUnseen is how much longer a node may have taken a user for connected than the user did: not at all once they were back, and up to
// when it was known that they are gone otherwise. Those who come back are there anyway.
func (l *lab) goneUnseen(stays []crowd.Stay) (more time.Duration) {
	slices.SortFunc(stays, func(a, b crowd.Stay) int { return int(a.From - b.From) })
	for i := 1; i < len(stays); i++ {
		more += max(0, stays[i].From-stays[i-1].To)
	}
	return more
}

// archivedLog is what was archived of a room.
func (l *lab) archivedLog(ctx context.Context, room string) (*protocol.WatchLog, error) {
	token, err := l.cluster.Token(auth.Claims{Subject: "owner", Name: "owner", Role: protocol.RoleBroadcaster, Rooms: []string{room}}, time.Hour)
	if err != nil {
		return nil, err
	}
	var last error
	for end := time.Now().Add(archived); time.Now().Before(end); {
		var log protocol.WatchLog
		text, err := l.get(ctx, l.cluster.Edges[0].URL+"/v1/rooms/"+room+"/watchlog", token)
		if err == nil {
			err = json.Unmarshal([]byte(text), &log)
		}
		if err == nil && log.Final {
			return &log, nil
		}
		if last = err; err == nil {
			last = fmt.Errorf("revision %d is the last one, and is not final", log.Revision)
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s is not archived after %v: %w", room, archived, last)
}

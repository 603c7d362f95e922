package embedded

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kansei-live/kansei/internal/private"
)

const (
	// Between two looks at a store that cannot be written; twice as long after each
	// restart that has not helped.
	mendEvery    = 5 * time.Second
	mendEveryMax = time.Minute
	// sayEvery is how often it is logged that the disk takes nothing, while that lasts.
	sayEvery = time.Minute
	// mendRoom is how many bytes the disk must take before a server is started anew.
	mendRoom = 1 << 20
	mendFile = "kansei.room"
)

// mend starts another server on a store that could not be written, as on a full disk,
// when it can be again. The server by itself never goes on: a stream that has met a write
// error takes nothing more and answers nothing, until it is opened anew, which loses
// nothing that was acknowledged. Until there is room the store can be read. The server
// reports an error first, so that nothing is looked at while all is well.
func (n *NATS) mend() {
	for {
		select {
		case <-n.failed:
		case <-n.quit:
			return
		}
		var said time.Time
		for wait := mendEvery; ; {
			why := n.ill()
			if why == nil {
				break
			}
			if err := n.room(); err != nil {
				if now := time.Now(); now.Sub(said) >= sayEvery {
					said = now
					n.cfg.Logger.Error("the disk of the embedded log takes nothing: comments are refused, viewers stay and see what there is; make room in the data directory, the log then goes on by itself",
						"directory", n.dir, "error", err, "because", why)
				}
			} else {
				n.cfg.Logger.Warn("the embedded log has failed, and is started anew: nothing that was acknowledged is lost, comments under way may have to be sent again",
					"directory", n.dir, "because", why)
				n.stopServer()
				wait = min(2*wait, mendEveryMax)
				if err := n.startServer(); err != nil {
					n.cfg.Logger.Error("the embedded log does not start: comments are neither taken nor shown, viewers stay; it is tried again",
						"directory", n.dir, "in", wait, "error", err)
				}
			}
			select {
			case <-time.After(wait):
			case <-n.quit:
				return
			}
		}
	}
}

// ill is what is wrong with the server; nil when nothing is.
func (n *NATS) ill() error {
	n.mu.Lock()
	s := n.server
	n.mu.Unlock()
	if s == nil {
		return errStopped
	}
	if h := s.Healthz(&server.HealthzOptions{}); h.StatusCode != http.StatusOK {
		return errors.New(h.Error)
	}
	return nil
}

// room finds out whether the disk takes something.
func (n *NATS) room() error {
	name := filepath.Join(n.dir, mendFile)
	f, err := private.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, mendRoom))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), os.Remove(name))
}

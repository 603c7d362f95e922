//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/kansei-live/kansei/loadtest/audit"
	"github.com/kansei-live/kansei/loadtest/crowd"
	"github.com/kansei-live/kansei/test/localcluster"
	"github.com/kansei-live/kansei/test/skew"
)

// lab is a cluster with somebody in it, and what is needed to break it.
type lab struct {
	cfg     Config
	journal *audit.Journal
	cluster *localcluster.Cluster
	links   *links
	nc      *nats.Conn // past the links
	crowd   *crowd.Crowd
	http    http.Client
	built   string // the directory of the program, to be removed; empty: none
	kansei  string // the program
	workers []*worker
	live    map[string]time.Duration // when each room went live
}

// openLab starts a cluster in which every link can be cut.
func openLab(ctx context.Context, cfg Config) (_ *lab, err error) {
	l := &lab{cfg: cfg, journal: audit.NewJournal(), links: new(links), http: http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	args := []string{
		"--log-partitions", fmt.Sprint(cfg.Partitions), "--live-buffer", fmt.Sprint(liveBuffer), "--drain", cfg.Drain.String(),
		// Everything is to reach everybody, whatever is done; floods too.
		"--room-rate", "0", "--rate", "1000", "--burst", "1000", "--rate-staff", "100000", "--burst-staff", "100000", "--recover-max", "100000",
	}
	if cfg.Other == "" { // an earlier version does not know these
		args = append(args, "--room-limit", "0", "--rate-address", "0", "--viewer-events", crowd.EventName)
		if cfg.Dir != "" {
			args = append(args, "--archive-url", "file://"+filepath.Join(cfg.Dir, "archive")) // nodes answer from there
		}
	}
	kansei := cfg.Kansei
	if kansei == "" {
		if l.built, err = os.MkdirTemp("", "kansei-chaos-"); err != nil {
			return nil, err
		}
		kansei = filepath.Join(l.built, "kansei")
		if err := skew.Build(ctx, "github.com/kansei-live/kansei/cmd/kansei", kansei); err != nil {
			return nil, err
		}
	}
	l.kansei = kansei
	l.cluster, err = localcluster.Start(ctx, localcluster.Config{
		EdgeArgs: args, EdgeEnvOf: cfg.skews, Spare: true, Front: true, Link: l.links.between, Kansei: kansei, Dir: cfg.Dir,
	})
	if err != nil {
		return nil, err
	}
	l.nc, err = nats.Connect(l.cluster.NATSURLs(), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2), nats.Timeout(time.Second), nats.Name("chaos"),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // it is what is wanted
	if err != nil {
		return nil, fmt.Errorf("chaos: %w", err)
	}
	return l, nil
}

func (l *lab) close() error {
	if l.crowd != nil {
		l.crowd.Leave()
	}
	if l.nc != nil {
		l.nc.Close()
	}
	for _, w := range l.workers {
		w.end()
	}
	var err error
	if l.cluster != nil {
		err = l.cluster.Close()
	}
	l.links.close()
	if l.built != "" {
		err = errors.Join(err, os.RemoveAll(l.built))
	}
	return err
}

// streams are those of the room log.
func (l *lab) streams() []string {
	var out []string
	for p := range l.cfg.Partitions {
		out = append(out, fmt.Sprint("KANSEI_LOG_", p))
	}
	return out
}

// ask asks the JetStream API, again while nobody answers.
func (l *lab) ask(ctx context.Context, subject string, answer any) error {
	for {
		m, err := l.nc.Request(subject, nil, 2*time.Second)
		if err == nil {
			return json.Unmarshal(m.Data, answer)
		}
		if stop := sleep(ctx, 200*time.Millisecond); stop != nil {
			return fmt.Errorf("%s: %w", subject, errors.Join(err, stop))
		}
	}
}

// leader is the server that leads a stream; it waits until there is one. Another one is
// one of those that follow.
func (l *lab) leader(ctx context.Context, stream string) (leader, another *localcluster.NATS, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		var info struct {
			Cluster struct{ Leader string }
		}
		if err := l.ask(ctx, "$JS.API.STREAM.INFO."+stream, &info); err != nil {
			return nil, nil, err
		}
		for i, n := range l.cluster.NATS {
			if n.Name() == info.Cluster.Leader {
				return n, l.cluster.NATS[(i+1)%len(l.cluster.NATS)], nil
			}
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return nil, nil, fmt.Errorf("stream %s has no leader: %w", stream, err)
		}
	}
}

// stepDown sends the leader of a stream away. That there is none at the moment is no error.
func (l *lab) stepDown(stream string) {
	_, _ = l.nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, time.Second)
}

// calm waits until all nodes are ready, and returns how long that took, and what was
// waited for in the end.
func (l *lab) calm(ctx context.Context) (took time.Duration, last, err error) {
	began := time.Now()
	for {
		why := l.ready(ctx)
		took = time.Since(began)
		if why == nil {
			return took, last, nil
		}
		last = why
		if took > healTime {
			return took, last, fmt.Errorf("%v after everything was mended: %w", healTime, why)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return took, last, err
		}
	}
}

// replicated waits until every stream has all its copies, so that the next fault meets a
// whole cluster. It returns how long that took. NATS may take minutes, which are not
// waited for: missing says so then.
func (l *lab) replicated(ctx context.Context) (took time.Duration, missing string, err error) {
	began := time.Now()
	for _, stream := range append(l.streams(), "KANSEI_STATE") {
		for {
			behind, err := l.behind(ctx, stream)
			if err != nil {
				return 0, "", err
			}
			if took = time.Since(began); behind == nil {
				break
			}
			if took > replicaTime {
				return took, ", and " + behind.Name() + " has not", nil
			}
			if err := sleep(ctx, 200*time.Millisecond); err != nil {
				return 0, "", err
			}
		}
	}
	return took, "", nil
}

// behind is a server whose copy of a stream is missing or not whole, as the leader says;
// nil when there is none.
func (l *lab) behind(ctx context.Context, stream string) (*localcluster.NATS, error) {
	leader, _, err := l.leader(ctx, stream)
	if err != nil {
		return nil, err
	}
	var info struct {
		Cluster struct {
			Replicas []struct {
				Name             string
				Current, Offline bool
			}
		}
	}
	if err := l.ask(ctx, "$JS.API.STREAM.INFO."+stream, &info); err != nil {
		return nil, err
	}
	for _, n := range l.cluster.NATS {
		whole := n == leader
		for _, r := range info.Cluster.Replicas {
			whole = whole || r.Name == n.Name() && r.Current && !r.Offline
		}
		if !whole {
			return n, nil
		}
	}
	return nil, nil
}

func (l *lab) ready(ctx context.Context) error {
	for _, e := range l.cluster.Edges {
		body, err := l.get(ctx, e.Ops+"/readyz", "")
		if err == nil && strings.Contains(body, ": degraded: ") {
			err = errors.New(strings.TrimSpace(body)) // it takes viewers, and has not healed
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	return nil
}

// get is the body of an answer with status 200.
func (l *lab) get(ctx context.Context, url, token string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := l.http.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %.300s", res.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

// post asks for something that is done when it has been accepted.
func (l *lab) post(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	res, err := l.http.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close() // the status says it
	if res.StatusCode != http.StatusAccepted {
		return fmt.Errorf("POST %s: %s", url, res.Status)
	}
	return nil
}

// metric is the sum of a metric's values over all nodes that answer, of the series with
// one label.
func (l *lab) metric(ctx context.Context, name, label, value string) float64 {
	sum := 0.0
	for _, e := range l.cluster.Edges {
		text, err := l.get(ctx, e.Ops+"/metrics", "")
		if err != nil {
			continue // it is down
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(text))
		if err != nil {
			continue
		}
		for _, m := range families[name].GetMetric() {
			for _, pair := range m.GetLabel() {
				if pair.GetName() == label && pair.GetValue() == value {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}

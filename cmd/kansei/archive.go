package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kansei-live/kansei/internal/archive"
	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/internal/credentials"
	"github.com/kansei-live/kansei/internal/edge"
	"github.com/kansei-live/kansei/internal/natslog"
	"github.com/kansei-live/kansei/internal/private"
	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/protocol"
)

var _ archive.Log = (*natslog.Log)(nil)

// archivePoll is how often a worker looks what there is to do, and eraseWait bounds the erasure of a person.
const (
	archivePoll = 2 * time.Second
	eraseWait   = 10 * time.Minute
)

// watchReader is what nodes read who watched from.
type watchReader struct{ *archive.Reader }

// WatchLog implements [edge.WatchReader].
func (r watchReader) WatchLog(ctx context.Context, room, broadcast string) (edge.Watched, error) {
	s, rec, err := r.Current(ctx, room, broadcast)
	if errors.Is(err, archive.ErrNoBroadcast) {
		return edge.Watched{}, fmt.Errorf("%w: %w", edge.ErrNoBroadcast, err)
	}
	if err != nil {
		return edge.Watched{}, err
	}
	out := edge.Watched{Summary: s.Summary, Users: s.Users}
	if rec != nil {
		out.Revision, out.Final = rec.Revision, rec.Final
	}
	return out, nil
}

// archiving is the parts that shape and keep broadcasts, and what is to be done at the end.
type archiving struct {
	archive.Config
	close []func() error
}

func (a *archiving) Close() error {
	var errs []error
	for i := len(a.close) - 1; i >= 0; i-- {
		errs = append(errs, a.close[i]())
	}
	return errors.Join(errs...)
}

// newArchiving opens what the settings name. Nothing is connected to.
func newArchiving(ctx context.Context, cfg *config.Archive, at string, roomLog *natslog.Log, reg prometheus.Registerer, log *slog.Logger) (*archiving, error) {
	a := &archiving{Config: archive.Config{
		Log: roomLog, Settle: cfg.ArchiveSettle, Late: cfg.ArchiveLate, Keep: cfg.ArchiveKeep, Poll: archivePoll, Metrics: archive.NewMetrics(reg), Logger: log,
	}}
	if at != "" {
		files, err := archive.OpenFiles(ctx, at)
		if err != nil {
			return nil, fmt.Errorf("--archive-url: %w", err)
		}
		a.Files = files
		a.close = append(a.close, files.Close)
	}
	if cfg.SQL != "" {
		db, err := archive.OpenDatabase(string(cfg.SQL))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--sql: %w", err), a.Close())
		}
		a.DB = db
		a.close = append(a.close, db.Close)
	}
	if cfg.WebhookURL != "" {
		a.Hook = archive.NewHook(cfg.WebhookURL, []byte(cfg.WebhookSecret))
	}
	a.Reader = archive.NewReader(roomLog, a.Files, cfg.ArchiveSilence)
	return a, nil
}

// startArchive makes what reads watch logs. With NATS inside this process, the worker runs here too: nobody else could.
func (n *node) startArchive(ctx context.Context, reg *prometheus.Registry, roomLog *natslog.Log) (*archiving, error) {
	at := n.cfg.ArchiveURL
	if at == "" && n.cfg.NATS == "" {
		dir, err := filepath.Abs(filepath.Join(n.cfg.DataDir, "archive"))
		if err != nil {
			return nil, err
		}
		if err := private.Dir(dir); err != nil {
			return nil, fmt.Errorf("--data-dir: %w", err)
		}
		at = (&url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}).String()
	}
	a, err := newArchiving(ctx, &n.cfg.Archive, at, roomLog, reg, n.log)
	if err != nil {
		return nil, err
	}
	n.onStop("the archive", func(context.Context) error { return a.Close() })
	if n.cfg.NATS == "" {
		working, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { // ends with working; onStop waits for it
			defer close(done)
			a.work(working)
		}()
		n.onStop("the archive's worker", func(context.Context) error { stop(); <-done; return nil })
	}
	return a, nil
}

// work has a worker work until ctx ends, once the tables are there.
func (a *archiving) work(ctx context.Context) {
	w := archive.NewWorker(a.Config)
	for wait := time.Second; a.DB != nil; wait = min(2*wait, time.Minute) {
		err := w.Migrate(ctx)
		if err == nil {
			break
		}
		a.Logger.Warn("the database is not ready: nothing is archived meanwhile", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
	w.Run(ctx)
}

// archiveOps are the entrances of the operators' listener for the commands of kansei archive.
func (a *archiving) archiveOps() map[string]http.HandlerFunc {
	answer := func(w http.ResponseWriter, v any, err error) {
		if err != nil {
			edge.Refuse(w, &protocol.Error{Code: protocol.CodeUnavailable, Message: err.Error(), RetryMS: 1000})
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody to tell
	}
	user := func(w http.ResponseWriter, r *http.Request) (string, bool) {
		id := r.URL.Query().Get("user")
		if id == "" {
			edge.Refuse(w, &protocol.Error{Code: protocol.CodeBadMessage, Message: "user is missing"})
		}
		return id, id != ""
	}
	return map[string]http.HandlerFunc{
		"GET /v1/archive": func(w http.ResponseWriter, r *http.Request) {
			all, err := a.Reader.Records(r.Context(), "*")
			answer(w, all, err)
		},
		"POST /v1/archive/forget": func(w http.ResponseWriter, r *http.Request) {
			if id, ok := user(w, r); ok {
				done, err := archive.Erase(r.Context(), a.Config, id)
				answer(w, done, err)
			}
		},
		"GET /v1/archive/export": func(w http.ResponseWriter, r *http.Request) {
			if id, ok := user(w, r); ok {
				all, err := archive.Export(r.Context(), a.Config, id)
				answer(w, all, err)
			}
		},
	}
}

type archiveCommand struct {
	Run    archiveRunCommand    `cmd:"" default:"withargs" help:"Shape and keep the watch logs of broadcasts that have ended; several may run."`
	List   archiveListCommand   `cmd:"" help:"List archived broadcasts, and what could not be delivered of them."`
	Forget archiveForgetCommand `cmd:"" help:"Erase a person from the watch log, archived broadcasts and the database."`
	Export archiveExportCommand `cmd:"" help:"Print what is kept of a person, as JSON."`
}

// archiver is what the commands of kansei archive have in common.
type archiver struct{ config.Archiver }

// open connects to the cluster that the settings name.
func (c *archiver) open(ctx context.Context, reg prometheus.Registerer, log *slog.Logger) (*archiving, *natslog.Log, error) {
	creds, err := credentials.NewNATS(c.NATSAccess)
	if err != nil {
		return nil, nil, err
	}
	roomLog, err := natslog.Open(natslog.Config{
		Name: "kansei archive", URLs: c.NATSServers(), Options: creds.Options(), NKey: creds.NKey(), Prefix: c.Prefix, Domain: c.NATSDomain,
		Partitions: c.LogPartitions, Replicas: c.Replicas(), WatchAge: c.WatchKeep, Metrics: natslog.NewMetrics(reg), Logger: log,
	})
	if err != nil {
		return nil, nil, err
	}
	a, err := newArchiving(ctx, &c.Archive, c.ArchiveURL, roomLog, reg, log)
	if err != nil {
		return nil, nil, errors.Join(err, roomLog.Close(ctx))
	}
	a.close = append([]func() error{func() error {
		ctx, cancel := context.WithTimeout(context.Background(), commandWait)
		defer cancel()
		return roomLog.Close(ctx)
	}}, a.close...)
	return a, roomLog, nil
}

// with calls f with what the settings name, once it can be reached.
func (c *archiver) with(ctx context.Context, f func(*archiving) error) error {
	log := slog.New(slog.DiscardHandler)
	a, roomLog, err := c.open(ctx, prometheus.NewRegistry(), log)
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }() // what there is to say was said
	for deadline := time.Now().Add(commandWait); roomLog.Ready() != nil; {
		if time.Now().After(deadline) {
			return roomLog.Ready()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return f(a)
}

type archiveRunCommand struct {
	archiver
	OpsListen string `group:"network" default:"127.0.0.1:8082" help:"Address of the operators' listener (metrics, health), host:port."`
}

// Run works until ctx ends.
func (c *archiveRunCommand) Run(ctx context.Context, stderr errorStream) error {
	log := c.Logger(stderr)
	switch {
	case c.NATS == "":
		return errors.New("--nats is needed: with NATS inside a node, kansei serve shapes and keeps broadcasts itself")
	case c.ArchiveURL == "":
		return errors.New("--archive-url is needed: where broadcasts are kept, file:///directory or s3://bucket?region=name")
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(goCollector(), buildInfo())
	a, roomLog, err := c.open(ctx, reg, log)
	if err != nil {
		return err
	}
	ops, err := listen("ops-listen", c.OpsListen)
	if err != nil {
		return errors.Join(err, a.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := errors.Join(roomLog.Ready(), a.Files.Ready(r.Context())); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	srv := httpServer(mux, time.Minute, quiet.New(log))
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ops) }() // ends with Close below
	log.Info("the archive's worker runs", "version", version(), "ops", "http://"+reachable(ops), "archive", a.Files.String(), "database", c.SQL != "", "webhook", c.WebhookURL != "")
	a.work(ctx)
	err = errors.Join(srv.Close(), a.Close())
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	log.Info("the archive's worker has stopped")
	return err
}

// viaNode is where a node is asked that has NATS inside.
type viaNode struct {
	Ops string `default:"127.0.0.1:8081" placeholder:"HOST:PORT" help:"Operators' listener of a node with NATS inside, which is asked where --nats is not set."`
}

type archiveListCommand struct {
	archiver
	viaNode
	Undelivered bool `help:"Those alone whose web hook could not be delivered within a day."`
}

// Run prints a table.
func (c *archiveListCommand) Run(ctx context.Context, stdout io.Writer) error {
	var all []archive.Record
	var err error
	if c.NATS == "" {
		err = byOps{"http://" + c.Ops}.ask(ctx, http.MethodGet, "/v1/archive", nil, &all)
	} else {
		err = c.with(ctx, func(a *archiving) (err error) {
			all, err = a.Reader.Records(ctx, "*")
			return err
		})
	}
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROOM\tBROADCAST\tBEGAN\tENDED\tREVISION\tFINAL\tWEB HOOK")
	for i := range all {
		r := &all[i]
		if c.Undelivered && !r.Hook.Undelivered {
			continue
		}
		at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
		hook := "-"
		switch {
		case r.Hook.Delivered > 0:
			hook = "delivered " + at(r.Hook.Delivered)
		case r.Hook.Undelivered:
			hook = "undelivered: " + printable(r.Hook.Error)
		case r.Hook.Tries > 0:
			hook = fmt.Sprintf("tried %d times: %s", r.Hook.Tries, printable(r.Hook.Error))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%t\t%s\n", r.Room, r.Broadcast, at(r.Began), at(r.Ended), r.Revision, r.Final, hook)
	}
	return w.Flush()
}

type archiveForgetCommand struct {
	archiver
	viaNode
	User string `required:"" placeholder:"ID" help:"Id of the person."`
}

// Run prints what was erased where, and what that does not reach.
func (c *archiveForgetCommand) Run(ctx context.Context, stdout io.Writer) error {
	var done archive.Erased
	var err error
	ctx, cancel := context.WithTimeout(ctx, eraseWait)
	defer cancel()
	if c.NATS == "" {
		err = byOps{"http://" + c.Ops}.ask(ctx, http.MethodPost, "/v1/archive/forget?user="+url.QueryEscape(c.User), nil, &done)
	} else {
		if c.ArchiveURL == "" {
			return errors.New("--archive-url is needed, and --sql where a database is: what is erased must be found")
		}
		err = c.with(ctx, func(a *archiving) (err error) {
			done, err = archive.Erase(ctx, a.Config, c.User)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("%w; the same command again goes on", err)
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STORE\tFOUND\t")
	for _, s := range done.Stores {
		fmt.Fprintf(w, "%s\t%d\t%s\n", s.Name, s.Found, s.Note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "\nThis does not reach:\n- %s\n", strings.Join(done.Remains, "\n- "))
	return err
}

type archiveExportCommand struct {
	archiver
	viaNode
	User string `required:"" placeholder:"ID" help:"Id of the person."`
}

// Run prints JSON.
func (c *archiveExportCommand) Run(ctx context.Context, stdout io.Writer) error {
	var all archive.Exported
	var err error
	if c.NATS == "" {
		err = byOps{"http://" + c.Ops}.ask(ctx, http.MethodGet, "/v1/archive/export?user="+url.QueryEscape(c.User), nil, &all)
	} else {
		err = c.with(ctx, func(a *archiving) (err error) {
			all, err = archive.Export(ctx, a.Config, c.User)
			return err
		})
	}
	if err != nil {
		return err
	}
	e := json.NewEncoder(stdout)
	e.SetIndent("", "  ")
	return e.Encode(all)
}

//go:build unix

package localcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// endGrace is how long a process may take to end when told to; nodes drain for a
	// second and have ten more to stop their parts.
	endGrace = 15 * time.Second
	// killGrace is how long the kernel may take to end one that is killed.
	killGrace = 10 * time.Second
	readyPoll = 50 * time.Millisecond
	tailBytes = 4096 // of a log, in an error
	tailLines = 15
)

// ErrRunning and ErrNotRunning are the errors of what cannot be done to a process in
// its state.
var (
	ErrRunning    = errors.New("the process runs")
	ErrNotRunning = errors.New("the process does not run")
)

// Process is one process of a cluster. Its methods may be called from any goroutine.
type Process struct {
	name      string
	program   string
	args, env []string
	log       string // the file that its output is added to
	ready     func(context.Context) error
	cluster   *Cluster

	launching sync.Mutex // held while looking whether it runs and starting it

	mu  sync.Mutex
	run *running // the last life; nil before the first start
}

// running is one life of a process.
type running struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it is no more; then err holds
	err   error

	mu     sync.Mutex
	ready  bool // it has been ready
	wanted bool // somebody here has ended it
}

func (c *Cluster) process(name, program string, args []string) (*Process, error) {
	if err := os.MkdirAll(filepath.Join(c.Dir, name), 0o700); err != nil {
		return nil, err
	}
	env := []string{}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "KANSEI_") { // settings of the process that starts the cluster
			env = append(env, e)
		}
	}
	return &Process{name: name, program: program, args: args, env: env, log: filepath.Join(c.Dir, name+".log"), cluster: c}, nil
}

// Name is the name of the process in its cluster: edge-1, nats-2, redis.
func (p *Process) Name() string { return p.name }

// LogFile is the file that everything it prints is added to.
func (p *Process) LogFile() string { return p.log }

// PID is the id of the process; 0 when it does not run.
func (p *Process) PID() int {
	if r := p.current(); r != nil {
		return r.cmd.Process.Pid
	}
	return 0
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() error {
	r := p.current()
	if r == nil {
		return p.fail(ErrNotRunning)
	}
	return p.fail(r.kill())
}

// Stop freezes the process: it holds its sockets and does nothing.
func (p *Process) Stop() error { return p.signal(syscall.SIGSTOP) }

// Cont lets a frozen process go on.
func (p *Process) Cont() error { return p.signal(syscall.SIGCONT) }

// Restart ends the process with SIGTERM if it runs, starts it again on the same
// addresses with the same data, and waits until it is ready or ctx ends.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.end(); err != nil {
		return err
	}
	return p.start(ctx)
}

// Use has the process be another program from its next start on.
func (p *Process) Use(program string) {
	p.launching.Lock()
	defer p.launching.Unlock()
	p.program = program
}

// End has the process end and waits until it has, or ctx ends. ask asks it to; nil: with
// SIGTERM. It returns the status that the process exited with, -1 for one that a signal
// ended.
func (p *Process) End(ctx context.Context, ask func() error) (status int, err error) {
	r := p.current()
	if r == nil {
		return 0, p.fail(ErrNotRunning)
	}
	r.want()
	if ask == nil {
		ask = func() error { return r.cmd.Process.Signal(syscall.SIGTERM) }
	}
	if err := ask(); err != nil {
		return 0, p.fail(err)
	}
	select {
	case <-r.ended:
		return r.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, p.fail(ctx.Err())
	}
}

// current returns the life that has not ended; nil if there is none.
func (p *Process) current() *running {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return nil
	}
	select {
	case <-p.run.ended:
		return nil
	default:
		return p.run
	}
}

func (p *Process) signal(s syscall.Signal) error {
	r := p.current()
	if r == nil {
		return p.fail(ErrNotRunning)
	}
	return p.fail(r.cmd.Process.Signal(s))
}

// fail puts the process's name before an error.
func (p *Process) fail(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", p.name, err)
}

// start starts the process and waits until it is ready.
func (p *Process) start(ctx context.Context) error {
	r, err := p.launch()
	if err != nil {
		return p.fail(err)
	}
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	why := errors.New("it has not been asked yet")
	for {
		if err := p.ready(ctx); err == nil {
			r.mu.Lock()
			r.ready = true
			r.mu.Unlock()
			return nil
		} else if ctx.Err() == nil {
			why = err
		}
		select {
		case <-r.ended:
			return fmt.Errorf("%s ended instead of starting: %w\n%s", p.name, r.err, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s did not become ready: %w: %w\n%s", p.name, context.Cause(ctx), why, p.tail())
		case <-poll.C:
		}
	}
}

func (p *Process) launch() (*running, error) {
	p.launching.Lock()
	defer p.launching.Unlock()
	if p.current() != nil {
		return nil, ErrRunning
	}
	cmd := exec.Command(p.program, p.args...)
	cmd.Env, cmd.Dir = p.env, filepath.Dir(p.log)
	cmd.SysProcAttr = attributes()
	err := p.cluster.spawn.do(func() error {
		log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer func() { _ = log.Close() }() // the process has its own
		cmd.Stdout, cmd.Stderr = log, log
		return cmd.Start()
	})
	if err != nil {
		return nil, err
	}
	r := &running{cmd: cmd, ended: make(chan struct{})}
	p.mu.Lock()
	p.run = r
	p.mu.Unlock()
	// Ends with the process, which end and kill wait for through ended.
	go func() {
		err := cmd.Wait()
		if err == nil {
			err = errors.New("exit status 0")
		}
		r.err = err
		r.mu.Lock()
		byItself := r.ready && !r.wanted
		r.mu.Unlock()
		if byItself && p.cluster.onExit != nil {
			p.cluster.onExit(p, p.tail())
		}
		close(r.ended)
	}()
	return r, nil
}

// end ends the process if it runs: with SIGTERM, and if that takes too long with
// SIGKILL, which is an error.
func (p *Process) end() error {
	r := p.current()
	if r == nil {
		return nil
	}
	r.want()
	_ = r.cmd.Process.Signal(syscall.SIGTERM) // an error says that it has ended
	_ = r.cmd.Process.Signal(syscall.SIGCONT)
	if r.wait(endGrace) {
		return nil
	}
	log := p.tail()
	return errors.Join(fmt.Errorf("%s did not end within %v and was killed\n%s", p.name, endGrace, log), r.kill())
}

func (r *running) want() {
	r.mu.Lock()
	r.wanted = true
	r.mu.Unlock()
}

func (r *running) kill() error {
	r.want()
	_ = r.cmd.Process.Kill() // an error says that it has ended
	if !r.wait(killGrace) {
		return fmt.Errorf("it is still there %v after it was killed", killGrace)
	}
	return nil
}

// wait reports whether the process has ended within d.
func (r *running) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-r.ended:
		return true
	case <-t.C:
		return false
	}
}

// tail is the end of the process's log, indented.
func (p *Process) tail() string {
	f, err := os.Open(p.log)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > tailBytes {
		_, _ = f.Seek(-tailBytes, io.SeekEnd) // else the beginning is shown
	}
	raw, _ := io.ReadAll(io.LimitReader(f, tailBytes))
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	return "    " + strings.Join(lines, "\n    ")
}

package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a child of the run.
type process struct {
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string   // of its output, as far as somebody takes them
	done  chan struct{} // closed when it has ended and its output is read
	err   error         // before done

	mu   sync.Mutex
	tail []string // the last lines
}

const (
	maxTail = 30
	// stopPatience is how long a process may take to stop before it is killed.
	stopPatience = 20 * time.Second
	startTimeout = 30 * time.Second
)

// spawn starts a process that ends with its stop or with the thread that started it,
// to which the run is locked. Its output and errors are lines.
func spawn(name, path string, args ...string) (*process, error) {
	p := &process{name: name, lines: make(chan string, 64), done: make(chan struct{})}
	p.cmd = exec.Command(path, args...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	for _, v := range os.Environ() { // settings are those of the run alone
		if !strings.HasPrefix(v, "KANSEI_") {
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", name, err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if p.in, err = p.cmd.StdinPipe(); err == nil {
		err = p.cmd.Start()
	}
	err = errors.Join(err, w.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bench: %s: %w", name, err), r.Close())
	}
	// Ends with the process.
	go func() {
		defer close(p.done)
		defer func() { _ = r.Close() }()
		s := bufio.NewScanner(r)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			p.note(s.Text())
		}
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

func (p *process) note(line string) {
	p.mu.Lock()
	p.tail = append(p.tail, line)
	if len(p.tail) > maxTail {
		p.tail = p.tail[1:]
	}
	p.mu.Unlock()
	select {
	case p.lines <- line:
	default: // nobody waits for them
	}
}

// line waits for a line that want accepts.
func (p *process) line(ctx context.Context, within time.Duration, want func(line string) bool) error {
	t := time.NewTimer(within)
	defer t.Stop()
	for {
		select {
		case l := <-p.lines:
			if want(l) {
				return nil
			}
		case <-p.done:
			return p.trouble("it has ended")
		case <-t.C:
			return p.trouble(fmt.Sprintf("nothing after %v", within))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// trouble is an error with the end of the output.
func (p *process) trouble(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Errorf("bench: %s: %s:\n%s", p.name, what, strings.Join(p.tail, "\n"))
}

// stop ends the process and waits for it.
func (p *process) stop() error {
	_ = p.in.Close()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(stopPatience):
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return p.trouble("it had to be killed")
}

// cpu is the time that the processors have spent on the process so far.
func (p *process) cpu() (time.Duration, error) {
	// The kernel's clock of another process: its id inverted, with CPUCLOCK_SCHED.
	clock := int32(^p.cmd.Process.Pid<<3 | 2)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("bench: clock of %s: %w", p.name, err)
	}
	return time.Duration(ts.Nano()), nil
}

// wakes is how often the process's threads have gone to sleep and were woken so far.
func (p *process) wakes() (int64, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("bench: %w", err)
	}
	var sum int64
	for _, t := range threads {
		n, err := value(t, "voluntary_ctxt_switches:")
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) { // a thread may have ended
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// resident is the process's resident memory in bytes: Rss of smaps_rollup, which is
// VmRSS counted exactly.
func (p *process) resident() (int64, error) {
	return field(fmt.Sprintf("/proc/%d/smaps_rollup", p.cmd.Process.Pid), "Rss:")
}

// field reads a number of kB in a file of /proc, in bytes.
func field(path, name string) (int64, error) {
	kb, err := value(path, name)
	return kb << 10, err
}

// value reads a number in a file of /proc.
func value(path, name string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("bench: %w", err)
	}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) >= 2 && f[0] == name {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("bench: %s has no %s", path, name)
}

// kernel is what the kernel has taken for its own objects and for socket buffers, in
// bytes, of the whole machine.
func kernel() (int64, error) {
	slab, err := field("/proc/meminfo", "Slab:")
	if err != nil {
		return 0, err
	}
	b, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, fmt.Errorf("bench: %w", err)
	}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		for i := 0; i+1 < len(f); i++ {
			if f[0] == "TCP:" && f[i] == "mem" {
				pages, err := strconv.ParseInt(f[i+1], 10, 64)
				return slab + pages*int64(os.Getpagesize()), err
			}
		}
	}
	return 0, errors.New("bench: /proc/net/sockstat has no TCP mem")
}

// queued is what the kernel holds in the sending queue of the local end of a connection, in
// bytes. Both ends are as tcpAddress writes them.
func queued(local, remote string) (int64, error) {
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, fmt.Errorf("bench: %w", err)
	}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) > 4 && f[1] == local && f[2] == remote {
			tx, _, _ := strings.Cut(f[4], ":")
			return strconv.ParseInt(tx, 16, 64)
		}
	}
	return 0, nil // it is gone
}

// tcpAddress is an address as /proc/net/tcp has it.
func tcpAddress(a netip.AddrPort) string {
	ip := a.Addr().As4()
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip[:]), a.Port())
}

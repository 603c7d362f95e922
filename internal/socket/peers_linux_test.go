package socket

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// peersEnv makes the test binary a process of peers instead: "address number".
const peersEnv = "KANSEI_SOCKET_PEERS"

// peers is a process of clients, so that what a benchmark measures in its own is
// the server's alone.
type peers struct {
	t    testing.TB
	in   io.WriteCloser
	out  *bufio.Scanner
	stop func() // ends the process, and so its connections; any number of times
}

// beat is what each peer says: a deflated message and a ping.
func beat(t testing.TB) []byte {
	return bytes.Join([][]byte{frame(0xc1, deflated(t, `{"type":"beat","visible":true,"media_ms":123456}`)), frame(finBit|opPing, "ping")}, nil)
}

// startPeers has n peers connect to address and complete the handshake.
func startPeers(t testing.TB, address string, n int) *peers {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", peersEnv, address, n))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &peers{t: t, in: in, out: bufio.NewScanner(out)}
	p.stop = sync.OnceFunc(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("peers: %v", err)
		}
	})
	t.Cleanup(p.stop)
	p.done()
	return p
}

// do has the peers do something and waits until they have.
func (p *peers) do(command string, a ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, command+"\n", a...); err != nil {
		p.t.Fatal(err)
	}
	p.done()
}

func (p *peers) done() {
	p.t.Helper()
	if !p.out.Scan() || p.out.Text() != "done" {
		p.t.Fatalf("peers: %q, %v", p.out.Text(), p.out.Err())
	}
}

// runPeers is the process of peers. It reads commands up to the end of its input:
// "say" has each say its beat, "until n" waits until all of them together have
// received n bytes behind the handshake.
func runPeers(what string) error {
	var address string
	var n int
	if _, err := fmt.Sscan(what, &address, &n); err != nil {
		return err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	fds := make([]int, n)
	var wg sync.WaitGroup
	errs := make(chan error, 16)
	for k := range cap(errs) {
		wg.Go(func() {
			for i := k; i < n; i += cap(errs) {
				if fds[i], err = connectPeer(address, epoll); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	fmt.Println("done")
	received := 0
	events, buf := make([]unix.EpollEvent, 256), make([]byte, 64<<10)
	drain := func(until int) error {
		for received < until {
			k, err := unix.EpollWait(epoll, events, 10000)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
			if k == 0 {
				return fmt.Errorf("received %d of %d bytes", received, until)
			}
			for _, e := range events[:max(k, 0)] {
				m, err := unix.Read(int(e.Fd), buf)
				if m <= 0 {
					return fmt.Errorf("a peer's connection ended: %w", err)
				}
				received += m
			}
		}
		return nil
	}
	say := beat(&testing.T{})
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var err error
		var until int
		switch command, argument, _ := strings.Cut(in.Text(), " "); command {
		case "say":
			for _, fd := range fds {
				if _, err = unix.Write(fd, say); err != nil {
					break
				}
			}
		case "until":
			if _, err = fmt.Sscan(argument, &until); err == nil {
				err = drain(until)
			}
		}
		if err != nil {
			return err
		}
		fmt.Println("done")
	}
	return nil
}

// connectPeer opens one connection, completes the handshake and adds it to epoll.
func connectPeer(address string, epoll int) (int, error) {
	a, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}); err != nil {
		return 0, err
	}
	if _, err := unix.Write(fd, []byte(request("Authorization: Bearer "+strings.Repeat("x", 300)+"\r\n"+offerDeflate))); err != nil {
		return 0, err
	}
	var answer []byte
	for one := make([]byte, 1); !bytes.HasSuffix(answer, []byte("\r\n\r\n")); answer = append(answer, one[0]) {
		if n, err := unix.Read(fd, one); n != 1 {
			return 0, fmt.Errorf("handshake: %q, %w", answer, err)
		}
	}
	if !bytes.Contains(answer, []byte("permessage-deflate")) {
		return 0, fmt.Errorf("handshake: %q", answer)
	}
	return fd, unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

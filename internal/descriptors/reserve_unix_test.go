//go:build unix

package descriptors

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// child has the test binary run one of its tests in a process of its own, behind a shell
// that sets limits: limits are those of the whole process.
const child = "DESCRIPTORS_CHILD"

func inChild(t *testing.T, shell string) (here bool) {
	t.Helper()
	if os.Getenv(child) != "" {
		return true
	}
	cmd := exec.Command("/bin/sh", "-c", shell+` && exec "$0" "$@"`, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v") // #nosec G204 -- this program
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// The soft limit that a process starts with does not matter: Go raises it.
func TestSoftLimit(t *testing.T) { // not parallel: it may be the child
	if !inChild(t, "ulimit -Sn 64 && ulimit -Hn 512") {
		return
	}
	limit, err := Limit()
	if err != nil || limit < 511 {
		t.Errorf("%d open files are allowed, %v; want 511", limit, err)
	}
}

// exhaust opens files until there are no descriptors.
func exhaust() (opened []*os.File, err error) {
	for {
		f, err := os.Open(os.DevNull)
		if Exhausted(err) {
			return opened, nil
		}
		if err != nil {
			return opened, err
		}
		opened = append(opened, f)
	}
}

func TestReserve(t *testing.T) {
	if !inChild(t, "ulimit -n 64") {
		return
	}
	r, err := NewReserve(3)
	if err != nil {
		t.Fatal(err)
	}
	if r.Empty() || !r.Refill() {
		t.Error("it is empty at first")
	}
	files, err := exhaust()
	if err != nil {
		t.Fatal(err)
	}
	if !r.Empty() {
		t.Error("it is not empty although there are no descriptors beside its own")
	}
	for range 3 {
		if !r.Lend() {
			t.Fatal("it lends nothing")
		}
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatalf("what it lent is not there: %v", err)
		}
		files = append(files, f)
	}
	if r.Lend() {
		t.Error("it lends what it has not got")
	}
	if r.Refill() || !r.Empty() {
		t.Error("it takes back what others have")
	}
	for i := range 3 {
		_ = files[i].Close()
		if whole := r.Refill(); whole != (i == 2) {
			t.Errorf("with %d of 3 back it is whole: %v", i+1, whole)
		}
	}
	if !r.Empty() {
		t.Error("nothing is left beside it, and it is not empty")
	}
	_ = files[3].Close()
	if r.Empty() {
		t.Error("a descriptor is left, and it is empty")
	}
	if err := r.Close(); err != nil || !r.Refill() {
		t.Errorf("close: %v", err)
	}
	if _, err := exhaust(); err != nil {
		t.Fatal(err)
	}
	if none, err := NewReserve(1); err == nil || none != nil {
		t.Error("one descriptor is held back of none")
	}
}

func TestNoReserve(t *testing.T) {
	t.Parallel()
	var r *Reserve
	if r.Lend() || !r.Refill() || r.Empty() || r.Close() != nil {
		t.Error("nil does something")
	}
}

func TestTransient(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		syscall.EMFILE: true, syscall.ENFILE: true, syscall.ENOBUFS: true, syscall.ENOMEM: true, syscall.EPERM: true, syscall.ECONNABORTED: true,
		syscall.EBADF: false, syscall.EINVAL: false, errors.New("else"): false, nil: false,
	} {
		if err != nil {
			err = fmt.Errorf("accept: %w", err)
		}
		if got := Transient(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

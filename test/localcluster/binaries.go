//go:build unix

package localcluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNotInstalled is the error of a program that is not there.
var ErrNotInstalled = errors.New("it is not installed")

type programs struct{ kansei, nats, redis, haproxy string }

func findPrograms(cfg Config, kansei, front bool) (programs, error) {
	var p programs
	var errs [4]error
	p.nats, errs[0] = find(cfg.NATSServer, "nats-server", "make setup")
	p.redis, errs[1] = find(cfg.RedisServer, "redis-server", "make setup")
	if kansei {
		p.kansei, errs[2] = find(cfg.Kansei, "kansei", "make build")
	}
	if front {
		p.haproxy, errs[3] = find(cfg.HAProxy, "haproxy", "make setup")
	}
	return p, errors.Join(errs[:]...)
}

// find returns the absolute path of a program: the given one, that in bin/ of the
// module, or that in PATH or where daemons are.
func find(given, name, remedy string) (string, error) {
	if given == "" {
		if own := filepath.Join(moduleRoot(), "bin", name); isProgram(own) {
			return own, nil
		}
		given = name
	}
	path, err := exec.LookPath(given)
	if daemon := filepath.Join("/usr/sbin", name); err != nil && given == name && isProgram(daemon) {
		path, err = daemon, nil // not in everybody's PATH
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: run %s (%w)", name, ErrNotInstalled, remedy, err)
	}
	return filepath.Abs(path)
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// moduleRoot is the nearest directory with a go.mod, from the working directory up;
// the working directory if there is none.
func moduleRoot() string {
	wd, err := os.Getwd()
	if err != nil {
		return "."
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return wd
		}
	}
}

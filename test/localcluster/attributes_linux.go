package localcluster

import "syscall"

// attributes are those of every process: a group of its own, so that Ctrl-C does not
// reach it before its turn, and an end with whoever started it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

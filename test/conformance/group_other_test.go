//go:build unix && !linux

package conformance

import "syscall"

// ownGroup has a program lead a process group.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

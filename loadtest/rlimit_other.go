//go:build !unix

package loadtest

// RaiseFileLimit has nothing to do where the system sets no such limit.
func RaiseFileLimit(int) error { return nil }

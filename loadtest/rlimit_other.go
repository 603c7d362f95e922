//go:build !unix

package loadtest

// raiseFileLimit has nothing to do where the system sets no such limit.
func raiseFileLimit(int) error { return nil }

package ports

import (
	"net"
	"testing"
)

// Whoever has a port keeps it while nobody listens there, and can listen there again.
func TestNobodyElseGetsIt(t *testing.T) {
	t.Parallel()
	given := map[int]bool{}
	for range 500 {
		p := ForTest(t)
		if given[p.Number] {
			t.Fatalf("port %d is given twice", p.Number)
		}
		given[p.Number] = true
		if p.Number < first || p.Number > last {
			t.Errorf("port %d", p.Number)
		}
		for range 2 {
			l, err := net.Listen("tcp", p.String())
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A port on which somebody listens who did not ask here is not given.
func TestStrangersPort(t *testing.T) {
	t.Parallel()
	p, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", p.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	p.Close()
	for range 2000 {
		other, err := Reserve()
		if err != nil {
			t.Fatal(err)
		}
		if other.Number == p.Number {
			t.Fatal("it is given")
		}
		other.Close()
	}
}

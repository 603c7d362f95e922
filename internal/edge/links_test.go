package edge

import (
	"fmt"
	"strings"
	"testing"

	"rsc.io/qr"
)

// The path of a QR code draws its dark squares, each once, and nothing else.
func TestDrawnQR(t *testing.T) {
	t.Parallel()
	code, err := qr.Encode("https://kansei.example/studio/lesson-7#token="+strings.Repeat("eyJhbGciOiJIUzI1NiJ9.", 20), qr.L)
	if err != nil {
		t.Fatal(err)
	}
	got := drawn(code)
	dark := make([][]int, got.Size)
	for y := range dark {
		dark[y] = make([]int, got.Size)
	}
	for run := range strings.SplitSeq(strings.TrimSuffix(got.Path, "z"), "z") {
		var x, y, n, back int
		if _, err := fmt.Sscanf(run, "M%d %dh%dv1h-%d", &x, &y, &n, &back); err != nil || n != back || n < 1 {
			t.Fatalf("%q: %v", run, err)
		}
		for i := range n {
			dark[y][x+i]++
		}
	}
	for y := range code.Size {
		for x := range code.Size {
			want := 0
			if code.Black(x, y) {
				want = 1
			}
			if dark[y][x] != want {
				t.Fatalf("square %d, %d is drawn %d times, want %d", x, y, dark[y][x], want)
			}
		}
	}
}

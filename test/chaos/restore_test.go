//go:build unix

package chaos

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// The log is put back to what it was some seconds before: what is gone is told, and no
// place and no id of it passes for one of what is said then.
func TestRestore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var log bytes.Buffer
	r, err := Run(t.Context(), Config{
		Seed: 1, Only: []string{"restore"}, Rounds: 1, Pace: 0.3, Rooms: 4, Partitions: 2, Viewers: 60, Publishers: 2, Rate: 5,
		Drain: 3 * time.Second, Skew: 3 * time.Minute, Dir: dir, Log: &log,
	})
	t.Logf("%s", &log)
	if err != nil {
		t.Fatal(err)
	}
	var report strings.Builder
	if err := r.Write(&report); err != nil {
		t.Fatal(err)
	}
	t.Log(report.String())
	for _, wrong := range r.Wrong() {
		t.Error(wrong)
	}
	if v := r.Verdict; v.RolledBack == 0 || v.Gaps == 0 || v.NotRecovered == 0 {
		t.Errorf("%d comments are gone, %d gaps were told of, %d cursors not recovered: nothing was tested", v.RolledBack, v.Gaps, v.NotRecovered)
	}
	tellLogs(t, dir)
}

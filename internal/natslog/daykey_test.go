package natslog

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

// originOf waits until a log has the key of the day.
func originOf(t testing.TB, l *Log, room, address string) (origin string) {
	t.Helper()
	eventually(t, 30*time.Second, "there is a key", func() error {
		if origin = l.Origin(room, address); origin == "" {
			return errors.New("none")
		}
		return nil
	})
	return origin
}

// All nodes hash an address alike, another one in each room and of each address, under a key that is in memory and ends.
func TestOrigin(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	a, b := openReady(t, Config{URLs: urls(s), DayKeys: true}), openReady(t, Config{URLs: urls(s), DayKeys: true})
	one := originOf(t, a, "r", "10.0.0.1")
	if !regexp.MustCompile(`^20\d\d-\d\d-\d\d\.[A-Za-z0-9_-]{22}$`).MatchString(one) {
		t.Errorf("it is %s", one)
	}
	if again, other := a.Origin("r", "10.0.0.1"), originOf(t, b, "r", "10.0.0.1"); again != one || other != one {
		t.Errorf("%s, %s and %s", one, again, other)
	}
	if room, address := a.Origin("s", "10.0.0.1"), a.Origin("r", "10.0.0.2"); room == one || address == one || room == address || a.Origin("r", "") != "" {
		t.Errorf("%s, %s and %s", one, room, address)
	}
	st, err := jetStream(t, s.ClientURL()).Stream(testContext(t), "KANSEI_DAYKEY")
	if err != nil {
		t.Fatal(err)
	}
	info := st.CachedInfo()
	if info.Config.Storage != jetstream.MemoryStorage || info.Config.MaxAge != 48*time.Hour || info.Config.AllowDirect || info.Config.RePublish != nil {
		t.Errorf("the stream is %+v", info.Config)
	}
	if n := info.State.Msgs; n < 1 || n > 2 { // tomorrow's before midnight
		t.Errorf("there are %d keys", n)
	}
	// A comment bears it, and nothing else of the address.
	d := draft1("x")
	d.Origin = one
	if got := appendAll(t, a, "r", d)[0]; got.err != nil {
		t.Fatal(got.err)
	}
	e, err := b.Event(testContext(t), "r", 1)
	if err != nil || e == nil || e.Origin != one {
		t.Errorf("%+v, %v", e, err)
	}
	// A node forgets the keys that are old.
	if err := a.days.ensure(testContext(t), a.Now().UTC().Format(day), a.Now().Add(dayKeyAge+time.Minute)); err != nil {
		t.Fatal(err)
	}
	a.days.mu.Lock()
	n := len(a.days.keys)
	a.days.mu.Unlock()
	if n > 1 {
		t.Errorf("it knows %d keys", n)
	}
}

// The key of a day is the first one that a node has written.
func TestDayKeyIsWrittenOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	var origins [8]string
	var logs [8]*Log
	for i := range logs {
		logs[i] = open(t, Config{URLs: urls(s), DayKeys: true})
	}
	for i, l := range logs {
		if origins[i] = originOf(t, l, "r", "10.0.0.1"); origins[i] != origins[0] {
			t.Errorf("%s and %s", origins[i], origins[0])
		}
	}
}

// Without the permission, or where it is not wanted, there are no keys, and everything else goes on.
func TestNoDayKeys(t *testing.T) {
	t.Parallel()
	block, _ := documentedGrants(t)
	s := startGranted(t, freePorts(t, 1)[0], t.TempDir(), block)
	l := openReady(t, Config{URLs: []string{grantedURL(s)}, DayKeys: true})
	mustAppend(t, l, "r", "a")
	time.Sleep(time.Second)
	if o := l.Origin("r", "10.0.0.1"); o != "" {
		t.Errorf("it is %s", o)
	}
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
	granted := strings.Replace(block, `          "$JS.API.STREAM.INFO.*"`, "          \"kansei.daykey.*\"\n          \"$JS.API.STREAM.INFO.*\"", 1)
	if granted == block {
		t.Fatal("nothing was granted")
	}
	s = startGranted(t, freePorts(t, 1)[0], t.TempDir(), granted)
	l = openReady(t, Config{URLs: []string{grantedURL(s)}, DayKeys: true})
	originOf(t, l, "r", "10.0.0.1")
	l = openReady(t, Config{URLs: []string{grantedURL(s)}})
	time.Sleep(time.Second)
	if o := l.Origin("r", "10.0.0.1"); o != "" {
		t.Errorf("it is %s", o)
	}
}

// BenchmarkOrigin measures what a comment pays for the hash of its sender's address.
func BenchmarkOrigin(b *testing.B) {
	l := openReady(b, Config{URLs: urls(startServer(b, b.TempDir(), 0)), DayKeys: true})
	originOf(b, l, "lesson-7", "10.0.0.1")
	b.ReportAllocs()
	for b.Loop() {
		l.Origin("lesson-7", "0123456789abcdef")
	}
}

var _ hub.RoomLog = (*Log)(nil)

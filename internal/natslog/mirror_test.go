package natslog

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

// texts are the bodies of events, in one line.
func texts(events []hub.Event) string {
	b := new(strings.Builder)
	for _, e := range events {
		b.Write(e.Body)
	}
	return b.String()
}

// erase removes one record, as an operator does who must.
func erase(t *testing.T, js jetstream.JetStream, seq uint64) {
	t.Helper()
	s, err := js.Stream(testContext(t), "KANSEI_LOG_0")
	if err == nil {
		err = s.SecureDeleteMsg(testContext(t), seq)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A mirror that takes part in direct gets keeps what was erased from the log, and may lack
// rooms. Nobody is shown that, and nobody misses anything.
func TestMirrorThatAnswers(t *testing.T) {
	t.Parallel()
	for name, mirror := range map[string]jetstream.StreamSource{
		"of all":         {Name: "KANSEI_LOG_0"},
		"of other rooms": {Name: "KANSEI_LOG_0", FilterSubject: "kansei.log.0.other"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, t.TempDir(), 0)
			out := new(lines)
			l := openReady(t, Config{URLs: urls(s), Logger: out.logger()})
			js := jetStream(t, s.ClientURL())
			o, f := followRoom(t, l, "r", 5)
			var want []string
			for _, id := range names("a", 300) {
				mustAppend(t, l, "r", id)
				mustAppend(t, l, "other", "o"+id)
				want = append(want, id)
			}
			copied, err := js.CreateStream(testContext(t), jetstream.StreamConfig{Name: "COPY", Mirror: &mirror, MirrorDirect: true})
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, 20*time.Second, "the mirror has all", func() error {
				info, err := copied.Info(testContext(t))
				if err == nil && (info.State.Msgs < 300 || info.Mirror.Lag > 0) {
					err = fmt.Errorf("it has %d", info.State.Msgs)
				}
				return err
			})
			const gone = 99 // the record of a49
			erase(t, js, gone)
			want = append(want[:49], want[50:]...)

			for range 20 {
				events, _, err := l.Read(testContext(t), "r", l.epochOf("r"), hub.Position{}, 1000)
				if err != nil {
					t.Fatal(err)
				}
				if got := texts(events); strings.Contains(got, `"a49"`) {
					t.Fatal("the erased one is shown")
				}
				if len(events) != len(want) {
					t.Fatalf("%d of %d events", len(events), len(want))
				}
			}
			if mirror.FilterSubject == "" {
				if err := out.once("level=WARN", "a mirror answers", "stream=KANSEI_LOG_0 mirror=COPY", "nats stream edit COPY --no-allow-mirror-direct"); err != nil {
					t.Error(err)
				}
				if counter(t, l.metrics.nats.Errors.WithLabelValues(opMirror)) < 1 || !l.logs[0].byMirror() {
					t.Error("it is not counted")
				}
			}
			// A room that is opened anew has the latest, whatever lies between them.
			for _, n := range []int{1, 5, 270, 1000} {
				fresh, follow := followRoom(t, l, "r", n)
				waitEvents(t, fresh, 10*time.Second, want[max(len(want)-n, 0):]...)
				follow.Stop()
			}
			// What is lost on the way is found.
			deafen(t, l, f)
			mustAppend(t, l, "r", "late")
			eventually(t, 30*time.Second, "the lost one", func() error {
				o.mu.Lock()
				defer o.mu.Unlock()
				if n := len(o.events); n == 0 || !strings.Contains(string(o.events[n-1].Body), "late") {
					return errors.New("it is not there")
				}
				return o.wrong
			})
			if err := l.Ready(); err != nil {
				t.Error(err)
			}
		})
	}
}

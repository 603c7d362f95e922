package socket

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestMetrics(t *testing.T) { onBoth(t, testMetrics) }

func testMetrics(t *testing.T, via path) {
	reg := prometheus.NewPedanticRegistry()
	m := NewMetrics(reg)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if n := testutil.CollectAndCount(reg, "kansei_closes_total"); n != len(Kinds()) {
		t.Errorf("%d causes are registered, want %d", n, len(Kinds()))
	}

	st := withTCP(newSite(t, newTestServer(t, via.config(Config{Deflate: true, Metrics: m}))))
	p, v := st.dial(offerDeflate)
	eventually(t, "the answer to the handshake is counted", func() bool { return m.sentBytes.total() > 100 })
	answer := m.sentBytes.total()
	p.write(text("a"), text("b"))
	v.message()
	v.message()
	text := [][]byte{[]byte(strings.Repeat("hello ", 100))}
	deflated, full := Deflated.Encode(text), Plain.Encode(text)
	v.send(full, deflated, deflated)
	p.write(frame(finBit|opPing, ""))
	for range 4 {
		if _, _, err := p.read(); err != nil {
			t.Fatal(err)
		}
	}
	want := answer + float64(len(full)+2*len(deflated)+2)
	// They are counted when the kernel has taken them, which the peer may see first.
	eventually(t, fmt.Sprintf("%.0f bytes are counted", want), func() bool { return m.sentBytes.total() == want })
	p.write(closing(1000, ""))
	p.expectClose(1000, "")
	_ = p.Close()
	v.cause()
	err = testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP kansei_frames_total Message frames handed to a connection, by form.
# TYPE kansei_frames_total counter
kansei_frames_total{form="deflated"} 2
kansei_frames_total{form="plain"} 1
# HELP kansei_received_messages_total Whole messages received from viewers.
# TYPE kansei_received_messages_total counter
kansei_received_messages_total 2
# HELP kansei_slow_writers Viewers that are behind: something waits until they take it.
# TYPE kansei_slow_writers gauge
kansei_slow_writers 0
# HELP kansei_closes_total WebSocket connections that ended, those that were refused too, by what ended them.
# TYPE kansei_closes_total counter
kansei_closes_total{cause="bad_data"} 0
kansei_closes_total{cause="binary"} 0
kansei_closes_total{cause="closed_by_peer"} 1
kansei_closes_total{cause="closed_by_server"} 0
kansei_closes_total{cause="flood"} 0
kansei_closes_total{cause="lost"} 0
kansei_closes_total{cause="protocol_error"} 0
kansei_closes_total{cause="silent"} 0
kansei_closes_total{cause="too_big"} 0
kansei_closes_total{cause="too_slow"} 0
kansei_closes_total{cause="unfinished"} 0
`), "kansei_frames_total", "kansei_received_messages_total", "kansei_slow_writers", "kansei_closes_total")
	if err != nil {
		t.Error(err)
	}
}

func TestCauseString(t *testing.T) {
	t.Parallel()
	c := Cause{Kind: TooSlow, Code: 4408, Reason: "too slow"}
	if got := c.String(); got != "too_slow (4408): too slow" {
		t.Error(got)
	}
}

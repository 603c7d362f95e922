package natslog

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// effect is what a difference between a stream and the settings of a node does.
type effect int

const (
	// effectWarned: the stream's own value holds. The node says so, and is ready.
	effectWarned effect = iota
	// effectUnready: the log works for now, but will lose what it should keep.
	effectUnready
	// effectRefused: the log would break its promises. The stream is not used.
	effectRefused
	effects = 3
)

// String is the value of the metric's label.
func (e effect) String() string { return [effects]string{"warned", "unready", "refused"}[e] }

const (
	// warnAgain is how often a difference that lasts is logged.
	warnAgain = time.Hour
	// maxFirstSeq is where a stream may begin at the most: the revisions of states have 33
	// bits for positions, and a stream needs some.
	maxFirstSeq = 1 << 32
)

// difference is something in which a stream is not what it should be.
type difference struct {
	what     string
	is, want string
	effect   effect
	flag     string // the setting of a node that the wanted value comes from, if there is one
	remedy   string // what to do; empty when it goes without saying
}

func (d difference) String() string {
	b := new(strings.Builder)
	b.WriteString(d.what)
	if d.is != "" {
		_, _ = fmt.Fprintf(b, " %s, wanted %s", d.is, d.want) // a Builder takes everything
	}
	if d.flag != "" {
		b.WriteString(" (" + d.flag + ")")
	}
	if d.remedy != "" {
		b.WriteString(": " + d.remedy)
	}
	return b.String()
}

// comparison collects differences.
type comparison struct {
	s   *stream
	all []difference
}

// differs adds a difference if the values print differently. Its remedy may hold %s for
// the name of the stream.
func (c *comparison) differs(e effect, what string, is, want any, flag, remedy string) {
	a, b := fmt.Sprint(is), fmt.Sprint(want)
	if a == b {
		return
	}
	if strings.Contains(remedy, "%s") {
		remedy = fmt.Sprintf(remedy, c.s.name)
	}
	c.all = append(c.all, difference{what: what, is: a, want: b, effect: e, flag: flag, remedy: remedy})
}

// edit is a remedy: the command that gives a stream the value that is wanted.
func edit(flags string) string { return "nats stream edit %s " + flags }

// remake is the remedy for what cannot be changed in a stream that is there.
const remake = "this cannot be changed in a stream that is there: with all nodes stopped, nats stream rm %s; the first node makes it anew, without the comments"

// compare names the differences between a stream and what it should be, the worst first.
//
// A node does its work by what a stream is, not by the settings that it was made with. So
// what the operators have edited and what does no harm is told, as a warning: how long and
// how much is kept, in how many copies, and what is refused when that is full. What nobody
// needs to hear of is not compared: description, placement, compression, limits of
// consumers, deny_delete, deny_purge, allow_rollup_hdrs, allow_msg_ttl, allow_msg_schedules,
// allow_atomic, allow_batched, more subjects, more metadata (layout.go). Whatever would have the log lose,
// double, disorder or hide what it has acknowledged is refused.
func (s *stream) compare(is jetstream.StreamConfig) []difference {
	epoch := is.Metadata[metaEpoch]
	if epoch == "" {
		return []difference{{what: "no " + metaEpoch + " in its metadata", effect: effectRefused,
			remedy: "it was not made by kansei, or has lost it in an edit"}}
	}
	c := &comparison{s: s}
	want := s.wanted(epoch)
	const refused = effectRefused
	c.differs(refused, "partitions", is.Metadata[metaPartitions], want.Metadata[metaPartitions], "--log-partitions", "")
	c.layout(is, want)
	c.differs(refused, "allow_direct", is.AllowDirect, true, "", edit("--allow-direct"))
	c.differs(refused, "no_ack", is.NoAck, false, "", edit("--ack"))
	c.differs(refused, "subject_transform", is.SubjectTransform != nil, false, "", "what is stored must bear the room's own subject; "+edit("--no-transform"))
	c.differs(refused, "sources", len(is.Sources), 0, "", "another stream's messages must not come among the comments: take them out")
	c.differs(refused, "mirror", is.Mirror != nil, false, "", remake)
	c.differs(refused, "retention", is.Retention, jetstream.LimitsPolicy, "", remake)
	c.differs(refused, "storage", is.Storage, jetstream.FileStorage, "", remake)
	c.differs(refused, "persist_mode", is.PersistMode, jetstream.DefaultPersistMode, "", "a comment would be acknowledged before it is stored; "+remake)
	c.differs(refused, "sealed", is.Sealed, false, "", "it takes no comments any more; "+remake)
	c.differs(refused, "allow_msg_counter", is.AllowMsgCounter, false, "", "it takes nothing but counters; "+remake)
	c.differs(refused, "first_seq above 4294967296", is.FirstSeq > maxFirstSeq, false, "", remake)
	c.limits(is, want)
	slices.SortStableFunc(c.all, func(a, b difference) int { return int(b.effect) - int(a.effect) })
	return c.all
}

// limits compares how much the stream keeps, for how long, and how often.
func (c *comparison) limits(is, want jetstream.StreamConfig) {
	s := c.s
	const warned = effectWarned
	c.differs(warned, "replicas", is.Replicas, want.Replicas, "--log-replicas", "")

	// A second try must be known as such for as long as somebody may make one.
	window, enough := want.Duplicates, 2*s.l.cfg.AppendTimeout
	if is.MaxAge > 0 {
		window = min(dedupeWindow, is.MaxAge) // the server takes no longer one
	}
	if is.Duplicates < enough {
		c.differs(effectRefused, "duplicate_window", is.Duplicates, fmt.Sprintf("%v, or at least %v", window, enough),
			"twice --append-timeout", "a comment that is sent again would be stored twice; "+edit(fmt.Sprintf("--dupe-window %v", window)))
	} else {
		c.differs(warned, "duplicate_window", is.Duplicates, window, "", "")
	}

	// The server compares sizes as unlimited when they are 0 or less.
	unlimited := func(n int64) any {
		if n <= 0 {
			return "unlimited"
		}
		return n
	}
	lost := warned
	if s.isState() {
		// Rooms would forget what they are: their title, and that they are locked.
		const forgets = "rooms would forget their states; "
		c.differs(effectUnready, "max_age", is.MaxAge, want.MaxAge, "", forgets+edit("--max-age 0s"))
		c.differs(effectRefused, "discard_new_per_subject", is.DiscardNewPerSubject, false, "", "no state could be replaced; "+edit("--discard old"))
		c.differs(warned, "max_msgs_per_subject", unlimited(is.MaxMsgsPerSubject), 1, "", "")
		if is.Discard == jetstream.DiscardOld {
			lost = effectUnready
		}
		c.differs(lost, "max_msgs", unlimited(is.MaxMsgs), unlimited(0), "", edit("--max-msgs=-1"))
		c.differs(lost, "max_bytes", unlimited(is.MaxBytes), unlimited(0), "", edit("--max-bytes=-1"))
	} else {
		c.differs(warned, "max_age", is.MaxAge, want.MaxAge, "--log-max-age", "")
		// Nothing would tell a viewer that comes back what was removed from the middle.
		c.differs(effectRefused, "max_msgs_per_subject", unlimited(is.MaxMsgsPerSubject), unlimited(0), "",
			"viewers who come back would miss comments without being told; "+edit("--max-msgs-per-subject=-1"))
		c.differs(warned, "max_msgs", unlimited(is.MaxMsgs), unlimited(0), "", "")
		c.differs(warned, "max_bytes", unlimited(is.MaxBytes), unlimited(0), "", "")
	}
	c.differs(warned, "discard", is.Discard, want.Discard, "", "")
	c.differs(warned, "max_msg_size", unlimited(int64(is.MaxMsgSize)), unlimited(0), "", "")
}

// mismatch is the error for the differences that are more than a warning; nil when there
// are none.
func (s *stream) mismatch(d []difference) error {
	var parts []string
	for _, x := range d {
		if x.effect > effectWarned {
			parts = append(parts, x.String())
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return fmt.Errorf("stream %s has %s", s.name, strings.Join(parts, "; "))
}

// survivable reports whether the log works all the same.
func survivable(d []difference) bool {
	return !slices.ContainsFunc(d, func(x difference) bool { return x.effect == effectRefused })
}

// tellDifferences logs each difference when it is new, and again while it lasts, and
// counts them. Of the goroutine that tends the stream.
func (s *stream) tellDifferences(d []difference) {
	now := time.Now()
	told := make(map[difference]time.Time, len(d))
	var counts [effects]int
	for _, x := range d {
		counts[x.effect]++
		last, known := s.told[x]
		if known && now.Sub(last) < warnAgain {
			told[x] = last
			continue
		}
		told[x] = now
		args := []any{"stream", s.name, "difference", x.what}
		for _, a := range [][2]string{{"is", x.is}, {"wanted", x.want}, {"flag", x.flag}, {"remedy", x.remedy}} {
			if a[1] != "" {
				args = append(args, a[0], a[1])
			}
		}
		if x.effect == effectWarned {
			s.l.log.Warn("a stream is not as configured; what the stream has holds", args...)
		} else {
			s.l.log.Error("a stream is not as configured", args...)
		}
	}
	if len(d) == 0 && len(s.told) > 0 {
		s.l.log.Info("a stream is as configured again", "stream", s.name)
	}
	s.told = told
	s.countDifferences(counts)
}

// countDifferences has the metric tell how many differences the stream has.
func (s *stream) countDifferences(counts [effects]int) {
	for e, n := range counts {
		s.l.metrics.differences.WithLabelValues(effect(e).String()).Add(float64(n - s.differences[e]))
	}
	s.differences = counts
}

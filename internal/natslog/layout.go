package natslog

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// The layout of a stream is which subjects it has and what it republishes. It has a version,
// so that nodes of several versions can share a stream: a stream may have more subjects,
// republish more, have more metadata and a higher version than a node knows, as long as its
// metadata say that nodes of this version may still use it.

// What a stream's metadata pin.
const (
	metaEpoch      = "kansei_epoch"
	metaPartitions = "kansei_partitions"
	// metaLayout is the version of the stream's layout; without it, 1.
	metaLayout = "kansei_layout"
	// metaReads is the lowest layout version that a node must know to use the stream;
	// without it, 1.
	metaReads = "kansei_reads"
)

const (
	// knownLayout is the newest layout version that this node knows. Streams are created in it.
	//
	//	1: log and states have one subject for each room, which is republished
	//	2: the states have more subjects behind that of a room, republish all of them, and take
	//	   records that end by themselves
	//
	// Acts of moderators need layout 2. This version widens a stream of states of layout 1.
	knownLayout = 2
	// readsLayout is the lowest layout version that a node must know to use streams that
	// this version has created.
	readsLayout = 1
)

// shape gives the configuration of a stream the subjects of the newest layout.
func (s *stream) shape(c *jetstream.StreamConfig, epoch string) {
	source, destination := s.subjects+"*", s.liveSubjects(epoch)+"{{wildcard(1)}}"
	if s.isState() {
		source, destination = s.subjects+">", s.liveSubjects(epoch)+">"
		c.AllowMsgTTL = true // of what ends by itself
	}
	c.Subjects = []string{source}
	c.RePublish = &jetstream.RePublish{Source: source, Destination: destination}
	c.Metadata[metaLayout], c.Metadata[metaReads] = strconv.Itoa(knownLayout), strconv.Itoa(readsLayout)
}

// widen gives the stream of states the subjects of layout 2, which acts need, if an older version has made
// it. It takes nothing away. Where the user may not, or NeverCreate is set, acts are refused until an
// operator has done it.
func (s *stream) widen(ctx context.Context, info *jetstream.StreamInfo) {
	if !s.isState() || coversAny(info.Config.Subjects, s.subjects+">") || s.l.cfg.NeverCreate || time.Since(s.widened) < widenEvery {
		return
	}
	s.widened = time.Now()
	c, epoch := info.Config, info.Config.Metadata[metaEpoch]
	reads := c.Metadata[metaReads]
	s.shape(&c, epoch)
	if reads == "" {
		delete(c.Metadata, metaReads)
	} else {
		c.Metadata[metaReads] = reads
	}
	if _, err := natsconn.API[jetstream.StreamInfo](ctx, s.l.conn, opUpdate, s.l.cfg.api()+"STREAM.UPDATE."+s.name, c, nil); err != nil {
		s.l.log.Warn("the stream of states takes no acts of moderators: it was made by an older version, and cannot be widened; "+
			fmt.Sprintf("nats stream edit %s --subjects '%s' --republish-source '%s' --republish-destination '%s' --allow-msg-ttl", s.name, c.Subjects[0], c.RePublish.Source, c.RePublish.Destination),
			"stream", s.name, "error", err)
		return
	}
	s.l.log.Info("the stream of states was widened to layout 2", "stream", s.name)
}

// widenEvery is how often that is tried.
const widenEvery = time.Minute

// needed matches the subjects that this version uses. Every layout has them.
func (s *stream) needed() string { return s.subjects + "*" }

// layout compares the stream's layout with what this node relies on.
func (c *comparison) layout(is, want jetstream.StreamConfig) {
	if reads := is.Metadata[metaReads]; reads != "" {
		if n, err := strconv.Atoi(reads); err != nil || n > knownLayout {
			c.all = append(c.all, difference{
				what:   fmt.Sprintf("a layout (%s %s) for nodes that know layout %s or later; this node knows %d", metaLayout, is.Metadata[metaLayout], reads, knownLayout),
				effect: effectRefused, remedy: "run a later version of kansei",
			})
		}
	}
	if !coversAny(is.Subjects, c.s.needed()) {
		c.differs(effectRefused, "subjects", is.Subjects, want.Subjects, "", edit(fmt.Sprintf("--subjects '%s'", want.Subjects[0])))
	}
	c.republish(is, want)
}

// republish compares what is said to the nodes of what was stored. The stream may republish
// more than this node listens to.
func (c *comparison) republish(is, want jetstream.StreamConfig) {
	remedy := edit(fmt.Sprintf("--republish-source '%s' --republish-destination '%s'", want.RePublish.Source, want.RePublish.Destination))
	if is.RePublish == nil {
		c.differs(effectRefused, "republish", "none", want.RePublish.Destination, "", remedy)
		return
	}
	source := is.RePublish.Source
	if source == "" {
		source = ">"
	}
	if !covers(source, c.s.needed()) {
		c.differs(effectRefused, "republish source", is.RePublish.Source, want.RePublish.Source, "", remedy)
	}
	// A room's name stands for all of them. It is one token.
	record := c.s.subjects + "room"
	heard := c.s.liveSubjects(is.Metadata[metaEpoch]) + "room"
	if covers(source, record) && mapped(record, source, is.RePublish.Destination) != heard {
		c.differs(effectRefused, "republish destination", is.RePublish.Destination, want.RePublish.Destination, "", remedy)
	}
	c.differs(effectRefused, "republish headers_only", is.RePublish.HeadersOnly, false, "", remedy)
}

// covers reports whether every subject that narrow matches is matched by wide.
func covers(wide, narrow string) bool {
	w, n := strings.Split(wide, "."), strings.Split(narrow, ".")
	for i, token := range w {
		switch {
		case i >= len(n):
			return false
		case token == ">":
			return true
		case n[i] == ">", token != "*" && token != n[i]:
			return false
		}
	}
	return len(w) == len(n)
}

func coversAny(wide []string, narrow string) bool {
	for _, w := range wide {
		if covers(w, narrow) {
			return true
		}
	}
	return false
}

// mapped is the subject on which a stream republishes a record, whose subject source matches.
// It knows of the placeholders of NATS those that keep a token as it is.
func mapped(subject, source, destination string) string {
	tokens := strings.Split(subject, ".")
	var wildcards []string
	rest := ""
	for i, token := range strings.Split(source, ".") {
		switch token {
		case "*":
			wildcards = append(wildcards, tokens[i])
		case ">":
			rest = strings.Join(tokens[i:], ".")
		}
	}
	out := strings.Split(destination, ".")
	for i, token := range out {
		if token == ">" {
			out[i] = rest
			continue
		}
		number, is := strings.CutPrefix(token, "$")
		if !is {
			if number, is = strings.CutPrefix(token, "{{"); !is {
				continue
			}
			number = strings.ToLower(strings.NewReplacer(" ", "", "{", "", "}", "", "(", "", ")", "").Replace(number))
			number = strings.TrimPrefix(number, "wildcard")
		}
		if n, err := strconv.Atoi(number); err == nil && n >= 1 && n <= len(wildcards) {
			out[i] = wildcards[n-1]
		}
	}
	return strings.Join(out, ".")
}

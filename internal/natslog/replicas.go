package natslog

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// What is wrong with a replica.
const (
	replicaOffline = "offline" // its server is away
	replicaBehind  = "behind"  // it is there, and has not caught up
	replicaAbsent  = "absent"  // the stream has been given fewer servers than replicas
)

var replicaStates = [...]string{replicaOffline, replicaBehind, replicaAbsent}

// shortLasts is how long a replica must be missing to be logged. Under load one may be
// behind for a moment, and a server is restarted in less.
const shortLasts = 5 * time.Second

// shortage is of replicas of a stream. Of the goroutine that tends the stream.
type shortage struct {
	counts map[string]int // by state, as the metric has them
	since  time.Time      // when it began; zero without one
	told   bool           // it was logged
}

// tellReplicas has the metric say which replicas the stream is missing, as its leader sees
// it, and logs when that begins and ends.
func (s *stream) tellReplicas(info *jetstream.StreamInfo) {
	counts, which := missingReplicas(info)
	s.setMissing(counts)
	missing := 0
	for _, n := range counts {
		missing += n
	}
	total := info.Config.Replicas
	switch {
	case missing == 0:
		if s.short.told {
			s.l.log.Info("a stream has all its replicas again", "stream", s.name, "replicas", total,
				"after", time.Since(s.short.since).Round(time.Second))
		}
		s.short.since, s.short.told = time.Time{}, false
	case s.short.since.IsZero():
		s.short.since = time.Now()
	case !s.short.told && time.Since(s.short.since) >= shortLasts:
		s.short.told = true
		s.l.log.Warn("a stream is missing replicas", "stream", s.name, "replicas", total, "missing", which,
			"may_lose", fmt.Sprintf("%d more", max(total-missing-(total/2+1), 0)))
	}
}

func (s *stream) setMissing(counts map[string]int) {
	for _, state := range replicaStates {
		s.l.metrics.replicas.WithLabelValues(state).Add(float64(counts[state] - s.short.counts[state]))
	}
	s.short.counts = counts
}

// missingReplicas counts the replicas that a stream cannot rely on, by what is wrong with
// them, and names them. While a stream moves to other servers it may have more replicas
// than it is to have; those that are well count.
func missingReplicas(info *jetstream.StreamInfo) (counts map[string]int, which string) {
	counts = make(map[string]int)
	if info.Cluster == nil || info.Config.Replicas < 2 {
		return counts, ""
	}
	well := 1 // the leader
	var names []string
	for _, r := range info.Cluster.Replicas {
		switch {
		case r.Offline:
			counts[replicaOffline]++
			names = append(names, r.Name+" "+replicaOffline)
		case !r.Current:
			counts[replicaBehind]++
			names = append(names, r.Name+" "+replicaBehind)
		default:
			well++
		}
	}
	missing := info.Config.Replicas - well
	if missing <= 0 {
		return make(map[string]int), ""
	}
	if n := info.Config.Replicas - 1 - len(info.Cluster.Replicas); n > 0 {
		counts[replicaAbsent] = n
		names = append(names, fmt.Sprint(n, " ", replicaAbsent))
	}
	return counts, strings.Join(names, ", ")
}

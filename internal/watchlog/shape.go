package watchlog

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Broadcast is what is shaped: a broadcast of a room, by the log's clock in Unix milliseconds.
type Broadcast struct {
	Room string
	ID   string // its number, or 0-<start> where the room has none
	// Waiting is since when viewers waited for it, Began when it began, and Ended when it ended; 0: it runs.
	Waiting, Began, Ended int64
	// Closed says that no more is waited for: what has no end is estimated.
	Closed bool
}

// Interval is a connection during a broadcast.
type Interval struct {
	Room      string `json:"room" parquet:"room,dict"`
	Broadcast string `json:"broadcast" parquet:"broadcast,dict"`
	User      string `json:"user" parquet:"user,dict"`
	Name      string `json:"name,omitempty" parquet:"name,dict"`
	Guest     bool   `json:"guest,omitempty" parquet:"guest"`
	Session   string `json:"session" parquet:"session,dict"`
	Node      string `json:"node" parquet:"node,dict"` // the life of a node
	Conn      uint32 `json:"connection" parquet:"connection"`
	Device    string `json:"device" parquet:"device,dict"`
	From      int64  `json:"from" parquet:"from,timestamp(millisecond)"`
	To        int64  `json:"to" parquet:"to,timestamp(millisecond)"`
	// The times of this connection alone; those of a user's connections overlap.
	ConnectedMS int64   `json:"connected_ms" parquet:"connected_ms"`
	VisibleMS   int64   `json:"visible_ms" parquet:"visible_ms"`
	PlayedMS    int64   `json:"played_ms" parquet:"played_ms"`
	WaitedMS    int64   `json:"waited_ms" parquet:"waited_ms"` // before the broadcast began
	Visible     []Span  `json:"visible,omitempty" parquet:"visible,list"`
	Media       []Media `json:"media,omitempty" parquet:"media,list"`
	End         string  `json:"end" parquet:"end,dict"` // empty: it is there
	Estimated   bool    `json:"estimated,omitempty" parquet:"estimated"`
}

// Span is from when to when, Unix milliseconds.
type Span struct {
	From int64 `json:"from" parquet:"from,timestamp(millisecond)"`
	To   int64 `json:"to" parquet:"to,timestamp(millisecond)"`
}

// Media is a stretch of the programme that was played, and when.
type Media struct {
	From   int64 `json:"from" parquet:"from,timestamp(millisecond)"`
	To     int64 `json:"to" parquet:"to,timestamp(millisecond)"`
	FromMS int64 `json:"from_ms" parquet:"from_ms"` // positions of the programme
	ToMS   int64 `json:"to_ms" parquet:"to_ms"`
}

// User is a user during a broadcast, over all devices and connections.
type User struct {
	Room      string `json:"-" parquet:"room,dict"`
	Broadcast string `json:"-" parquet:"broadcast,dict"`
	ID        string `json:"id" parquet:"id"`
	Name      string `json:"name,omitempty" parquet:"name"`
	Guest     bool   `json:"guest,omitempty" parquet:"guest"`
	// From and To are when they came first and were there last; during the broadcast, unless they were there before it alone.
	From        int64 `json:"from" parquet:"from,timestamp(millisecond)"`
	To          int64 `json:"to" parquet:"to,timestamp(millisecond)"`
	ConnectedMS int64 `json:"connected_ms" parquet:"connected_ms"`
	VisibleMS   int64 `json:"visible_ms" parquet:"visible_ms"`
	PlayedMS    int64 `json:"played_ms" parquet:"played_ms"`
	WaitedMS    int64 `json:"waited_ms" parquet:"waited_ms"`
	// Share is connected of the duration of the broadcast so far, 0 to 1.
	Share       float64 `json:"share" parquet:"share"`
	Connections int     `json:"connections" parquet:"connections"`
	Estimated   bool    `json:"estimated" parquet:"estimated"` // some of it
}

// Summary is a broadcast as a whole.
type Summary = protocol.WatchSummary

// Minute is a minute of a broadcast.
type Minute = protocol.WatchMinute

// Shaped is what a broadcast comes to.
type Shaped struct {
	Summary   Summary
	Users     []User     // by id
	Intervals []Interval // by user and time
	// Settled says that no more can come: every connection has ended, or was there when the broadcast ended.
	Settled bool
}

const minute = int64(time.Minute / time.Millisecond)

// mostMinutes is of how many minutes of a broadcast the curve has a point: two months.
const mostMinutes = 61 * 24 * 60

// Shape makes of the connections of a room what a broadcast comes to, as far as it is known at a moment. comments are when
// something was said.
func Shape(f *Fold, b Broadcast, asOf int64, comments []int64) Shaped {
	end := b.Ended
	if end == 0 {
		end = max(asOf, b.Began)
	}
	before, during := Range{min(b.Waiting, b.Began), b.Began}, Range{b.Began, end}
	if b.Waiting == 0 {
		before[0] = b.Began
	}
	out := Shaped{Settled: b.Ended > 0}
	sum := &out.Summary
	*sum = Summary{
		Room: b.Room, Broadcast: b.ID, WaitingAt: b.Waiting, BeganAt: b.Began, EndedAt: b.Ended, DurationMS: end - b.Began,
		Devices: map[string]int{}, Minutes: minutes(during),
	}
	people := map[string]*person{}
	for _, s := range f.sessions(asOf, b.Closed) {
		waited := clip([]Range{{s.from, s.to}}, before)
		live := clip([]Range{{s.from, s.to}}, during)
		there := s.from >= during[0] && s.from < during[1] // if only for a moment
		if len(live) == 0 && len(waited) == 0 && !there {
			continue
		}
		if (s.guessed || s.end == "") && s.upTo < end {
			out.Settled = false
		}
		p := people[s.who.User]
		if p == nil {
			p = &person{who: s.who}
			people[s.who.User] = p
		}
		i := interval(b, &s, before, during)
		p.take(&i, &s, live, waited, there, during)
		sum.Intervals++
		if i.Estimated {
			sum.Estimated++
		}
		if s.who.Device != "" {
			sum.Devices[s.who.Device]++
		}
		if !s.who.Totals {
			out.Intervals = append(out.Intervals, i)
		}
	}
	var edges []edge
	for _, id := range slices.Sorted(maps.Keys(people)) {
		p := people[id]
		u := p.user(b, id, sum.DurationMS)
		if u.WaitedMS > 0 {
			sum.Waited++
		}
		if p.live {
			sum.Users++
			if u.Guest {
				sum.Guests++
			}
			sum.ConnectedMS, sum.VisibleMS, sum.PlayedMS = sum.ConnectedMS+u.ConnectedMS, sum.VisibleMS+u.VisibleMS, sum.PlayedMS+u.PlayedMS
			edges = p.count(edges, sum.Minutes, b.Began)
		}
		if p.who.Totals {
			sum.TotalsOnly++
		} else {
			out.Users = append(out.Users, u)
		}
	}
	sum.Peak, sum.PeakAt = peak(edges)
	if sum.DurationMS > 0 {
		sum.Mean = round(float64(sum.ConnectedMS) / float64(sum.DurationMS))
	}
	for _, at := range comments {
		if at >= during[0] && at < during[1] {
			sum.Comments++
			if m := (at - b.Began) / minute; m < int64(len(sum.Minutes)) {
				sum.Minutes[m].Comments++
			}
		}
	}
	return out
}

// round keeps four digits behind the point.
func round(x float64) float64 { return math.Round(x*1e4) / 1e4 }

func minutes(during Range) []Minute {
	all := make([]Minute, min((during[1]-during[0]+minute-1)/minute, mostMinutes))
	for i := range all {
		all[i].At = during[0] + int64(i)*minute
	}
	return all
}

// interval is a connection within a broadcast.
func interval(b Broadcast, s *session, before, during Range) Interval {
	whole := Range{before[0], during[1]}
	i := Interval{
		Room: b.Room, Broadcast: b.ID, User: s.who.User, Name: s.who.Name, Guest: s.who.Guest, Session: s.who.Session, Node: s.life, Conn: s.conn, Device: s.who.Device,
		From: max(s.from, whole[0]), To: min(s.to, whole[1]), End: string(s.end), Estimated: s.guessed,
	}
	if b.Ended > 0 && s.to >= b.Ended {
		i.End, i.Estimated = string(EndEnded), false
	}
	self := []Range{{s.from, s.to}}
	i.ConnectedMS, i.WaitedMS = total(clip(self, during)), total(clip(self, before))
	for _, r := range clip(s.visible, during) {
		i.Visible = append(i.Visible, Span{r[0], r[1]})
		i.VisibleMS += r[1] - r[0]
	}
	for _, p := range clipPlayed(s.played, during) {
		i.Media = append(i.Media, Media{p[0], p[1], p[2], p[3]})
		i.PlayedMS += p.duration()
	}
	return i
}

// person gathers the connections of a user.
type person struct {
	who                                Row
	live                               bool // was there during the broadcast
	connected, waited, visible, played []Range
	playedMS                           int64
	first, last                        int64
	connections                        int
	estimated                          bool
}

func (p *person) take(i *Interval, s *session, live, waited []Range, there bool, during Range) {
	if s.who.Name != "" {
		p.who.Name = s.who.Name // the latest
	}
	p.connected, p.waited = append(p.connected, live...), append(p.waited, waited...)
	p.visible = append(p.visible, clip(s.visible, during)...)
	for _, x := range clipPlayed(s.played, during) {
		p.played = append(p.played, Range{x[0], x[1]})
		p.playedMS += x.duration()
	}
	from, to := i.From, i.To
	if len(live) > 0 || there {
		from = max(from, during[0])
		if !p.live {
			p.first, p.last = from, to
		}
		p.live = true
	} else if p.live {
		from, to = p.first, p.last // they waited, and came again later
	}
	if p.connections == 0 {
		p.first, p.last = from, to
	}
	p.first, p.last = min(p.first, from), max(p.last, to)
	p.connections++
	p.estimated = p.estimated || i.Estimated
}

func (p *person) user(b Broadcast, id string, duration int64) User {
	p.connected = union(p.connected, 0)
	u := User{
		Room: b.Room, Broadcast: b.ID, ID: id, Name: p.who.Name, Guest: p.who.Guest, From: p.first, To: p.last, Connections: p.connections, Estimated: p.estimated,
		ConnectedMS: total(p.connected), WaitedMS: total(union(p.waited, 0)), VisibleMS: total(union(p.visible, 0)),
		// What two devices play at the same time counts once.
		PlayedMS: min(p.playedMS, total(union(p.played, 0))),
	}
	if duration > 0 {
		u.Share = round(float64(u.ConnectedMS) / float64(duration))
	}
	return u
}

// count notes in which minutes a user was there, and when the user came and went.
func (p *person) count(edges []edge, all []Minute, began int64) []edge {
	there := make(map[int64]bool, len(p.connected))
	for _, r := range p.connected {
		edges = append(edges, edge{r[0], 1}, edge{r[1], -1})
		for m := (r[0] - began) / minute; m <= (r[1]-1-began)/minute && m < int64(len(all)); m++ {
			there[m] = true
		}
	}
	for m := range there {
		all[m].Users++
		if there[0] {
			all[m].Stayed++
		}
	}
	return edges
}

type edge struct {
	at int64
	by int
}

// peak is the most users at a moment, and the first such moment.
func peak(edges []edge) (most int, at int64) {
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.by, b.by)) })
	n := 0
	for _, e := range edges {
		if n += e.by; n > most {
			most, at = n, e.at
		}
	}
	return most, at
}

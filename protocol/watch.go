package protocol

import (
	"net/url"
	"strconv"
	"time"
)

// This file has the watch log: who watched a broadcast for how long.

// WatchLog is the answer to GET /v1/rooms/{room}/watchlog. Times are Unix milliseconds, by the log's clock.
type WatchLog struct {
	Broadcast string       `json:"broadcast"`          // its number; 0-<start> where the room is never set
	Revision  int          `json:"revision,omitempty"` // that was archived; 0: none was
	Final     bool         `json:"final"`              // no more can come
	Summary   WatchSummary `json:"summary"`
	Users     []WatchUser  `json:"users"` // by id
}

// WatchUser is a user during a broadcast, over all devices and connections.
type WatchUser struct {
	ID          string  `json:"id"`
	Name        string  `json:"name,omitempty"`
	Guest       bool    `json:"guest,omitempty"`
	From        int64   `json:"from"`
	To          int64   `json:"to"`
	ConnectedMS int64   `json:"connected_ms"`
	VisibleMS   int64   `json:"visible_ms"`
	PlayedMS    int64   `json:"played_ms"`
	WaitedMS    int64   `json:"waited_ms,omitempty"` // before the broadcast began
	Share       float64 `json:"share"`               // connected of the duration, 0 to 1
	Connections int     `json:"connections"`
	Estimated   bool    `json:"estimated,omitempty"` // some of it
}

// WatchMinute is a minute of a broadcast.
type WatchMinute struct {
	At       int64 `json:"at"`       // when it began
	Users    int   `json:"users"`    // who were there in it, if only for a moment
	Stayed   int   `json:"stayed"`   // of those who were there in the first minute
	Comments int   `json:"comments"` // that were said
}

// WatchSummary is a broadcast as a whole.
type WatchSummary struct {
	Room       string `json:"room"`
	Broadcast  string `json:"broadcast"`
	WaitingAt  int64  `json:"waiting_at,omitempty"` // since when viewers waited
	BeganAt    int64  `json:"began_at"`
	EndedAt    int64  `json:"ended_at,omitempty"` // left out: it runs
	DurationMS int64  `json:"duration_ms"`        // the denominator of the users' shares
	Users      int    `json:"users"`              // distinct, who were there during the broadcast
	Guests     int    `json:"guests"`             // of these
	Waited     int    `json:"waited"`             // users who were there before it
	Peak       int    `json:"peak_users"`         // the most at one moment
	PeakAt     int64  `json:"peak_at,omitempty"`
	// Mean is how many users were there on an average: their connected times together, divided by the duration.
	Mean        float64        `json:"mean_users"`
	ConnectedMS int64          `json:"connected_ms"` // of all users
	VisibleMS   int64          `json:"visible_ms"`
	PlayedMS    int64          `json:"played_ms"`
	Comments    int            `json:"comments"`
	Intervals   int            `json:"intervals"` // connections
	Estimated   int            `json:"estimated"` // intervals whose end is estimated
	Devices     map[string]int `json:"devices"`   // connections by class
	Minutes     []WatchMinute  `json:"minutes"`
	// TotalsOnly is how many users are not listed, for the room kept no more than totals of them.
	TotalsOnly int `json:"totals_only,omitempty"`
}

// Broadcasts is the answer to GET /v1/rooms/{room}/broadcasts: those of a room, the latest first.
type Broadcasts struct {
	Broadcasts []BroadcastEntry `json:"broadcasts"`
}

// BroadcastEntry is a broadcast of a room.
type BroadcastEntry struct {
	Broadcast string `json:"broadcast"`
	BeganAt   int64  `json:"began_at"`
	EndedAt   int64  `json:"ended_at,omitempty"` // left out: it runs
	Revision  int    `json:"revision,omitempty"` // that was archived; left out: none was
	Final     bool   `json:"final,omitempty"`
}

// WatchQuery asks for a watch log.
type WatchQuery struct {
	Broadcast string         // empty: the current one, else the latest
	MinShare  float64        // users with that share at least
	Zone      *time.Location // of the times in CSV
	Users     bool           // are wanted
}

// DecodeWatchQuery reads the query of GET /v1/rooms/{room}/watchlog. Its error is an *[Error].
func DecodeWatchQuery(raw string) (WatchQuery, error) {
	q := WatchQuery{Zone: time.UTC, Users: true}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, bad("the query cannot be read")
	}
	for name, all := range values {
		v := all[0]
		if len(all) > 1 {
			return q, bad("%s appears twice", name)
		}
		switch name {
		case "broadcast":
			if !validBroadcast(v) {
				return q, bad("broadcast must be the number of one, or 0-<start>")
			}
			q.Broadcast = v
		case "min_share":
			if q.MinShare, err = strconv.ParseFloat(v, 64); err != nil || !(q.MinShare >= 0 && q.MinShare <= 1) {
				return q, bad("min_share must be a number from 0 to 1")
			}
		case "tz":
			if q.Zone, err = time.LoadLocation(v); err != nil || v == "Local" {
				return q, bad("tz must be a time zone such as Asia/Tokyo")
			}
		case "users":
			if v != "0" && v != "1" {
				return q, bad("users must be 0 or 1")
			}
			q.Users = v == "1"
		}
	}
	return q, nil
}

// validBroadcast reports whether s may name a broadcast.
func validBroadcast(s string) bool {
	digits := func(s string) bool {
		_, err := strconv.ParseUint(s, 10, 63)
		return err == nil && s[0] != '+'
	}
	if len(s) > 2 && s[:2] == "0-" {
		return digits(s[2:])
	}
	return s != "" && digits(s)
}

package socket

import (
	"log/slog"
	"time"
)

// Config says how a [Server] treats its connections. The zero value of a field
// gets the default named beside it.
type Config struct {
	// Deflate offers permessage-deflate, without context takeover, to peers that
	// ask for it.
	Deflate bool
	// MaxMessage is the most bytes a peer's message may have, inflated: 8192.
	MaxMessage int
	// MaxLong is the same for peers of whom [Conn.Lengthen] says so: as MaxMessage, at least.
	MaxLong int

	// PingAfter is the silence after which the peer is sent a ping: 60 s.
	PingAfter time.Duration
	// SilenceLimit is the silence after which the connection is closed: 100 s.
	SilenceLimit time.Duration
	// MessageTimeout is how long a message may take from its first byte to its
	// last: 10 s.
	MessageTimeout time.Duration
	// WriteTimeout is how long a peer that has something to take may take nothing
	// at all: 20 s. It is seen to in steps of 4 KiB.
	WriteTimeout time.Duration
	// CloseTimeout is how long a peer has to take a close frame and to end the
	// connection, before it is ended for it: 5 s.
	CloseTimeout time.Duration

	// SendBuffer is the size of the kernel's send buffer in bytes (SO_SNDBUF);
	// left to the kernel by default.
	SendBuffer int
	// NotSentLowat bounds what the kernel takes and has not sent yet, in bytes
	// (TCP_NOTSENT_LOWAT, on Linux only): 16384. Below 0 there is no such bound.
	NotSentLowat int

	// Metrics counts; by default nobody sees it.
	Metrics *Metrics
	// Logger gets a line when Close has to end connections by force; by default
	// slog.Default().
	Logger *slog.Logger

	// portable has every connection held as one without a descriptor is.
	portable bool
}

func (c Config) withDefaults() Config {
	number := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	duration := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	if c.MaxMessage < 0 {
		c.MaxMessage = 0
	}
	number(&c.MaxMessage, 8192)
	number(&c.NotSentLowat, 16<<10)
	duration(&c.PingAfter, 60*time.Second)
	duration(&c.SilenceLimit, 100*time.Second)
	duration(&c.MessageTimeout, 10*time.Second)
	duration(&c.WriteTimeout, 20*time.Second)
	duration(&c.CloseTimeout, 5*time.Second)
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// tick is how often the wheel turns: once a second, or four times within the
// shortest of the limits if that is less than 4 s.
func (c Config) tick() time.Duration {
	shortest := min(c.PingAfter, c.SilenceLimit, c.MessageTimeout, c.WriteTimeout, c.CloseTimeout)
	return max(min(shortest/4, time.Second), 5*time.Millisecond)
}

// refuseTimeout is CloseTimeout for a peer that is refused: time enough for a close
// frame to go to the end of the world and come back.
const refuseTimeout = 2 * time.Second

// limits are the durations of a Config in ticks, one more than needed: what
// happened within a tick counts as having happened at its beginning.
type limits struct {
	ping, silence, message, write, close, refuse uint32
}

func (c Config) limits() limits {
	tick := c.tick()
	in := func(d time.Duration) uint32 { return uint32((d+tick-1)/tick) + 1 }
	return limits{
		ping:    in(c.PingAfter),
		silence: in(c.SilenceLimit),
		message: in(c.MessageTimeout),
		write:   in(c.WriteTimeout),
		close:   in(c.CloseTimeout),
		refuse:  in(min(refuseTimeout, c.CloseTimeout)),
	}
}

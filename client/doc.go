// Package client is the Go client of a Kansei room.
//
// It has two layers. A [Conn] is one WebSocket connection: [Dial] opens it,
// [Conn.Read] and [Conn.Send] exchange the messages of package protocol, and
// it ends when either side ends it. A [Client] is a place in a room that
// outlives connections: [Client.Run] dials, beats, and comes back, after any
// loss that the contract lets it come back from, to the next of its addresses
// with its session and its cursor, so that it goes on where it stopped. A node that
// says that it is leaving is left only when another has taken the client in.
// [Client.Comment] publishes across such losses. A program that learns that the
// network is back, or that the device was asleep, says so with [Client.Wake].
//
// What happens is told through the callbacks of a [Handler], all of which Run
// makes from its own goroutine, one at a time. Nothing is lost silently: what
// the server did not send is a Gap, and a cursor that it could not continue
// from is NotRecovered.
//
// A connection costs one goroutine, the caller's of Run, besides the timers of
// its beats, whose functions Run waits for before it returns.
package client

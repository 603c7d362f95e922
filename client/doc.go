// Package client is the Go client of a Kansei room.
//
// It has two layers. A [Conn] is one WebSocket connection: [Dial] opens it,
// [Conn.Read] and [Conn.Send] exchange the messages of package protocol, and
// it ends when either side ends it. A [Client] is a place in a room that
// outlives connections. [Client.Run] dials, sends beats, and after a loss reconnects to
// the next of its addresses, with its session and its cursor, so that it goes on where it
// stopped; unless the contract says that there is no use in it. It leaves a node that drains
// only when another has let it in. [Client.Comment] publishes across such losses. A program
// that learns that the network is back, or that the device was asleep, calls [Client.Wake].
//
// Run calls the functions of a [Handler] from its own goroutine, one at a time. Nothing is
// lost silently: what the server did not send is a Gap, and a cursor that it could not
// continue from is NotRecovered.
//
// A connection costs one goroutine, the caller's of Run, besides the timers of
// its beats, whose functions Run waits for before it returns.
package client

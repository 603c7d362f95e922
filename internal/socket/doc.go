// Package socket moves WebSocket frames in and out of the connections of one
// node's viewers (RFC 6455, and RFC 7692 without context takeover).
//
// A [Server] holds all connections. [Server.Accept] has coder/websocket do the
// handshake and keeps nothing of it but the network connection: holding many
// viewers cheaply is what this package is for. [Conn.Start] begins to read; what
// the peer says reaches the [Handler], what the handler's [hub.Source] has to say
// is fetched and written when [Conn.Flush] is called.
//
// # Writing
//
// Frames come ready from [Prepare], are shared by all connections and never
// changed. Whoever holds a connection's token (busy) is its one writer. It asks
// the control slots (the latest pong, a ping), then the source, then for a close
// frame, after which nothing follows, and hands all of that to the kernel in one
// system call that does not wait. Who comes while the token is taken leaves a mark
// that the holder sees before it gives the token back. When the kernel does not
// take all of it, the turn waits, token in hand, until a poll says that the peer
// takes something again; it goes on fetching until nothing is left.
//
// # Reading
//
// A decoder of a few words a connection takes whatever bytes there are, in pieces
// of any size; it holds memory only within an unfinished frame or message. The
// reader is whoever runs a connection's turn of reading: a goroutine that a poll
// starts when there is something to read, and that asks for the next report when it
// has taken it. An idle viewer has no goroutine and no buffer. Messages are for the
// handler to limit; frames that bring none are counted here, within a tick. The reader
// owns the end as well: it waits for the writer's token, closes the descriptor, forgets
// the connection, and reports [Handler.Closed].
//
// # Descriptors
//
// On Linux a TCP connection is its descriptor and nothing else: it is taken from
// package net, whose connection is closed, and closed by the reader at the end,
// when nobody writes any more. Until then others than the reader and the writer use
// it only under the connection's lock. Two epoll instances, each with one goroutine,
// report once each time they are asked: one that there is something to read, the
// other, known to connections that are behind only, that the peer takes something.
//
// TLS in this process, connections that hide what they are and other systems have
// no such descriptor. There a goroutine a connection reads, and one that exists
// only while there is something to write writes.
//
// # Time
//
// There is no timer and no deadline per connection. One goroutine a server turns a
// wheel, about once a second, and looks at the connections that are due: silent
// ones get a ping and then a close frame, unfinished messages and writes without
// progress get a close frame, and connections that were told to close are ended
// when their peer does not end them. A tick counts as one however late it is: a
// node that was suspended does not blame its viewers.
//
// # Closing
//
// The close frame goes out behind what was written; nothing follows it, and input is
// searched for the peer's alone. When that has come too, or cannot come any more
// because the peer broke the protocol, the sending side is shut. Then input is
// discarded until its end or the deadline, so that the frame is not lost to a reset.
// The sending side is not shut earlier: Firefox forgets messages that it has not
// shown yet when it finds the end before it has closed, and calls the end unclean.
// The first reason to close is the one that counts.
package socket

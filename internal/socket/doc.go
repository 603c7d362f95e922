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
// Frames come ready in the forms [Plain] and [Deflated], are shared by all connections and
// never changed. The holder of a connection's token is its one writer (write.go has the states).
// It takes the control frames that wait (the latest pong, a ping), then what the source has, then
// a close frame, after which nothing follows, and hands all of that to the kernel in one
// system call that does not wait. What the kernel does not take waits, with the token, until a
// poll says that the peer takes something again.
//
// # Reading
//
// A decoder of a few words a connection takes whatever bytes there are, in pieces
// of any size; it holds memory only within an unfinished frame or message. The reader is a
// goroutine that a poll starts when there is something to read, and that asks for the next
// report when it has taken it. An idle viewer has no goroutine and no buffer. The handler
// limits messages; frames that bring none are counted here, within a tick.
//
// # Descriptors
//
// On Linux a TCP connection is its descriptor and nothing else: it is taken from
// package net, whose connection is closed. The reader closes it at the end, when nobody writes
// any more. Until then others than the reader and the writer use it only under the
// connection's lock. Two epoll instances, each with one goroutine, report once each time they
// are asked: one that there is something to read, the other, which knows only connections that
// are behind, that the peer takes something.
//
// TLS in this process, connections that hide what they are, and other systems have
// no such descriptor. There a goroutine a connection reads, and one that exists
// only while there is something to write writes.
//
// # Time
//
// There is no timer and no deadline per connection. One goroutine a server turns a
// wheel, about once a second, and looks at the connections that are due: silent
// ones get a ping and then a close frame; unfinished messages and writes without
// progress get a close frame; and connections that were closed are aborted when their peer does
// not end them. A tick counts as one however late it is: a node that was suspended does not
// blame its viewers.
//
// # Closing
//
// There are three steps, each its own verb:
//
//	Close   sends a close frame behind what was written. Nothing follows it, and input is
//	        searched for the peer's close frame alone. The first reason to close counts.
//	abort   ends the network connection at once: the deadline has passed, or the peer is gone.
//	finish  is the reader's: the input has ended. It waits for the writer's token, closes the
//	        descriptor, forgets the connection, and calls [Handler.Closed].
//
// Between Close and finish, when both close frames have passed, or the peer broke the protocol so
// that its frame cannot come any more, the sending side is ended. Then input is discarded until
// its end or the deadline, so that the close frame is not lost to a reset. The sending side is not
// ended earlier: Firefox forgets messages that it has not shown yet when it finds the end before
// it has closed, and calls the end unclean.
package socket

// Package natslog keeps the log and the state of every room in NATS JetStream: it
// is the [hub.RoomLog] of every node.
//
// # What is stored
//
// Rooms are spread over partitions by a hash of their names. A partition is a stream,
// KANSEI_LOG_0, KANSEI_LOG_1, …, with one subject for each room: kansei.log.<partition>.<room>.
// The payload of a record is the body of its event. Kind and audience are headers, which a comment
// for all does without. The position of a record is its sequence in the stream, and its time is the
// server's. Its id is that of the draft: by it the stream knows a second try, so ids are unique
// over all rooms. The stream KANSEI_STATE keeps the last message of each subject
// kansei.state.<room>, whatever its age: the state of the room (state.go). ARCHITECTURE.md,
// "Layout of what is stored", has all streams and subjects, those of later versions too.
//
// Each stream has an epoch: a random id in its metadata, from the node that created it. Every
// stream republishes what it has stored to kansei.live.<epoch>.<partition>.<room>, or
// kansei.live.<epoch>.state.<room>. So a subscription never hears another log than the one that
// it was made for.
//
// A node creates the streams that are not there, unless it is told to wait for them. It changes
// nothing in streams that are there, and works with them as they are, whatever its own settings
// say: compare.go judges each difference. Nodes of several versions share streams (layout.go) and
// records (schema.go). Servers older than 2.11 (version.go) and mirrors that answer for a stream
// (mirror.go) are not relied on.
//
// # How a room is followed
//
// What is republished is a hint: it may be lost, late or doubled. The log is the
// truth, and the stream's leader knows where it ends. Each live message bears its
// position and that of the one before it in its room; a follow compares them with
// what it had:
//
//	position ≤ had      it was shown already: drop it
//	previous > had      there is a gap: hold this one and all later ones, read back
//	otherwise           show it
//
// (Equality would be wrong: the previous position falls when messages are deleted.)
// Warming a room up, repairing a gap and coming back after a cut are one routine;
// it is written down where it is implemented, at follow.warmUp and stream.read.
//
// A loss at the tail has no later message to betray it. So each stream with open
// rooms is tended once a second (stream.tick): its leader tells the stream's
// identity and end, and if that has moved, a direct get tells the last message of
// each of the node's rooms that changed. Rooms that are behind are repaired. A loss
// right behind one tick is found by the next, 1.1 s later at the most, from beginning to
// beginning; 0.2 s more are given to a live message that is only late, and up to 0.2 s
// to replicas that are. What is left is the requests and the reading.
//
// A reader that goes backwards (Log.Before) gets a page that ends at a place. Nothing in JetStream
// tells which record of a room precedes another, so where the page begins is found by
// counting (stream.narrow), as it is for the latest records of a room that is opened.
//
// # What is removed
//
// The log keeps events for a time, or up to a size. A reader behind a position is
// told when the log does not reach back to it (Log.Read), which is asked when the reading
// is done; and followers are told of what was removed before it was shown
// to them: while it was read back (follow.readBack), or, if nothing was left of it to be
// found missing, because the log begins behind what the last probe knew (stream.probe).
//
// # What is lost
//
// A stream that was restored from a backup, or whose servers lost power before they had
// synced, gives its positions again, under the same epoch. So a place in the log is a
// position and the time of the record there ([hub.Position]): a record whose position and
// time the log does not have is of another past. Log.Read and Log.Has ask the leader.
//
// A node that was running keeps what it knew, and would drop what is said at positions that
// it has had. So each tick compares the record with which the log ended at the last one. A live
// message, an acknowledgement or a direct get that contradicts what is known has the stream
// compared at once (stream.suspect, stream.compareEnds). Every room is then begun anew. The
// revision of a state bears a hash, for the same reason (state.go).
//
// # Who does what
//
//	Log       readiness; start and end
//	natsconn  the connection, requests and their answers
//	appender  appends: one goroutine publishes, one keeps the deadlines
//	stream    one JetStream stream: one goroutine tends it, one moves its live messages to
//	          their rooms; a pool of workers reads back
//	follow    one room that is followed; it has no goroutine
//	pool      a bounded number of workers, which exist while there is work
//
// One worker at a time works for a follow: the goroutine that moves live messages, when they
// are few; a worker of the log's pool, when there is only something to report; a worker of its
// stream's pool, when something must be read. So the reports of a room come in order, and rooms
// do not wait for each other. Stop and the reports meet at follow.reporting.
//
// An append is described at appender; when its outcome is known, at draft.refused.
//
// # Where to find it
//
//	connection and requests  natsconn; get.go, cause.go, metrics.go
//	streams                  stream.go, bind.go, tail.go: looking after one
//	                         names.go, layout.go, compare.go, version.go: what it is and should be
//	                         replicas.go, mirror.go, permission.go: what may be wrong with it
//	following                follow.go, follow_state.go, pool.go, warm.go: live, and read back
//	                         read.go, before.go: for resumes, polls and pages
//	                         record.go, schema.go: what a record holds
//	appending                append.go, ack.go, barred.go; state.go for states
//
// Streams, follows and the appender are one package because they share positions and locks: a
// tick compares what all three know of the log's end.
//
// Locks are taken in the order stream, follow, pool. None is held during a request;
// during a report only follow.reporting is.
package natslog

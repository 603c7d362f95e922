// Package natslog keeps the log and the state of every room in NATS JetStream: it
// is the [hub.RoomLog] of every node.
//
// # What is stored
//
// The rooms are spread by a hash of their names over the partitions: streams
// KANSEI_LOG_0, KANSEI_LOG_1, … with a subject for each room,
// kansei.log.<partition>.<room>. A record's payload is the body of its event; its
// kind and audience are headers, left out for a comment for all. Its position is
// its sequence in the stream, its time is the server's. Its id is the draft's, by
// which the stream knows a second try; ids are therefore unique over all rooms. The stream
// KANSEI_STATE keeps the last message of each subject kansei.state.<room>, without an age
// limit: the room's state, whose revision is made of its sequence in that stream and a hash
// of its id (state.go).
//
// Each stream has an epoch: a random id that whoever creates the stream puts into
// its metadata, beside the number of partitions. Every stream republishes what it
// has stored to kansei.live.<epoch>.<partition>.<room> (kansei.live.<epoch>.state.<room>
// for states), so that a subscription never hears another log than the one that it
// was made for.
//
// A node makes the streams that are not there, unless it is told to wait for them, and
// changes nothing in those that are. It does its work by what a stream is, whatever its own
// settings say: compare.go judges each difference. Nodes of several versions share streams
// (layout.go) and records (schema.go). Servers older than 2.11 (version.go) and
// mirrors that answer for a stream (mirror.go) are not relied on.
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
// Who reads backwards (Log.Before) gets a page that ends at a place. Nothing in JetStream
// tells which record of a room precedes another, so where the page begins is found by
// counting (stream.narrow), as it is for the latest records of a room that is opened.
//
// # What is removed
//
// The log keeps events for a time, or up to a size. Whoever reads behind a position is
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
// A node that was there keeps what it knew, and would drop what is said at positions that
// it has had. Each tick compares the record with which the log ended at the last one, and a
// live message, an acknowledgement or a direct get that cannot be of the past that is
// known has the stream looked at at once (stream.suspect, stream.compareEnds). Every room
// is then begun anew. The revision of a state bears a hash, for the same reason (state.go).
//
// # Who does what
//
//	Log       the connection; readiness; start and end
//	appender  appends: one goroutine publishes, one keeps the deadlines
//	caller    requests and their answers, over one inbox
//	dialer    the network connection; reads are paced when there are very many
//	stream    one JetStream stream: two goroutines, one tends it, one moves its live
//	          messages to the rooms they are for; a pool of workers that read back
//	follow    one room that is followed: no goroutine; whoever works for it owns it
//	pool      a bounded number of workers, which exist while there is work
//
// A follow is worked for by one worker at a time: whoever moves live messages, when
// they are few, or of the log's pool while there is only something to report, of its
// stream's pool while something must be read.
// That is what puts the reports of a room in order and keeps rooms from waiting for
// each other. Stop and the reports meet at follow.reporting.
//
// An append is described at appender; when its outcome is known, at draft.refused.
//
// Locks are taken in the order stream, follow, pool. None is held during a request;
// during a report only follow.reporting is.
package natslog

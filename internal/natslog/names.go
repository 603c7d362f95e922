package natslog

import (
	"strconv"
	"strings"
)

// The names of all streams and subjects are in ARCHITECTURE.md, "Layout of what is stored".
// Those that this version uses are made here, and nowhere else.

// naming makes the names of streams and subjects.
type naming struct{ prefix string }

func (n naming) logStream(partition int) string {
	return strings.ToUpper(n.prefix) + "_LOG_" + strconv.Itoa(partition)
}
func (n naming) stateStream() string   { return strings.ToUpper(n.prefix) + "_STATE" }
func (n naming) feedStream() string    { return strings.ToUpper(n.prefix) + "_FEED" }
func (n naming) configStream() string  { return strings.ToUpper(n.prefix) + "_CONFIG" }
func (n naming) modlogStream() string  { return strings.ToUpper(n.prefix) + "_MODLOG" }
func (n naming) watchStream() string   { return strings.ToUpper(n.prefix) + "_WATCH" }
func (n naming) archiveStream() string { return strings.ToUpper(n.prefix) + "_ARCHIVE" }
func (n naming) dayKeyStream() string  { return strings.ToUpper(n.prefix) + "_DAYKEY" }

// logSubjects and stateSubjects are what precedes the room in the subjects of records. What
// belongs to a room (its acts) follows the room's state, behind another dot.
func (n naming) logSubjects(partition int) string {
	return n.prefix + ".log." + strconv.Itoa(partition) + "."
}
func (n naming) stateSubjects() string { return n.prefix + ".state." }

// feedSubjects is what all subjects of events for back ends begin with.
func (n naming) feedSubjects() string { return n.prefix + ".feed." }

// configSubjects is what all subjects of what belongs to no room begin with.
func (n naming) configSubjects() string { return n.prefix + ".config." }

// dayKeySubjects is what precedes the day in the subjects of keys.
func (n naming) dayKeySubjects() string { return n.prefix + ".daykey." }

// modlogSubjects is what precedes the room in the subjects of the log of moderation.
func (n naming) modlogSubjects() string { return n.prefix + ".modlog." }

// watchSubjects is what precedes the room in the subjects of the watch log.
func (n naming) watchSubjects() string { return n.prefix + ".watch." }

// archiveSubjects is what precedes room and broadcast in the subjects of archived broadcasts.
func (n naming) archiveSubjects() string { return n.prefix + ".archive." }

// liveSubjects is what precedes the room in the subjects of republished records;
// section is the partition, or "state".
func (n naming) liveSubjects(epoch, section string) string {
	return n.prefix + ".live." + epoch + "." + section + "."
}

// inboxes is what the subjects begin with on which NATS answers this node. They begin like those
// of any client, but are of a prefix's own, so that a user can be granted no others.
func (n naming) inboxes() string { return "_INBOX." + n.prefix }

// partition is the partition of a room: FNV-1a of its name, 64 bits, modulo their
// number. It must never change: it says where the rooms' events are.
func partition(room string, partitions int) int {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(room) {
		h = (h ^ uint64(room[i])) * prime
	}
	return int(h % uint64(partitions))
}

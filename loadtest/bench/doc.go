// Package bench measures one node of kansei against a bare program: the goals of
// the fan-out, each as a scenario that prints its figure.
//
// A [Command] is a run: its fields are the flags of "kansei bench". How the parts
// work together:
//
//   - The run (run_linux.go) starts children on loopback: NATS and Redis, a node, and
//     the floor. What a process costs is what the kernel says of it (process_linux.go).
//   - The floor (floor_linux.go, which is also "kansei floor") is the bare program: it
//     accepts WebSockets with coder/websocket and writes the same ready bytes to
//     all of them in a loop of write(2).
//   - The crowd (crowd_linux.go, viewer_linux.go) is the other end of all connections: one
//     goroutine on epoll, a hundred bytes a viewer, so that it takes as little as
//     possible of the machine that it shares with what is measured. It looks into
//     every frame, once for all viewers that get the same one, and times every comment.
//   - Comments bear the number of their window and their own number in their text, and
//     are due at a time that follows from these: latency is from then to the viewer, of
//     the node and of the floor alike.
//   - Scenarios (scenario_*.go) measure in pairs (stage_linux.go): a window of the node
//     (window_linux.go) and one of the floor, one after the other, every other time the
//     other way round, with all connections of both open. A goal holds for the median.
//   - The report (report.go) is a table, or one JSON document.
//
// The node's own engines would be inside its process: with nats-server and redis-server
// in PATH or beside the program they are processes of their own, so that a figure is the
// node's alone. What is inside a figure of CPU: everything that the node's process does in
// the window, its client of NATS, the collector, and the comments that come in through it.
package bench

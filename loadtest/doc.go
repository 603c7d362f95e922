// Package loadtest fills a room with virtual viewers, publishes comments to it,
// and checks for every viewer that it received every comment, once, in order.
//
// A [Command] is a run: its fields are the flags of "kansei load". It knows the
// wire contract (package protocol) and its client (package client), and nothing
// of how the server is made.
//
// How the parts work together:
//
//   - The plan (plan.go, text.go) is the list of comments with the times at which
//     they are due: a trace file, or generated text at a fixed rate.
//   - Publishers (publish.go) send each comment when it is due and record what was
//     acknowledged, under the due time: a late sender does not hide a slow server.
//   - Each viewer (viewer.go) is a client.Client and one goroutine, and hands the
//     bytes of each frame to the checker.
//   - The checker (check.go, order.go, frames.go) keeps one order of comments for
//     the room, merged out of what all viewers received. A frame that many viewers
//     receive is parsed once; a viewer is a position in that order and a count, so
//     that checking costs the same few nanoseconds however many comments there were.
//     Memory is about 150 bytes per comment for the whole run, and little per viewer.
//   - The report (report.go) says what was measured and which checks failed.
//
// What is checked: that everybody could join and stay, that every comment was
// answered and none refused for another reason than its text, that what was
// acknowledged was seen, and seen once under one id, and for every viewer that it
// misses nothing that was acknowledged and sent after its welcome, sees nothing
// twice and nothing out of order, and is told of no gap and of no cursor that
// could not be continued from.
package loadtest

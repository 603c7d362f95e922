// Package embedded holds the servers that a node runs in its own process when it
// is told of no others: NATS with JetStream, for the room log, and Redis, for the
// presence. They serve this one node; what the log keeps outlives it when it has a
// directory.
package embedded

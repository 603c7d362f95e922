// Package hub holds one node's rooms.
package hub

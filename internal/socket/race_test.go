//go:build race

package socket

// raceEnabled: pools drop things at random under the race detector.
const raceEnabled = true

package natsconn

import (
	"errors"
	"testing"
)

func TestParseViolation(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Violation{
		`nats: permissions violation: Permissions Violation for Publish to "kansei.log.0.r"`:                   {false, "kansei.log.0.r"},
		`nats: permissions violation: Permissions Violation for Subscription to "kansei.live.x.0.r" (sid "3")`: {true, "kansei.live.x.0.r"},
		`nats: permissions violation: permissions violation for subscription to "a" using queue "q"`:           {true, "a"},
		`nats: permissions violation: Permissions Violation for Publish with Reply of "_R_"`:                   {},
		`nats: permissions violation`: {},
	} {
		if got, ok := parseViolation(errors.New(text)); got != want || ok != (want != Violation{}) {
			t.Errorf("%s: %v, %t", text, got, ok)
		}
	}
}

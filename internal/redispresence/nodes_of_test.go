package redispresence

import (
	"fmt"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
)

// On how many nodes users are is told for all at once.
func TestNodesOfUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node(), w.node()
	va, vb := a.open("r"), b.open("r")
	for _, u := range []string{"both", "a", "twice"} {
		va.Membership.Join(hub.Member{ID: u})
	}
	va.Membership.Join(hub.Member{ID: "twice"})
	vb.Membership.Join(hub.Member{ID: "both"})
	w.mustRound(a, b)
	w.pass(time.Second)
	w.mustRound(a, b)
	got, err := a.Nodes(t.Context(), "r", []string{"both", "a", "twice", "nobody"})
	if err != nil || fmt.Sprint(got) != "[2 1 1 0]" {
		t.Errorf("%v, %v", got, err)
	}
}

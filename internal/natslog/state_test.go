package natslog

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// A change that was done is not a conflict when it is tried again: by a client whose
// connection died, on any node, at once or when others have followed, and when the
// stream has forgotten its id.
func TestChangeOfStateTriedAgain(t *testing.T) {
	t.Parallel()
	s := startRestorable(t)
	a, b := openReady(t, Config{URLs: urls(s.Server)}), openReady(t, Config{URLs: urls(s.Server)})
	ctx := testContext(t)
	title := func(i int) []byte { return fmt.Appendf(nil, `{"title":"%d"}`, i) }
	revs := []uint64{0}
	set := func(i int) {
		t.Helper()
		rev, err := setState(ctx, a, "r", revs[i], title(i))
		if err != nil || rev <= revs[i] || rev >= 1<<53 {
			t.Fatalf("change %d: %d after %d, %v", i, rev, revs[i], err)
		}
		revs = append(revs, rev)
	}
	again := func(i int) {
		t.Helper()
		if rev, err := setState(ctx, b, "r", revs[i], title(i)); err != nil || rev != revs[i+1] {
			t.Errorf("change %d again, after %d others: %d, %v; wanted %d", i, len(revs)-i-2, rev, err, revs[i+1])
		}
		if rev, err := setState(ctx, b, "r", revs[i], title(100)); !errors.Is(err, hub.ErrConflict) {
			t.Errorf("another change of the same revision: %d, %v", rev, err)
		}
	}
	for i := range pastChanges + 1 {
		set(i)
		for j := range i + 1 {
			again(j)
		}
	}
	if rev, err := setState(ctx, b, "r", revs[1], title(0)); !errors.Is(err, hub.ErrConflict) {
		t.Errorf("the same state, based on another: %d, %v", rev, err)
	}
	set(pastChanges + 1)
	if rev, err := setState(ctx, b, "r", revs[0], title(0)); !errors.Is(err, hub.ErrConflict) {
		t.Errorf("a change that too many have followed: %d, %v", rev, err)
	}

	// The state is removed by an operator: what is said then is done, and not a duplicate.
	js := jetStream(t, s.ClientURL())
	st, err := js.Stream(ctx, "KANSEI_STATE")
	if err == nil {
		err = st.Purge(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	rev, err := setState(ctx, a, "r", 0, title(0))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.State(ctx, "r"); err != nil || got.Rev != rev || string(got.Body) != string(title(0)) {
		t.Errorf("after a purge: %+v, %v; wanted revision %d", got, err, rev)
	}
}

// The first try of a change is done, but not answered; another change follows it; and the
// next try finds the room at a revision that is neither. It was done all the same.
func TestChangeOfStateThatOthersFollow(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l, other := openReady(t, Config{URLs: urls(s)}), openReady(t, Config{URLs: urls(s)})
	ctx := testContext(t)
	mine := []byte(`{"title":"mine"}`)
	rev, err := setState(ctx, other, "r", 0, mine)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := setState(ctx, other, "r", rev, []byte(`{"title":"theirs"}`)); err != nil {
		t.Fatal(err)
	}
	// l has asked before that, and its try is refused.
	a, _ := scripted(t, l, s.ClientURL(), "fake.r", "", apiAnswer(natsconn.CodeWrongLastSequence))
	if _, is := errors.AsType[*sequenceError](a.err); !is {
		t.Fatal(a.err)
	}
	rec, err := l.state.leaderLast(ctx, "r")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.done("r", rec, 0, changeID("r", 0, mine)); err != nil || got.Rev != rev {
		t.Errorf("%d, %v; wanted %d", got.Rev, err, rev)
	}
}

// Records of states that somebody else has written, or an older version, have revisions.
func TestRevisionsOfStrangeStates(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	ctx := testContext(t)
	nc := dial(t, s.ClientURL())
	if _, err := nc.Request("kansei.state.r", []byte(`{"title":"x"}`), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	st, err := l.State(ctx, "r")
	if err != nil || st.Rev>>revisionHash != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	next, err := setState(ctx, l, "r", st.Rev, []byte(`{"title":"y"}`))
	if err != nil || next <= st.Rev {
		t.Errorf("%d after %d, %v", next, st.Rev, err)
	}
	if _, err := setState(ctx, l, "r", 1, []byte(`{"title":"z"}`)); !errors.Is(err, hub.ErrConflict) {
		t.Errorf("a revision without a hash: %v", err)
	}
}

package edge

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// guest is a viewer that a drain sends away.
type guest struct {
	drain  *drain
	told   []time.Duration // when it is to leave, since the drain began
	closed []time.Duration // when it was closed
	forced bool
	busy   time.Duration // it waits for an answer until then
}

func (g *guest) tell(after time.Duration) {
	g.told = append(g.told, (time.Since(g.drain.began) + after).Round(time.Millisecond))
}

func (g *guest) leave(force bool) bool {
	if !force && time.Since(g.drain.began) < g.busy {
		return false
	}
	g.closed, g.forced = append(g.closed, time.Since(g.drain.began)), force
	return true
}

func guests(n int, spread time.Duration, busy func(int) time.Duration) (*drain, []*guest) {
	all := make([]leaver, n)
	list := make([]*guest, n)
	for i := range all {
		list[i] = new(guest)
		if busy != nil {
			list[i].busy = busy(i)
		}
		all[i] = list[i]
	}
	d := newDrain(all, spread, func() {})
	for _, g := range list {
		g.drain = d
	}
	return d, list
}

// busiest is the most of the times that lie within one second, wherever it begins.
func busiest(at []time.Duration) int {
	slices.Sort(at)
	most, from := 0, 0
	for i := range at {
		for at[i]-at[from] >= time.Second {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

func TestDrainIsSpreadEvenly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		viewers int
		spread  time.Duration
	}{{1, 20 * time.Second}, {60, 20 * time.Second}, {2000, 20 * time.Second}, {6000, 20 * time.Second}, {500, time.Second}} {
		t.Run(fmt.Sprint(c.viewers, " in ", c.spread), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d, all := guests(c.viewers, c.spread, nil)
				go d.run() // ends by itself, and is waited for
				<-d.done
				after := min(linger, c.spread)
				if took := time.Since(d.began); took > c.spread+after {
					t.Errorf("it took %v", took)
				}
				var told, closed []time.Duration
				for _, g := range all {
					if len(g.told) != 1 || len(g.closed) != 1 {
						t.Fatalf("told %v, closed %v: want once each", g.told, g.closed)
					}
					if late := g.closed[0] - g.told[0] - after; late < -time.Millisecond || late > 100*time.Millisecond {
						t.Fatalf("told %v, closed at %v", g.told[0], g.closed[0])
					}
					told, closed = append(told, g.told...), append(closed, g.closed...)
				}
				notice := c.spread / noticeShare
				average := float64(c.viewers) / (c.spread - notice).Seconds()
				for what, at := range map[string][]time.Duration{"told": told, "closed": closed} {
					if most := float64(busiest(at)); most > max(3, 1.1*average+2) {
						t.Errorf("%s: %v in one second, %v on average", what, most, average)
					}
				}
				if first, last := slices.Min(told), slices.Max(told); first < notice || last > c.spread || c.viewers > 10 && (first > notice+c.spread/10 || last < c.spread*9/10) {
					t.Errorf("the moments are from %v to %v", first, last)
				}
			})
		})
	}
}

func TestDrainWaitsForAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, all := guests(100, 10*time.Second, func(i int) time.Duration {
			return []time.Duration{0, 13 * time.Second, time.Hour}[i%3]
		})
		go d.run() // ends by itself, and is waited for
		<-d.done
		if took, most := time.Since(d.began), 10*time.Second+linger+answerWait; took > most+lookAgain {
			t.Errorf("it took %v, want %v at most", took, most)
		}
		for i, g := range all {
			switch at := g.closed[0]; {
			case len(g.closed) != 1, i%3 == 0 && at > g.told[0]+linger+lookAgain+time.Millisecond, i%3 == 1 && (g.forced || at < g.busy),
				i%3 == 2 && !g.forced:
				t.Errorf("viewer %d: told %v, busy until %v, closed at %v, forced: %v", i, g.told, g.busy, g.closed, g.forced)
			}
		}
	})
}

func TestDrainEndsEarly(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spread time.Duration
		end    func(*drain)
		at     time.Duration
		closed bool
	}{
		"all have gone":    {20 * time.Second, func(d *drain) { close(d.gone) }, 5 * time.Second, false},
		"hurried":          {20 * time.Second, func(d *drain) { d.rush(); d.rush() }, 5 * time.Second, true},
		"at once":          {0, func(*drain) {}, 0, true},
		"an hour, hurried": {time.Hour, func(d *drain) { d.rush() }, 5 * time.Second, true},
		"a short spread":   {500 * time.Millisecond, func(*drain) {}, time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d, all := guests(50, c.spread, nil)
				go d.run() // ends by itself, and is waited for
				time.Sleep(min(5*time.Second, c.spread))
				c.end(d)
				<-d.done
				if took := time.Since(d.began); took > c.at+10*time.Millisecond {
					t.Errorf("it took %v, want %v", took, c.at)
				}
				for i, g := range all {
					if (len(g.closed) == 1) != c.closed && (c.closed || g.told[0]+linger > 5*time.Second) {
						t.Errorf("viewer %d: told %v, closed at %v", i, g.told, g.closed)
					}
					if (len(g.told) == 1) != (c.spread > 0) {
						t.Errorf("viewer %d was told %v", i, g.told)
					}
				}
			})
		})
	}
}

// The notice is over after a part of the spread, once, and not behind the end.
func TestDrainNotice(t *testing.T) {
	t.Parallel()
	for spread, ends := range map[time.Duration]bool{20 * time.Second: false, 0: false, time.Minute: true} {
		synctest.Test(t, func(t *testing.T) {
			var noticed []time.Duration
			began := time.Now()
			d := newDrain(nil, spread, func() { noticed = append(noticed, time.Since(began)) })
			close(d.gone)
			go d.run() // ends by itself, and is waited for
			if ends {
				d.end()
			}
			time.Sleep(2 * spread)
			synctest.Wait()
			<-d.done
			if ends && len(noticed) > 0 || !ends && (len(noticed) != 1 || noticed[0] != spread/noticeShare) {
				t.Errorf("spread %v: noticed after %v", spread, noticed)
			}
		})
	}
}

// Whoever leaves is counted until another node has had the time to count it.
func TestDrainDiscountsLater(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end func(*drain)
		at  time.Duration // of the discount
	}{
		"after a while": {func(*drain) {}, time.Second + countLag},
		"hurried":       {func(d *drain) { d.rush() }, 2 * time.Second},
		"ended":         {func(d *drain) { d.end() }, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d, _ := guests(1, 10*time.Second, nil)
				go d.run() // ends by itself, and is waited for
				time.Sleep(time.Second)
				var at time.Duration
				d.lag.later(func() { at = time.Since(d.began) })
				time.Sleep(time.Second)
				c.end(d)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if at < c.at || at > c.at+lookAgain {
					t.Errorf("discounted at %v, want %v", at, c.at)
				}
				late := false
				if name == "ended" {
					d.lag.later(func() { late = true })
					if !late {
						t.Error("whoever leaves behind the end is not discounted")
					}
				}
				close(d.gone)
				<-d.done
			})
		})
	}
}

package bench

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// now is the time in nanoseconds, the same for all processes of the machine.
func now() int64 { return time.Now().UnixNano() }

// schedule says when the comments of one window are due: the n-th n·every after began.
type schedule struct {
	window uint32
	began  int64
	every  time.Duration
	count  int
}

func (s schedule) due(n uint32) int64 { return s.began + int64(n)*int64(s.every) }

func (s schedule) length() time.Duration { return time.Duration(s.count) * s.every }

// lead is the time between the making of a schedule and its first comment.
const lead = 100 * time.Millisecond

// newSchedule makes a window's schedule: as many comments as there are to be in length at
// rate a second.
func newSchedule(window uint32, rate float64, length time.Duration) schedule {
	return schedule{
		window: window, began: now() + int64(lead), every: time.Duration(float64(time.Second) / rate),
		count: max(1, int(rate*length.Seconds())),
	}
}

// mark begins the text of the n-th comment of a window.
func mark(window uint32, n int) string { return fmt.Sprintf("#%d.%d", window, n) }

// unmark reads a mark.
func unmark(text string) (window, n uint32, ok bool) {
	rest, ok := bytes.CutPrefix([]byte(text), []byte{'#'})
	if !ok {
		return 0, 0, false
	}
	first, rest, ok := bytes.Cut(rest, []byte{'.'})
	if !ok {
		return 0, 0, false
	}
	second, _, _ := bytes.Cut(rest, []byte{' '})
	w, err := strconv.ParseUint(string(first), 10, 32)
	if err != nil {
		return 0, 0, false
	}
	m, err := strconv.ParseUint(string(second), 10, 32)
	return uint32(w), uint32(m), err == nil
}

// remarks are what the audience says, of the lengths that it has.
var remarks = [...]string{
	"うぽつ", "わこつです", "88888888", "草", "すごい！！", "ここ好き", "初見です、よろしくお願いします",
	"この先生わかりやすい", "もう一回お願いします", "かわいい👏👏", "聞こえません", "いまの式はどういう意味ですか？",
}

// text is the text of the n-th comment of a window.
func text(window uint32, n int) string { return mark(window, n) + " " + remarks[n%len(remarks)] }

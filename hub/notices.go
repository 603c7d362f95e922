package hub

import (
	"slices"

	"github.com/kansei-live/kansei/protocol"
)

// keepNotices is how many messages of acts a view keeps for viewers who fall off the ring.
const keepNotices = 256

// notices is the messages of acts that lie in the frames of a ring, apart from the ring: a viewer
// that gets a gap is told behind it what was removed meanwhile. It does not change once it is made.
type notices struct {
	all  []notice
	from uint64 // of the frames from this one on it has all
}

type notice struct {
	index   uint64 // of the frame
	frame   *Frame
	message []byte
	brings  bool // comments back
}

// note keeps the message of an act that lies in a frame. Room.mu is held.
func (v *view) note(index uint64, message []byte, brings bool) {
	had := v.notices.Load()
	now := &notices{from: had.from, all: append(slices.Clone(had.all), newNotice(index, message, brings))}
	if over := len(now.all) - keepNotices; over > 0 {
		now.from = now.all[over-1].index + 1
		now.all = now.all[over:]
	}
	v.notices.Store(now)
}

func newNotice(index uint64, message []byte, brings bool) notice {
	return notice{index, newFrame([][]byte{slices.Clone(message)}, nil), message, brings}
}

// refit returns notices that bring back what fit leaves of them.
func (n *notices) refit(fit func(message []byte) (now []byte, same bool)) *notices {
	out := &notices{from: n.from}
	for _, one := range n.all {
		if one.brings {
			m, same := fit(one.message)
			if m == nil {
				continue
			}
			if !same {
				one = newNotice(one.index, m, true)
			}
		}
		out.all = append(out.all, one)
	}
	return out
}

// tooMany tells a viewer that it does not know all that was removed.
var tooMany = [][]byte{protocol.Encode(&protocol.Removed{Reload: true})}

// between appends what lies in the frames from one up to, and without, another one.
func (n *notices) between(dst [][]byte, from, to uint64, form *Form) [][]byte {
	if from < n.from {
		return append(dst, newFrame(slices.Clone(tooMany), nil).bytes(form))
	}
	for i := range n.all {
		if at := n.all[i].index; at >= from && at < to {
			dst = append(dst, n.all[i].frame.bytes(form))
		}
	}
	return dst
}

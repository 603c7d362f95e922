package hub

import (
	"slices"
	"sync/atomic"
)

// Form is how a transport writes messages. Sockets that write alike have the same Form: a
// frame is encoded once for all of them.
type Form struct {
	// Encode returns the bytes that bring messages, each one JSON object, to a peer in this
	// order, in one write. It may point messages into what it returns. An optional form
	// returns nil when it is not worth having.
	Encode func(messages [][]byte) []byte
	// Instead makes the form optional: it is the form of the frames that were not made in
	// this one, because few sockets would have gained little.
	Instead *Form
}

// optionalFrom is how many bytes messages must come to, over all viewers with an optional
// form, for a frame to be made in it. To deflate is done once, takes some 6 µs for one
// comment and 25 µs for forty, as much as one or a few writes, and saves a sixth of one and
// four fifths of forty: below this, processor time would be spent on next to no bandwidth.
const optionalFrom = 8 << 10

// Frame is messages that are written at once, in the forms in which somebody wants them.
// What is in it does not change; a form that is missing is made when it is asked for.
type Frame struct {
	messages [][]byte
	made     atomic.Pointer[made]
	first    made // what was made first, in place
}

// made is a list of the forms of a frame.
type made struct {
	form  *Form
	bytes []byte
	next  *made
}

// newFrame makes a frame of messages, which become its own, in the forms that are wanted.
// An optional form is left out where it is not worth its cost.
func newFrame(messages [][]byte, wanted demand) *Frame {
	f := &Frame{messages: messages}
	size := 0
	for _, m := range messages {
		size += len(m)
	}
	for _, w := range wanted {
		switch {
		case w.viewers == 0 || w.form.Instead != nil && w.viewers*size < optionalFrom:
			continue
		case w.form.Instead == nil && f.made.Load() == nil:
			// Nobody else has the frame yet: the messages may lie in what is made of them,
			// which spares half of the memory.
			f.first = made{form: w.form, bytes: w.form.Encode(f.messages)}
			f.made.Store(&f.first)
		default:
			f.make(w.form)
		}
	}
	return f
}

// bytes returns the frame in a form, or in the one instead. Several goroutines may ask.
func (f *Frame) bytes(form *Form) []byte {
	for {
		for m := f.made.Load(); m != nil; m = m.next {
			if m.form == form {
				return m.bytes
			}
		}
		if form.Instead == nil {
			return f.make(form)
		}
		form = form.Instead
	}
}

// make encodes the frame in a form; nil if that is not worth having.
func (f *Frame) make(form *Form) []byte {
	b := form.Encode(slices.Clone(f.messages))
	if b != nil {
		f.add(form, b)
	}
	return b
}

func (f *Frame) add(form *Form, b []byte) {
	for {
		first := f.made.Load()
		if f.made.CompareAndSwap(first, &made{form, b, first}) {
			return
		}
	}
}

// size is how many bytes the frame has in all its forms.
func (f *Frame) size() int {
	n := 0
	for m := f.made.Load(); m != nil; m = m.next {
		n += len(m.bytes)
	}
	return n
}

// demand is how many viewers want which form.
type demand []wanted

type wanted struct {
	form    *Form
	viewers int
}

// count counts n viewers more with a form, who may be written the form instead too.
func (d *demand) count(form *Form, n int) {
	for ; form != nil; form = form.Instead {
		d.add(form, n)
	}
}

func (d *demand) add(form *Form, n int) {
	i := slices.IndexFunc(*d, func(w wanted) bool { return w.form == form })
	if i < 0 {
		i = len(*d)
		*d = append(*d, wanted{form: form})
	}
	(*d)[i].viewers += n
}

// length is how many bytes the frame's messages have.
func (f *Frame) length() int {
	n := 0
	for _, m := range f.messages {
		n += len(m)
	}
	return n
}

package protocol

import (
	"encoding/json"
	"unicode/utf8"
)

// The types of the messages that a viewer sends. Version 1 reserves "react",
// "remove", "ban", "unban", "mute", "unmute" and "set" for later.
const (
	TypeComment = "comment"
)

// Request is what a viewer sends: one of *CommentRequest, *BeatRequest and, when
// decoded, *UnknownRequest.
type Request interface{ requestType() string }

// CommentRequest asks to publish a comment.
type CommentRequest struct {
	Ref     string `json:"ref,omitempty"` // the sender's own, repeated in the answer
	Text    string `json:"text"`
	MediaMS *int64 `json:"media_ms,omitempty"`
	Style   *Style `json:"style,omitempty"`
}

// BeatRequest shows that the viewer is there.
type BeatRequest struct {
	Visible *bool  `json:"visible,omitempty"` // whether the page can be seen
	MediaMS *int64 `json:"media_ms,omitempty"`
}

// UnknownRequest is a message of a type that this version does not know. It is
// answered with [CodeUnsupported] if it has a ref, and ignored otherwise.
type UnknownRequest struct {
	Type string
	Ref  string
}

func (*CommentRequest) requestType() string   { return TypeComment }
func (*BeatRequest) requestType() string      { return TypeBeat }
func (r *UnknownRequest) requestType() string { return r.Type }

// DecodeRequest decodes a message that a viewer sent. The error of a message
// that is none is an *[Error] with [CodeBadMessage], whose text names what was
// wrong, and with the ref if one could be read. The text of a comment is not
// judged here: that takes Unicode's tables and the operator's limits.
func DecodeRequest(p []byte) (Request, error) {
	if !utf8.Valid(p) {
		return nil, bad("", "the message is not UTF-8")
	}
	var head struct {
		Type json.RawMessage `json:"type"`
		Ref  json.RawMessage `json:"ref"`
	}
	if err := json.Unmarshal(p, &head); err != nil {
		return nil, bad("", "the message is not a JSON object: %s", describe(err))
	}
	if first := firstByte(p); first != '{' {
		return nil, bad("", "the message is not a JSON object")
	}
	var ref string
	if head.Ref != nil {
		if err := json.Unmarshal(head.Ref, &ref); err != nil || ref == "" || utf8.RuneCountInString(ref) > MaxRef {
			return nil, bad("", "ref must be a string of 1 to %d characters", MaxRef)
		}
	}
	var typ string
	if err := json.Unmarshal(head.Type, &typ); err != nil || typ == "" {
		return nil, bad(ref, "type must be a string that names the kind of message")
	}
	var r Request
	switch typ {
	case TypeComment:
		r = new(CommentRequest)
	case TypeBeat:
		r = new(BeatRequest)
	default:
		return &UnknownRequest{Type: typ, Ref: ref}, nil
	}
	if err := json.Unmarshal(p, r); err != nil {
		return nil, bad(ref, "%s: %s", typ, describe(err))
	}
	if c, ok := r.(*CommentRequest); ok {
		if c.MediaMS != nil && *c.MediaMS < 0 {
			return nil, bad(ref, "comment: media_ms must not be negative")
		}
		if err := c.Style.normalize(); err != nil {
			err.Ref = ref
			return nil, err
		}
	}
	return r, nil
}

// EncodeRequest encodes a message for a server.
func EncodeRequest(r Request) []byte { return encode(r.requestType(), r) }

// colors are the names that a style's color may have beside #rrggbb, as sixteen
// million drawings on danmaku sites use them.
var colors = map[string]string{
	"white": "#ffffff", "black": "#000000", "red": "#ff0000", "pink": "#ff8080", "orange": "#ffcc00",
	"yellow": "#ffff00", "green": "#00ff00", "cyan": "#00ffff", "blue": "#0000ff", "purple": "#c000ff",
}

// normalize replaces the name of a color by its value and refuses what a style
// cannot be.
func (s *Style) normalize() *Error {
	if s == nil {
		return nil
	}
	switch s.Position {
	case "", "scroll", "top", "bottom":
	default:
		return bad("", "comment: style.position must be scroll, top or bottom, not %.20q", s.Position)
	}
	switch s.Size {
	case "", "small", "medium", "big":
	default:
		return bad("", "comment: style.size must be small, medium or big, not %.20q", s.Size)
	}
	if v, ok := colors[s.Color]; ok {
		s.Color = v
	}
	if s.Color != "" && !isHexColor(s.Color) {
		return bad("", "comment: style.color must be #rrggbb or a color's name, not %.20q", s.Color)
	}
	return nil
}

func isHexColor(s string) bool {
	if len(s) != 7 || s[0] != '#' {
		return false
	}
	for i := 1; i < 7; i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return false
		}
	}
	return true
}

package protocol

import (
	"encoding/json"
	"unicode/utf8"
)

// The types of the messages that a viewer sends; a beat is [TypeBeat] both ways. Those of acts are
// in acts.go. Version 1 reserves "react" for later.
const (
	TypeComment = "comment"
	TypeAuth    = "auth"
)

// Request is what a viewer sends: one of *CommentRequest, *BeatRequest, *AuthRequest,
// *ActRequest, *SetRequest, *EventRequest and, when decoded, *UnknownRequest.
type Request interface{ requestType() string }

// CommentRequest asks to publish a comment.
type CommentRequest struct {
	Ref     string `json:"ref,omitempty"` // the sender's own, repeated in the answer
	Text    string `json:"text"`
	MediaMS *int64 `json:"media_ms,omitempty"` // position in the programme, milliseconds
	Style   *Style `json:"style,omitempty"`
	// Data is the application's own, a JSON object of at most [MaxCommentData] bytes.
	Data json.RawMessage `json:"data,omitempty"`
}

// BeatRequest shows that the viewer is there.
type BeatRequest struct {
	Visible *bool  `json:"visible,omitempty"`  // whether the page can be seen
	MediaMS *int64 `json:"media_ms,omitempty"` // position in the programme, milliseconds
}

// AuthRequest brings a fresh token of the same user.
type AuthRequest struct {
	Ref   string `json:"ref,omitempty"`
	Token string `json:"token"`
}

// UnknownRequest is a message of a type that this version does not know. It is
// answered with [CodeUnsupported] if it has a ref, and ignored otherwise.
type UnknownRequest struct {
	Type string `json:"-"`
	Ref  string `json:"ref,omitempty"`
}

func (*CommentRequest) requestType() string   { return TypeComment }
func (*BeatRequest) requestType() string      { return TypeBeat }
func (*AuthRequest) requestType() string      { return TypeAuth }
func (r *UnknownRequest) requestType() string { return r.Type }

// EncodeRequest encodes a message for a server.
func EncodeRequest(r Request) []byte { return encode(r.requestType(), r) }

// DecodeRequest decodes a message that a viewer sent. Its error is always an
// *[Error] with [CodeBadMessage], or [CodeTooLong] for the application's data, a text that
// names what was wrong, and the message's ref if that could be read: it is ready to be sent
// as the answer.
//
// A style is returned in its shortest form, with colors as #rrggbb. The text of a
// comment is not judged here: that takes Unicode's tables and the operator's
// limits.
func DecodeRequest(p []byte) (Request, error) {
	if err := checkObject(p); err != nil {
		return nil, err
	}
	ref, err := readRef(p)
	if err != nil {
		return nil, err
	}
	r, err := decodeAs(p, ref)
	if err != nil {
		err.Ref = ref
		return nil, err
	}
	return r, nil
}

func decodeAs(p []byte, ref string) (Request, *Error) {
	var typ string
	if err := readFields(p, "", field{name: "type", into: &typ, want: wantString}); err != nil {
		return nil, err
	}
	if typ == "" || utf8.RuneCountInString(typ) > MaxType {
		return nil, bad("type must be a string of 1 to %d characters", MaxType)
	}
	switch typ {
	case TypeComment:
		return decodeComment(p, ref)
	case TypeBeat:
		b := new(BeatRequest)
		if err := readFields(p, "",
			field{name: "visible", into: &b.Visible, want: wantBool},
			field{name: "media_ms", into: &b.MediaMS, want: wantMedia},
		); err != nil {
			return nil, err
		}
		return b, checkMedia(b.MediaMS)
	case TypeAuth:
		a := &AuthRequest{Ref: ref}
		if err := readFields(p, "", field{name: "token", into: &a.Token, want: wantString}); err != nil {
			return nil, err
		}
		if a.Token == "" {
			return nil, bad("token is missing")
		}
		return a, nil
	case TypeSet:
		return decodeSet(p, ref)
	case TypeEvent:
		e, err := decodeEvent(p, ref)
		if err != nil {
			return nil, err
		}
		return e, nil
	}
	if isAct(typ) {
		return decodeAct(p, typ, ref)
	}
	return &UnknownRequest{Type: typ, Ref: ref}, nil
}

// decodeComment reads the fields of a comment, and more.
func decodeComment(p []byte, ref string, more ...field) (*CommentRequest, *Error) {
	c := &CommentRequest{Ref: ref}
	var style json.RawMessage
	err := readFields(p, "", append(more,
		field{name: "text", into: &c.Text, want: wantString},
		field{name: "media_ms", into: &c.MediaMS, want: wantMedia},
		field{name: "style", into: &style, want: wantObject},
		field{name: "data", into: &c.Data, want: wantObject},
	)...)
	if err != nil {
		return nil, err
	}
	if err := checkMedia(c.MediaMS); err != nil {
		return nil, err
	}
	if c.Style, err = readStyle(style); err != nil {
		return nil, err
	}
	if c.Data, err = readData(c.Data, MaxCommentData); err != nil {
		return nil, err
	}
	return c, nil
}

// readRef returns the ref of a request; empty when it has none.
func readRef(p []byte) (string, *Error) {
	var raw json.RawMessage
	if err := readFields(p, "", field{name: "ref", into: &raw}); err != nil || raw == nil {
		return "", err
	}
	var ref string
	if !readValue(&ref, raw) || ref == "" || utf8.RuneCountInString(ref) > MaxRef {
		return "", bad("ref must be a string of 1 to %d characters", MaxRef)
	}
	return ref, nil
}

package socket

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/kansei-live/kansei/protocol"
)

// Kind says in one word why a connection ended. It is a label of
// kansei_closes_total.
type Kind string

// The kinds of ends.
const (
	ClosedByPeer   Kind = "closed_by_peer"   // the peer sent a close frame
	ClosedByServer Kind = "closed_by_server" // Conn.Close or Server.Close
	Silent         Kind = "silent"           // nothing came for Config.SilenceLimit
	Unfinished     Kind = "unfinished"       // a message took longer than Config.MessageTimeout
	TooSlow        Kind = "too_slow"         // nothing was taken for Config.WriteTimeout
	ProtocolError  Kind = "protocol_error"   // a breach of RFC 6455 (1002)
	Binary         Kind = "binary"           // a binary message (1003)
	BadData        Kind = "bad_data"         // not UTF-8, or not deflated properly (1007)
	Flood          Kind = "flood"            // frames without end that bring no message (4429)
	TooBig         Kind = "too_big"          // a message beyond Config.MaxMessage (1009)
	Lost           Kind = "lost"             // the end of the stream, or an error, without a close frame
)

// Kinds lists every kind.
func Kinds() []Kind {
	return []Kind{ClosedByPeer, ClosedByServer, Silent, Unfinished, TooSlow,
		ProtocolError, Binary, BadData, Flood, TooBig, Lost}
}

// Cause says why and how a connection ended.
type Cause struct {
	Kind   Kind
	Code   int    // of the close frame sent; received for ClosedByPeer (1005: without a code); 1006 for Lost
	Reason string // of that frame
	Err    error  // what was read or written last, for Lost
}

// String is for logs.
func (c Cause) String() string {
	s := fmt.Sprintf("%s (%d)", c.Kind, c.Code)
	if c.Reason != "" {
		s += ": " + c.Reason
	}
	if c.Err != nil {
		s += ": " + c.Err.Error()
	}
	return s
}

// Codes that stand in no close frame.
const (
	codeNoStatus = 1005 // the peer's close frame bore none
	codeAbnormal = 1006 // there was no close frame
)

// maxReason is the most bytes that the reason of a close frame can have.
const maxReason = maxControl - 2

// sendable makes a code and a reason fit a close frame.
func sendable(code int, reason string) (int, string) {
	if !validCode(code) {
		code = int(protocol.CloseInternal)
	}
	if !utf8.ValidString(reason) {
		reason = ""
	}
	if len(reason) > maxReason {
		cut := maxReason
		for !utf8.RuneStart(reason[cut]) {
			cut--
		}
		reason = reason[:cut]
	}
	return code, reason
}

// validCode reports whether a close frame may bear code (RFC 6455, section 7.4, and
// what IANA registered since).
func validCode(code int) bool {
	switch {
	case code >= 3000 && code <= 4999:
		return true
	case code >= 1000 && code <= 1014:
		return code != 1004 && code != codeNoStatus && code != codeAbnormal
	}
	return false
}

// closeFrame is the close frame that a server sends; without payload for
// codeNoStatus.
func closeFrame(code int, reason string) []byte {
	if code == codeNoStatus {
		return []byte{finBit | opClose, 0}
	}
	f := make([]byte, 0, 4+len(reason))
	f = append(f, finBit|opClose, byte(2+len(reason)))
	f = binary.BigEndian.AppendUint16(f, uint16(code))
	return append(f, reason...)
}

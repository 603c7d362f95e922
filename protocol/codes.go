package protocol

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrorCode says why a request was not done.
type ErrorCode string

// The error codes of version 1.
const (
	CodeBadMessage     ErrorCode = "bad_message"     // not a request of this protocol
	CodeUnsupported    ErrorCode = "unsupported"     // a type that this server does not know
	CodeTooLong        ErrorCode = "too_long"        // text beyond limits.text
	CodeEmpty          ErrorCode = "empty"           // nothing visible in the text
	CodeRateLimited    ErrorCode = "rate_limited"    // beyond limits.per_s and burst; retry_ms
	CodeSlowMode       ErrorCode = "slow_mode"       // the room takes fewer comments a user; retry_ms
	CodeMuted          ErrorCode = "muted"           // this user may not comment for now
	CodeBanned         ErrorCode = "banned"          // this user may not come
	CodeWarned         ErrorCode = "warned"          // this user is to acknowledge a warning first
	CodeNoLinks        ErrorCode = "no_links"        // the room takes no links
	CodeNoAct          ErrorCode = "no_act"          // there is no such act
	CodeForbidden      ErrorCode = "forbidden"       // this user may not do that
	CodeLocked         ErrorCode = "locked"          // the room takes no comments of such users now
	CodeConflict       ErrorCode = "conflict"        // the state has changed meanwhile
	CodeUnavailable    ErrorCode = "unavailable"     // not done; try again
	CodeUnknownOutcome ErrorCode = "unknown_outcome" // perhaps done; try again with the same ref

	CodeUnauthorized ErrorCode = "unauthorized" // over HTTP only: the token is missing, invalid or expired
	CodeNoRoom       ErrorCode = "no_room"      // over HTTP only: there is no such room
)

// ErrorCodes lists every error code.
func ErrorCodes() []ErrorCode {
	return []ErrorCode{
		CodeBadMessage, CodeUnsupported, CodeTooLong, CodeEmpty, CodeRateLimited, CodeSlowMode, CodeMuted, CodeForbidden,
		CodeBanned, CodeWarned, CodeNoLinks, CodeNoAct, CodeLocked, CodeConflict, CodeUnavailable, CodeUnknownOutcome, CodeUnauthorized, CodeNoRoom,
	}
}

// Retry reports whether the same request, with the same ref, may succeed later.
func (c ErrorCode) Retry() bool {
	switch c {
	case CodeRateLimited, CodeSlowMode, CodeUnavailable, CodeUnknownOutcome:
		return true
	}
	return false
}

// CloseCode is the status code of a WebSocket close frame.
type CloseCode int

// The close codes of version 1, beside those of RFC 6455.
const (
	CloseNormal      CloseCode = 1000
	CloseGoingAway   CloseCode = 1001
	CloseProtocol    CloseCode = 1002
	CloseUnsupported CloseCode = 1003 // a binary message
	CloseInvalidData CloseCode = 1007 // text that is not UTF-8
	CloseTooBig      CloseCode = 1009 // a message beyond the server's limit
	CloseInternal    CloseCode = 1011
	CloseRestart     CloseCode = 1012 // this node is leaving; come back after the told time

	CloseMalformed    CloseCode = 4400 // malformed content, again and again
	CloseUnauthorized CloseCode = 4401 // token missing, invalid, expired or for other rooms: fetch a new one
	CloseBanned       CloseCode = 4403
	CloseNoRoom       CloseCode = 4404
	CloseTooSlow      CloseCode = 4408 // too slow or silent: come back with the cursor
	CloseTooMany      CloseCode = 4429 // come back after the told time
)

// Reconnect reports whether a client that was closed with c should come back by
// itself. After [CloseUnauthorized] it should, with a new token.
func (c CloseCode) Reconnect() bool {
	switch c {
	case CloseNormal, CloseProtocol, CloseUnsupported, CloseInvalidData, CloseTooBig,
		CloseMalformed, CloseBanned, CloseNoRoom:
		return false
	}
	return true
}

// ComesBack reports whether a client that was closed with c, for that reason, should come back by itself:
// after a ban that ends, too.
func (c CloseCode) ComesBack(reason string) bool {
	return c.Reconnect() || c == CloseBanned && RetryMS(reason) > 0
}

// NeedsToken reports whether a client must fetch a new token before it comes back.
func (c CloseCode) NeedsToken() bool { return c == CloseUnauthorized }

const (
	retryKey = "retry_ms="
	// maxReason is what a close frame has room for beside its code (RFC 6455, 5.5).
	maxReason = 123
	// maxRetryMS bounds what RetryMS returns, so that it can be reckoned with.
	maxRetryMS = 24 * 60 * 60 * 1000
)

// CloseReason is the reason of a close frame: text, and the milliseconds after
// which to come back if they are more than 0. The text is cut to what a close
// frame has room for, and made valid UTF-8.
func CloseReason(text string, retryMS int64) string {
	suffix := ""
	if retryMS > 0 {
		suffix = retryKey + strconv.FormatInt(retryMS, 10)
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	room := maxReason
	if suffix != "" {
		room -= len(suffix) + len(" ")
	}
	if len(text) > room {
		for !utf8.RuneStart(text[room]) {
			room--
		}
		text = text[:room]
	}
	if suffix == "" {
		return text
	}
	return strings.TrimLeft(text+" "+suffix, " ")
}

// RetryMS reads the milliseconds after which to come back out of the reason of a
// close frame: at most a day, and 0 when it names none.
func RetryMS(reason string) int64 {
	i := strings.LastIndex(reason, retryKey)
	if i < 0 {
		return 0
	}
	var n int64
	for _, c := range []byte(reason[i+len(retryKey):]) {
		if c < '0' || c > '9' {
			break
		}
		n = min(10*n+int64(c-'0'), maxRetryMS)
	}
	return n
}

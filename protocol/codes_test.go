package protocol

import (
	"strings"
	"testing"
)

func TestErrorCodes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code   ErrorCode
		retry  bool
		status int
	}{
		{CodeBadMessage, false, 400},
		{CodeUnsupported, false, 501},
		{CodeTooLong, false, 422},
		{CodeEmpty, false, 422},
		{CodeRateLimited, true, 429},
		{CodeSlowMode, true, 429},
		{CodeMuted, false, 403},
		{CodeForbidden, false, 403},
		{CodeLocked, false, 403},
		{CodeConflict, false, 409},
		{CodeUnavailable, true, 503},
		{CodeUnknownOutcome, true, 504},
		{CodeUnauthorized, false, 401},
		{CodeNoRoom, false, 404},
		{"of_a_later_version", false, 400},
	} {
		if got := tt.code.Retry(); got != tt.retry {
			t.Errorf("%s.Retry() = %t", tt.code, got)
		}
		if got := tt.code.HTTPStatus(); got != tt.status {
			t.Errorf("%s.HTTPStatus() = %d, not %d", tt.code, got, tt.status)
		}
	}
}

func TestCloseCodes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code             CloseCode
		reconnect, token bool
	}{
		{CloseNormal, false, false},
		{CloseGoingAway, true, false},
		{CloseProtocol, false, false},
		{CloseUnsupported, false, false},
		{1005, true, false}, // no code
		{1006, true, false}, // no close frame
		{CloseInvalidData, false, false},
		{CloseTooBig, false, false},
		{CloseInternal, true, false},
		{CloseRestart, true, false},
		{CloseMalformed, false, false},
		{CloseUnauthorized, true, true},
		{CloseBanned, false, false},
		{CloseNoRoom, false, false},
		{CloseTooSlow, true, false},
		{CloseTooMany, true, false},
		{4999, true, false},
	} {
		if got := tt.code.Reconnect(); got != tt.reconnect {
			t.Errorf("CloseCode(%d).Reconnect() = %t", tt.code, got)
		}
		if got := tt.code.NeedsToken(); got != tt.token {
			t.Errorf("CloseCode(%d).NeedsToken() = %t", tt.code, got)
		}
	}
}

func TestCloseReason(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		ms   int64
		want string
	}{
		{"", 0, ""},
		{"draining", 0, "draining"},
		{"draining", -1, "draining"},
		{"", 4200, "retry_ms=4200"},
		{"draining", 4200, "draining retry_ms=4200"},
		{strings.Repeat("x", 200), 0, strings.Repeat("x", 123)},
		{strings.Repeat("x", 200), 7, strings.Repeat("x", 112) + " retry_ms=7"},
		{strings.Repeat("名", 50), 0, strings.Repeat("名", 41)},
		{strings.Repeat("名", 50), 70, strings.Repeat("名", 37) + " retry_ms=70"},
		{"a\xffb", 0, "a\uFFFDb"},
	} {
		got := CloseReason(tt.text, tt.ms)
		if got != tt.want {
			t.Errorf("CloseReason(%q, %d) = %q, not %q", tt.text, tt.ms, got, tt.want)
		}
		if ms := RetryMS(got); ms != max(0, tt.ms) {
			t.Errorf("RetryMS(%q) = %d", got, ms)
		}
	}
	for reason, want := range map[string]int64{
		"retry_ms=":                           0,
		"retry_ms=x":                          0,
		"retry_ms=-5":                         0,
		"retry_ms=12x":                        12,
		"later, retry_ms=1500, please":        1500,
		"retry_ms=1 retry_ms=2":               2,
		"retry_ms=86400001":                   maxRetryMS,
		"retry_ms=99999999999999999999999999": maxRetryMS,
	} {
		if got := RetryMS(reason); got != want {
			t.Errorf("RetryMS(%q) = %d, not %d", reason, got, want)
		}
	}
}

package redispresence

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// answers reports whether an error is what Redis has answered.
func answers(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

// code is the first word of what Redis has answered, which is how it tells errors apart; empty
// when the error is no answer.
func code(err error) string {
	said, ok := errors.AsType[redis.Error](err)
	if !ok {
		return ""
	}
	word, rest, _ := strings.Cut(said.Error(), " ")
	if word != "ERR" {
		return word
	}
	// What a command of a script was answered stands behind a dash, in Redis 6 behind the
	// name of the script, too.
	for _, inner := range []string{"OOM", "READONLY", "NOPERM", "MISCONF", "NOREPLICAS", "MASTERDOWN"} {
		if strings.Contains(rest, "-"+inner+" ") {
			return inner
		}
	}
	if strings.Contains(rest, "The user executing the script ") { // may not run a command of it, or use a key
		return "NOPERM"
	}
	return word
}

// isFull reports whether Redis has refused a script because it is at maxmemory. The script
// has written nothing then.
func isFull(err error) bool { return code(err) == "OOM" }

// silent reports whether an error says that nobody has answered.
func silent(err error) bool {
	if _, is := errors.AsType[net.Error](err); is {
		return true
	}
	for _, known := range []error{
		io.EOF, io.ErrUnexpectedEOF, context.DeadlineExceeded, context.Canceled, redis.ErrClosed, redis.ErrPoolTimeout, redis.ErrPoolExhausted,
		errNoAnswer, errNotAsked,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// isTLS reports whether an error comes from the handshake of TLS.
func isTLS(err error) bool {
	_, cert := errors.AsType[*tls.CertificateVerificationError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	op, is := errors.AsType[*net.OpError](err)
	return cert || record || alert || is && op.Op == "remote error" // how crypto/tls tells what the other side refuses
}

// passes reports whether a fault may pass without anybody changing a setting, of the node or
// of Redis. What does not pass is a mistake if a node meets it when it starts.
func passes(err error) bool {
	switch {
	case errors.Is(err, errPinned), errors.Is(err, errNewer), errors.Is(err, errPolicy), errors.Is(err, errDiffers), errors.Is(err, errAnswer):
		return false
	case errors.Is(err, errResyncs):
		return true
	case answers(err):
		switch code(err) {
		case "OOM", "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "MISCONF", "NOREPLICAS":
			return true
		}
		said, _ := errors.AsType[redis.Error](err)
		return strings.HasPrefix(said.Error(), "ERR max number of clients")
	case isTLS(err):
		return false
	}
	return silent(err)
}

// explain adds to an error what it means for the counts, and what to do.
func explain(err error) error {
	switch c := code(err); {
	case errors.Is(err, errPinned), errors.Is(err, errNewer), errors.Is(err, errPolicy), errors.Is(err, errDiffers), errors.Is(err, errNoAnswer):
		return err
	case isFull(err):
		return fmt.Errorf("%w: it is at maxmemory; who leaves is taken out, who comes is counted when it has memory again: give it more", err)
	case errors.Is(err, errSentinel):
		return fmt.Errorf("%w: its user or password is not right: --redis-sentinel-user, --redis-sentinel-password", err)
	case c == "NOAUTH", c == "WRONGPASS":
		return fmt.Errorf("%w: the user or the password is not right: --redis-user, --redis-password, or in --redis", err)
	case c == "NOPERM":
		return fmt.Errorf("%w: the Redis user of this node may not do all that it has to: ACL LOG names what is missing, docs/OPERATING.md has the whole line", err)
	case c == "READONLY":
		return fmt.Errorf("%w: it is a replica; counts stand still until it is promoted, or --redis leads to the primary", err)
	case c == "LOADING":
		return fmt.Errorf("%w: it has just started; counts stand still until it has read its data", err)
	case c == "MOVED", c == "ASK":
		return fmt.Errorf("%w: it is a Redis Cluster: --redis needs redis+cluster://", err)
	case errors.Is(err, redis.Nil):
		return errors.New("the sentinels know no primary by the master_name of --redis")
	case c != "":
		return fmt.Errorf("%w: counts stand still", err)
	case errors.Is(err, errAnswer), errors.Is(err, errResyncs):
		return fmt.Errorf("%w: counts stand still; something changes what Redis holds or answers, such as a proxy or a failover", err)
	case isTLS(err):
		return fmt.Errorf("counts stand still: %w: check whether --redis should begin with rediss://, and the certificates: --redis-ca, --redis-cert, --redis-key", err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("redis does not answer in time; counts stand still: %w", err)
	case silent(err):
		return fmt.Errorf("redis does not answer; counts stand still: %w", err)
	}
	return fmt.Errorf("what answers is not Redis, or not as it should be; counts stand still: %w: check --redis", err)
}

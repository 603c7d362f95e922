package embedded

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func startRedis(t *testing.T) (*Redis, *redis.Client) {
	t.Helper()
	r := StartRedis()
	t.Cleanup(r.Close)
	c := redis.NewClient(&redis.Options{Dialer: r.Dial, MaxRetries: -1})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, c
}

func TestRedisClockMoves(t *testing.T) {
	t.Parallel()
	_, c := startRedis(t)
	ctx := context.Background()
	before, err := c.Time(ctx).Result()
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Since(before).Abs(); d > time.Minute {
		t.Errorf("its clock is %v away from the machine's", d)
	}
	if err := c.Set(ctx, "k", "v", 50*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		n, err := c.Exists(ctx, "k").Result()
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a key with a time to live of 50 ms is there after 10 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
	after, err := c.Time(ctx).Result()
	if err != nil {
		t.Fatal(err)
	}
	if d := after.Sub(before); d < 50*time.Millisecond {
		t.Errorf("TIME moved by %v while a key of 50 ms lapsed", d)
	}
}

func TestRedisDoesNotListen(t *testing.T) {
	t.Parallel()
	r, c := startRedis(t)
	if err := c.Set(context.Background(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if a := r.server.Addr(); a != "" {
		t.Errorf("it listens on %s", a)
	}
	_, other := startRedis(t)
	if err := other.Get(context.Background(), "k").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("another server has the key too: %v", err)
	}
}

func TestRedisClose(t *testing.T) {
	t.Parallel()
	r, c := startRedis(t)
	ctx := context.Background()
	if err := c.Ping(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	r.Close()
	if err := c.Ping(ctx).Err(); err == nil {
		t.Error("it answers after Close")
	}
	if _, err := r.Dial(ctx, "", ""); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection after Close: %v", err)
	}
}

package embedded

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func startRedis(t *testing.T) (*Redis, *redis.Client) {
	t.Helper()
	r, err := StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	o, err := redis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	o.MaxRetries = -1
	c := redis.NewClient(o)
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

func TestRedisNeedsPassword(t *testing.T) {
	t.Parallel()
	r, c := startRedis(t)
	ctx := context.Background()
	if err := c.Ping(ctx).Err(); err != nil {
		t.Fatalf("with the password: %v", err)
	}
	host := r.URL()[strings.LastIndexByte(r.URL(), '@')+1:]
	if !strings.HasPrefix(host, "127.0.0.1:") {
		t.Errorf("it listens on %q, not on the loopback interface", host)
	}
	for name, password := range map[string]string{"none": "", "wrong": "guess"} {
		stranger := redis.NewClient(&redis.Options{Addr: host, Password: password, MaxRetries: -1})
		if err := stranger.Get(ctx, "k").Err(); err == nil || errors.Is(err, redis.Nil) {
			t.Errorf("password %s: let in", name)
		}
		if err := stranger.Close(); err != nil {
			t.Error(err)
		}
	}
	other, _ := startRedis(t)
	if other.URL() == r.URL() {
		t.Error("two servers have the same URL")
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
}

//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/test/localcluster"
)

const (
	// replicaWait is how long a replica may take to have all of Redis: seconds of a busy
	// machine for what takes milliseconds.
	replicaWait = 20 * time.Second
	// lookTime is how long nodes may take to look at a few rooms.
	lookTime = 10 * time.Second
	// nowhere is where nobody listens.
	nowhereHost, nowherePort = "127.0.0.1", "1"
)

// dialRedis makes a client past the links. The caller closes it.
func dialRedis(r *localcluster.Redis) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(r.URL, "redis://"), MaxRetries: -1})
}

// failover has the spare Redis follow the other one, fall behind and take over. The other
// one comes back empty, as the spare.
func failover(ctx context.Context, s *strike) error {
	master, spare := s.cluster.Redis, s.cluster.Spare
	replica := dialRedis(spare)
	defer func() { _ = replica.Close() }() // it is only read from and written to here
	host, port, _ := strings.Cut(strings.TrimPrefix(master.URL, "redis://"), ":")
	if err := replica.ReplicaOf(ctx, host, port).Err(); err != nil {
		return err
	}
	if err := following(ctx, replica); err != nil {
		return err
	}
	if err := s.wait(ctx, time.Second); err != nil {
		return err
	}
	// From here on what is written is lost.
	if err := replica.ReplicaOf(ctx, nowhereHost, nowherePort).Err(); err != nil {
		return err
	}
	if err := s.wait(ctx, 3*time.Second); err != nil {
		return err
	}
	if err := master.Kill(); err != nil {
		return err
	}
	if err := s.wait(ctx, 2*time.Second); err != nil {
		return err
	}
	if err := replica.ReplicaOf(ctx, "no", "one").Err(); err != nil {
		return err
	}
	for _, one := range s.links.of("edge-", "redis") {
		one.lead(strings.TrimPrefix(spare.URL, "redis://"))
	}
	s.cluster.Redis, s.cluster.Spare = spare, master
	keys, err := replica.DBSize(ctx).Result()
	if err == nil && keys == 0 {
		err = errors.New("the replica was empty: nothing was tested")
	}
	return errors.Join(err, master.Restart(ctx))
}

// following waits until a replica has what its master has.
func following(ctx context.Context, replica *redis.Client) error {
	for end := time.Now().Add(replicaWait); ; {
		info, err := replica.InfoMap(ctx, "replication").Result()
		if err == nil && info["Replication"]["master_link_status"] == "up" {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the replica does not follow: %w", errors.Join(err, fmt.Errorf("%v", info["Replication"])))
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// fullRedis lets Redis have less memory than it uses. The viewers of the node that is
// killed leave, come to others, and come back.
func fullRedis(ctx context.Context, s *strike) (err error) {
	server := dialRedis(s.cluster.Redis)
	defer func() { _ = server.Close() }() // it is only written to here
	refused := func() float64 { return s.metric(ctx, "kansei_redis_errors_total", "op", "tick") }
	before := refused()
	if err := server.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
		return err
	}
	lift := func() error { return server.ConfigSet(context.WithoutCancel(ctx), "maxmemory", "0").Err() }
	// Longer than between two ticks of a quiet node.
	if err := sleep(ctx, 2*time.Second); err != nil {
		return errors.Join(err, lift())
	}
	if refused() <= before {
		err = errors.New("redis has refused nothing: nothing was tested")
	}
	victim := s.edge()
	err = errors.Join(err, victim.Kill(), s.wait(ctx, 8*time.Second), lift())
	return errors.Join(err, victim.Restart(ctx))
}

// lostKeys has Redis lose keys of the presence, any of them.
func lostKeys(ctx context.Context, s *strike) error {
	server := dialRedis(s.cluster.Redis)
	defer func() { _ = server.Close() }() // it is only written to here
	noticed := func() float64 { return s.metric(ctx, "kansei_roster_resyncs_total", "reason", "keys") }
	before := noticed()
	for end := time.Now().Add(s.lasts(10 * time.Second)); time.Now().Before(end); {
		key, err := server.RandomKey(ctx).Result()
		if err == nil {
			err = server.Del(ctx, key).Err()
		}
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		if err := sleep(ctx, time.Duration(50+s.rng.IntN(200))*time.Millisecond); err != nil {
			return err
		}
	}
	for end := time.Now().Add(lookTime); noticed() <= before; {
		if time.Now().After(end) {
			return errors.New("no node has noticed anything: nothing was tested")
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

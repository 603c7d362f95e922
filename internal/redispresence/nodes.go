package redispresence

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Every node keeps a record of itself in Redis, in one hash, and renews it once an interval. By
// the records nodes see who else is alive, whether they have the secrets of this one, and, while
// they ask for it, what the others tell of their logs.
//
// A record says "time accepted pins text": Redis's time in Unix milliseconds, whether the node
// agreed with all others when it came (1 or 0), the fingerprints of what must agree, and what
// [Config.Tell] returned; a newer version may add to it. A node that comes is compared with those that are accepted and alive;
// the first one is accepted. So a node with another secret is refused while there are others,
// and when all have gone the first one decides anew. One that is accepted stays so as long
// as its record is renewed in time and its pins stay the same.

// Pin is a setting that all nodes must agree about.
type Pin struct {
	// Flag is the setting's, such as "--auth-secret".
	Flag string
	// Prints are fingerprints of its values: two settings agree when they have one in
	// common. Without any the setting is not compared.
	Prints []string
}

// PinOf is a pin of secrets. Nobody can tell a secret from its fingerprint but by trying
// secrets out.
func PinOf(flag string, secrets ...[]byte) Pin {
	p := Pin{Flag: flag}
	for _, s := range secrets {
		if len(s) == 0 {
			continue
		}
		h := hmac.New(sha256.New, s)
		_, _ = h.Write([]byte("kansei: fingerprint of " + flag)) // never fails
		p.Prints = append(p.Prints, base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:8]))
	}
	return p
}

// pinText is pins as a record has them, "flag=print,print;flag=print"; "-" when there are none.
func pinText(pins []Pin) string {
	var parts []string
	for _, p := range pins {
		if len(p.Prints) > 0 {
			parts = append(parts, p.Flag+"="+strings.Join(p.Prints, ","))
		}
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ";")
}

var errDiffers = errors.New("differs from the other nodes'")

// nodes is what this node knows of the others.
type nodes struct {
	mu      sync.Mutex
	pins    string   // of this node
	known   string   // the pins that were compared last; empty: none were
	differs []string // the flags in which they differ
	others  []string // what those tell that are alive
	at      time.Time
	written bool // there is a record
}

// sweepNodes is how many intervals pass between two looks at all records. A record costs Redis some
// 25 µs, with a look at those of 20 nodes 0.2 ms, of 100 nodes 0.7 ms.
const sweepNodes = 16

// nodesLua: KEYS 1 the records. ARGV this node's id, in ms how long a record counts, whether to
// look at all of them, whether to answer with what the others tell, the pins, what this node
// tells. Answers the flags that differ, and what the others tell.
const nodesLua = `
redis.call('HDEL', KEYS[1], '') -- behind a deletion a Redis at maxmemory lets everything pass
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local id, counts, ask = ARGV[1], tonumber(ARGV[2]), ARGV[4] == '1'
local function read(record)
  local at, accepted, pins, text = string.match(record or '', '^(%d+) ([01]) (%S+) (%S*)')
  -- A clock may have gone back: Redis has failed over.
  if at and math.abs(now - tonumber(at)) < counts then return accepted == '1', pins, text end
  return nil
end
local accepted, pins = read(redis.call('HGET', KEYS[1], id))
local keeps = accepted and pins == ARGV[5]
local differs, flags, told = {}, {}, {}
if ask or ARGV[3] == '1' or not keeps then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    if all[i] ~= id then
      local other, theirs, text = read(all[i + 1])
      if other == nil then
        redis.call('HDEL', KEYS[1], all[i])
      elseif other then
        told[#told + 1] = text
        for flag, mine in string.gmatch(ARGV[5], '([^;=]+)=([^;]*)') do
          local has, common = {}, nil
          for f, prints in string.gmatch(theirs, '([^;=]+)=([^;]*)') do
            if f == flag then
              common = false
              for p in string.gmatch(prints, '[^,]+') do has[p] = true end
            end
          end
          for p in string.gmatch(mine, '[^,]+') do
            if has[p] then common = true end
          end
          if common == false and not flags[flag] then
            flags[flag] = true
            differs[#differs + 1] = flag
          end
        end
      end
    end
  end
end
redis.call('HSET', KEYS[1], id, string.format('%d %s %s %s', now, #differs == 0 and '1' or '0', ARGV[5], ARGV[6]))
if not ask then told = {} end
return {differs, told}
`

// nodesKey is the key of the records. It lies outside of the buckets, in a slot of its own.
func (r *Presence) nodesKey() string { return fmt.Sprintf("%s:%d:nodes", r.cfg.Prefix, keySpace) }

// SetPins has other pins compared from now on: a secret has been changed while the node runs.
func (r *Presence) SetPins(pins ...Pin) {
	r.nodes.mu.Lock()
	defer r.nodes.mu.Unlock()
	r.nodes.pins = pinText(pins)
}

// Others returns what the other nodes that are alive tell; nothing unless this node has asked
// for it and Redis has answered lately.
func (r *Presence) Others() []string {
	r.nodes.mu.Lock()
	defer r.nodes.mu.Unlock()
	if r.now().Sub(r.nodes.at) > r.cfg.Lease {
		return nil
	}
	return slices.Clone(r.nodes.others)
}

// attend renews this node's record until ctx ends.
func (r *Presence) attend(ctx context.Context) {
	for n, fails := 0, 0; ; n++ {
		err := r.record(ctx, n%sweepNodes == 0)
		if fails++; err == nil {
			fails = 0
		}
		if ctx.Err() == nil {
			r.note(recording, fails, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.cfg.Interval + rand.N(r.cfg.Interval/10+1)):
		}
	}
}

// record renews this node's record once.
func (r *Presence) record(ctx context.Context, all bool) error {
	text, ask := r.cfg.Tell()
	r.nodes.mu.Lock()
	pins := r.nodes.pins
	r.nodes.mu.Unlock()
	v, err := r.run(ctx, opNodes, r.scripts.nodes, []string{r.nodesKey()}, []any{r.id, ms(r.cfg.Lease), flag(all), flag(ask), pins, text})
	if err != nil {
		return err
	}
	if len(v) != 2 {
		return fmt.Errorf("%w: nodes: %.100q", errAnswer, fmt.Sprint(v))
	}
	differs, ok := texts(v[0])
	told, good := texts(v[1])
	if !ok || !good {
		return fmt.Errorf("%w: nodes: %.100q", errAnswer, fmt.Sprint(v))
	}
	r.nodes.mu.Lock()
	defer r.nodes.mu.Unlock()
	r.nodes.known, r.nodes.differs, r.nodes.written = pins, differs, true
	if r.nodes.others = nil; ask {
		r.nodes.others, r.nodes.at = told, r.now()
	}
	return nil
}

// agrees returns nil when this node agrees with the others, and otherwise in what it does not.
func (r *Presence) agrees() error {
	r.nodes.mu.Lock()
	defer r.nodes.mu.Unlock()
	switch n := &r.nodes; {
	case len(n.differs) > 0:
		return fmt.Errorf("redis: %s %w: give all nodes the same", strings.Join(n.differs, ", "), errDiffers)
	case n.known == "":
		return errNoAnswer
	}
	return nil
}

// unrecord takes this node's record out. Where that fails it lapses.
func (r *Presence) unrecord(ctx context.Context) {
	r.nodes.mu.Lock()
	written := r.nodes.written
	r.nodes.mu.Unlock()
	if written && ctx.Err() == nil {
		_ = r.call(ctx, opNodes, func(ctx context.Context) error { return r.cfg.Client.HDel(ctx, r.nodesKey(), r.id).Err() }) // it lapses
	}
}

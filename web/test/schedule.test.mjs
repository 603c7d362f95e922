// When a crowd comes back: every viewer lives through the same loss, each with
// chances of its own, in the time of the fakes.

import assert from "node:assert/strict";
import { test } from "node:test";
import { World, live, welcome } from "./fakes.mjs";

const VIEWERS = 10_000;

// chances is a generator of random numbers that begins with a seed (mulberry32).
function chances(seed) {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

// comeBack has a crowd lose its node, the first of its addresses, and returns when
// each tried for the first time, when it was welcome, and all attempts. up says whether
// an address answers at a time after the loss; one that does not refuses at once.
async function comeBack(urls, up) {
  const first = [], back = [], attempts = [];
  for (let seed = 1; seed <= VIEWERS; seed++) {
    const world = new World();
    world.chance = chances(seed);
    const { room } = await live({ urls }, world);
    await world.pass(20_000);
    const lostAt = world.now;
    world.socket.end();
    const tried = [];
    for (let done = false; !done;) {
      const n = world.sockets.length;
      await world.pass(room.status.retryAt - world.now);
      assert.equal(world.sockets.length, n + 1);
      const at = world.now - lostAt;
      tried.push(at);
      done = up(world.socket.url.host, at);
      if (!done) {
        world.socket.end();
        continue;
      }
      world.socket.open();
      world.socket.say(welcome());
      assert.equal(room.status.state, "live");
    }
    first.push(tried[0]);
    back.push(tried.at(-1));
    attempts.push(...tried);
    room.close();
  }
  return { first, back, attempts };
}

// histogram counts times by parts of ms.
function histogram(times, ms) {
  const counts = [];
  for (const t of times) counts[Math.floor(t / ms)] = (counts[Math.floor(t / ms)] ?? 0) + 1;
  return Array.from(counts, (n) => n ?? 0);
}

const percentile = (times, p) => times.toSorted((a, b) => a - b)[Math.ceil((times.length * p) / 100) - 1];
const told = (times) => `p50 ${Math.round(percentile(times, 50))} ms, p99 ${Math.round(percentile(times, 99))} ms, max ${Math.round(percentile(times, 100))} ms`;

test("a node dies: its viewers are at the next one within a second, evenly", async (t) => {
  const { first, back } = await comeBack(["https://a.test", "https://b.test", "https://c.test"], (host) => host !== "a.test");
  assert.deepEqual(back, first);
  const tenths = histogram(first, 100);
  t.diagnostic(`back: ${told(back)}; in tenths of a second: ${tenths}`);
  assert.equal(tenths.length, 10);
  for (const n of tenths) assert.ok(n > VIEWERS / 10 * 0.85 && n < VIEWERS / 10 * 1.15, `${tenths}`);
});

test("a node dies while the next one is dead: within two seconds, and no half of one has more than twice the average", async (t) => {
  const { first, back } = await comeBack(["https://a.test", "https://b.test", "https://c.test"], (host) => host === "c.test");
  const after = back.map((at, i) => at - first[i]);
  const halves = histogram(back, 500);
  t.diagnostic(`back: ${told(back)}; after the first retry: ${told(after)}; in halves of a second: ${halves}`);
  assert.ok(percentile(after, 99) < 5000);
  assert.ok(percentile(back, 100) <= 2000);
  assert.ok(Math.max(...halves) < 2 * VIEWERS / 4, `${halves}`);
});

test("one address, away for 10 s: it is asked less and less, and its viewers come back in a stream", async (t) => {
  const { back, attempts } = await comeBack(["https://a.test"], (_, at) => at > 10_000);
  const asked = histogram(attempts, 1000);
  const returned = histogram(back, 1000).slice(10);
  t.diagnostic(`asked in each second: ${asked}; back after it: ${told(back.map((at) => at - 10_000))}; in each second: ${returned}`);
  assert.ok(asked[9] < asked[0] / 4, `${asked}`);
  assert.ok(Math.max(...returned) < VIEWERS / 5, `${returned}`);
  assert.ok(percentile(back, 50) < 10_000 + 8000);
  assert.ok(percentile(back, 100) < 10_000 + 30_000);
});

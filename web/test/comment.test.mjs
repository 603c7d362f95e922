import assert from "node:assert/strict";
import { test } from "node:test";
import { KanseiError } from "../sdk/kansei.js";
import { again, join, live, welcome } from "./fakes.mjs";

const sent = (world) => world.sockets.flatMap((s) => s.sentOf("comment"));

// outcome turns a promise into something that can be looked at.
function outcome(promise) {
  const o = { state: "pending" };
  promise.then((value) => Object.assign(o, { state: "done", value }), (err) => Object.assign(o, { state: "refused", err }));
  return o;
}

test("ok resolves with the id", async () => {
  const { world, room } = await live();
  const o = outcome(room.comment("うぽつ", { mediaMs: 5, style: { size: "big" } }));
  const [request] = sent(world);
  assert.deepEqual({ ...request, ref: "" }, { type: "comment", ref: "", text: "うぽつ", media_ms: 5, style: { size: "big" } });
  world.socket.say({ type: "ok", ref: "someone-else", id: "z" });
  await world.pass(0);
  assert.equal(o.state, "pending");
  world.socket.say({ type: "ok", ref: request.ref, id: "1c" });
  await world.pass(0);
  assert.deepEqual(o.value, { id: "1c", held: false, ref: request.ref });
});

test("a position that is no whole number of milliseconds is rounded or left out", async () => {
  const { world, room } = await live();
  for (const mediaMs of [1234.5678, NaN, Infinity, -1]) room.comment("x", { mediaMs }).catch(() => {});
  assert.deepEqual(sent(world).map((r) => r.media_ms), [1235, undefined, undefined, undefined]);
});

test("a refusal rejects with code and retryMs, at once", async () => {
  for (const code of ["bad_message", "unsupported", "too_long", "empty", "rate_limited", "slow_mode", "muted", "forbidden", "locked", "a_later_one"]) {
    const { world, room } = await live();
    const o = outcome(room.comment("x"));
    world.socket.say({ type: "error", ref: sent(world)[0].ref, code, message: "why", retry_ms: 1200 });
    await world.pass(0);
    assert.ok(o.err instanceof KanseiError, code);
    assert.deepEqual([o.err.code, o.err.message, o.err.retryMs], [code, "why", 1200]);
  }
});

test("unavailable and unknown_outcome are tried again with the same ref", async () => {
  const { world, room } = await live();
  const o = outcome(room.comment("x"));
  for (const [i, code] of ["unavailable", "unknown_outcome", "unavailable"].entries()) {
    world.socket.say({ type: "error", ref: sent(world)[0].ref, code, message: "", retry_ms: 2500 });
    await world.pass(2499);
    assert.equal(sent(world).length, i + 1);
    await world.pass(1501);
    assert.equal(sent(world).length, i + 2);
  }
  assert.equal(new Set(sent(world).map((m) => m.ref)).size, 1);
  world.socket.say({ type: "ok", ref: sent(world)[0].ref, id: "1" });
  await world.pass(0);
  assert.equal(o.value.id, "1");
});

test("trying again has an end", async () => {
  const { world, room } = await live();
  const o = outcome(room.comment("x", { timeoutMs: 10_000 }));
  for (let i = 0; i < 20 && o.state === "pending"; i++) {
    world.socket.say({ type: "error", ref: sent(world)[0].ref, code: "unavailable", message: "down" });
    await world.pass(1000);
  }
  assert.equal(o.err.code, "unavailable");
  assert.ok(sent(world).length < 12);

  const silent = outcome(room.comment("y", { timeoutMs: 1e9 }));
  // The server answers beats, but never this.
  for (let i = 0; i < 22; i++) {
    await world.pass(5000);
    world.socket.say({ type: "beat", now: 1 });
  }
  assert.equal(silent.err.code, "unknown_outcome");
});

test("a lost connection: the same ref again in the same session", async () => {
  const { world, room } = await live();
  const o = outcome(room.comment("x"));
  world.socket.end();
  await world.pass(600);
  world.socket.open();
  assert.equal(sent(world).length, 1, "nothing is sent before the welcome");
  world.socket.say(welcome());
  assert.equal(sent(world).length, 2);
  assert.equal(sent(world)[0].ref, sent(world)[1].ref);
  world.socket.say({ type: "ok", ref: sent(world)[1].ref, id: "1c" });
  await world.pass(0);
  assert.equal(o.value.id, "1c");
});

test("another session does not know the ref: better not said than said twice", async () => {
  const { world, room } = await live();
  const perhaps = outcome(room.comment("perhaps said"));
  const not = outcome(room.comment("known not to be said"));
  const refs = sent(world).map((m) => m.ref);
  world.socket.say({ type: "error", ref: refs[1], code: "unavailable", message: "" });
  world.socket.end();
  const waits = outcome(room.comment("made while away"));
  await world.pass(600);
  world.socket.open();
  world.socket.say(welcome({ session: "another-0123456789" }));
  await world.pass(0);
  assert.equal(perhaps.err.code, "unknown_outcome");
  assert.deepEqual(world.socket.sentOf("comment").map((m) => m.text), ["known not to be said", "made while away"]);
  assert.deepEqual([not.state, waits.state], ["pending", "pending"]);
});

test("what may have been said is not called refused: it is asked again, or unknown", async () => {
  for (const [code, want] of [
    ["unavailable", "asked again"], ["unknown_outcome", "asked again"], ["rate_limited", "asked again"], ["slow_mode", "asked again"],
    ["muted", "unknown_outcome"], ["forbidden", "unknown_outcome"], ["locked", "unknown_outcome"], ["a_later_one", "unknown_outcome"],
    ["too_long", "too_long"], ["empty", "empty"], ["bad_message", "bad_message"], ["unsupported", "unsupported"],
  ]) {
    const { world, room } = await live();
    const o = outcome(room.comment("x"));
    world.socket.end();
    await again(world);
    assert.equal(sent(world).length, 2, code);
    world.socket.say({ type: "error", ref: sent(world)[0].ref, code, message: "", retry_ms: 2000 });
    await world.pass(4000);
    if (want !== "asked again") {
      assert.equal(o.err?.code, want, code);
      continue;
    }
    assert.equal(o.state, "pending", code);
    assert.equal(new Set(sent(world).map((m) => m.ref)).size, 1);
    assert.equal(sent(world).length, 3, code);
    // It stays in doubt: another session cannot settle it, and time cannot either.
    world.socket.say({ type: "error", ref: sent(world)[0].ref, code, message: "", retry_ms: 60_000 });
    await world.pass(0);
    assert.equal(o.err.code, "unknown_outcome", code);
  }
  const { world, room } = await live();
  const o = outcome(room.comment("x"));
  world.socket.end();
  await again(world);
  world.socket.say({ type: "error", ref: sent(world)[0].ref, code: "unavailable", message: "" });
  world.socket.end();
  await again(world, { session: "another-0123456789" });
  assert.equal(o.err.code, "unknown_outcome");
  assert.equal(sent(world).length, 2);
});

test("a ref is sent again for 100 s, however long one wants to wait", async () => {
  const { world, room } = await live();
  const began = world.now;
  const o = outcome(room.comment("x", { timeoutMs: 1e9 }));
  let last;
  while (o.state === "pending") {
    if (world.socket.readyState === 0) {
      world.socket.open();
      world.socket.say(welcome());
      last = world.now;
    }
    await world.pass(200);
    if (world.socket.readyState === 1) world.socket.end();
    await world.pass(200);
  }
  assert.equal(o.err.code, "unknown_outcome");
  assert.ok(last - began > 60_000 && last - began <= 100_000, `sent last after ${last - began} ms`);
});

test("what waits is not refused because others were faster", async () => {
  const { world, room } = await live();
  world.socket.end();
  const waits = outcome(room.comment("made while away"));
  await again(world);
  const now = outcome(room.comment("made now"));
  const [first, second] = world.socket.sentOf("comment");
  for (const { ref } of [first, second]) world.socket.say({ type: "error", ref, code: "rate_limited", message: "", retry_ms: 1000 });
  await world.pass(2000);
  assert.equal(now.err.code, "rate_limited");
  assert.deepEqual(world.socket.sentOf("comment").map((m) => m.ref), [first.ref, second.ref, first.ref]);
  world.socket.say({ type: "ok", ref: first.ref, id: "1" });
  await world.pass(0);
  assert.equal(waits.value.id, "1");
});

test("what waits is sent as fast as the server takes it", async () => {
  const { world, room } = await live();
  world.socket.end();
  const outcomes = Array.from({ length: 20 }, (_, i) => outcome(room.comment(`${i}`, { timeoutMs: 60_000 })));
  await again(world, { limits: { text: 200, per_s: 2, burst: 4 } });
  const answer = () => world.socket.sentOf("comment").forEach((m) => world.socket.say({ type: "ok", ref: m.ref, id: m.text }));
  assert.equal(world.socket.sentOf("comment").length, 4);
  answer();
  await world.pass(2000);
  assert.equal(world.socket.sentOf("comment").length, 8);
  for (let i = 0; i < 8; i++) {
    answer();
    await world.pass(1000);
  }
  assert.deepEqual(world.socket.sentOf("comment").map((m) => m.text), Array.from({ length: 20 }, (_, i) => `${i}`));
  assert.ok(outcomes.every((o) => o.state === "done"));
});

test("an answer that does not come finds out a dead connection before the next beat", async () => {
  const { world, room, of } = await live();
  const o = outcome(room.comment("x"));
  await world.pass(2999);
  assert.equal(world.socket.sentOf("beat").length, 0);
  await world.pass(1);
  assert.equal(world.socket.sentOf("beat").length, 1);
  await world.pass(10_000);
  assert.ok(of("status").some((s) => s.reason === "silent"));
  await again(world);
  world.socket.say({ type: "ok", ref: sent(world)[1].ref, id: "1c" });
  await world.pass(0);
  assert.equal(o.value.id, "1c");

  const lively = await live();
  outcome(lively.room.comment("x"));
  lively.world.socket.say({ type: "ok", ref: sent(lively.world)[0].ref, id: "1" });
  await lively.world.pass(5000);
  assert.equal(lively.world.socket.sentOf("beat").length, 0);
});

test("order is kept over a reconnect", async () => {
  const { world, room } = await live();
  const outcomes = ["a", "b", "c"].map((t) => outcome(room.comment(t)));
  world.socket.end();
  await again(world);
  assert.deepEqual(world.socket.sentOf("comment").map((m) => m.text), ["a", "b", "c"]);

  // Those who have waited for too long by then are not said any more.
  world.socket.end();
  await world.pass(30_000);
  assert.deepEqual(outcomes.map((o) => o.err.code), Array(3).fill("unknown_outcome"));
  world.socket.end();
  await again(world);
  outcome(room.comment("d"));
  assert.deepEqual(world.socket.sentOf("comment").map((m) => m.text), ["d"]);
});

test("never connected: unavailable, because it was not sent", async () => {
  const { world, room } = await join();
  const o = outcome(room.comment("x", { timeoutMs: 5000 }));
  await world.pass(5000);
  assert.equal(o.err.code, "unavailable");
});

test("the end of the connection is the end of what waits", async () => {
  const { world, room } = await live();
  const o = outcome(room.comment("x"));
  world.socket.end(4403, "banned");
  await world.pass(0);
  assert.equal(o.err.code, "closed");
  await assert.rejects(room.comment("y"), { code: "closed" });
});

test("what waits is bounded, and refs are not used twice at once", async () => {
  const { world, room } = await join();
  const outcomes = Array.from({ length: 101 }, (_, i) => outcome(room.comment(`${i}`)));
  await world.pass(0);
  assert.equal(outcomes.filter((o) => o.state === "refused").length, 1);
  assert.equal(outcomes[100].err.code, "unavailable");

  const other = await live();
  outcome(other.room.comment("x", { ref: "mine" }));
  await assert.rejects(other.room.comment("y", { ref: "mine" }), TypeError);
  await assert.rejects(other.room.comment(5), TypeError);
});

test("an error that answers nothing is an event", async () => {
  const { world, of } = await live();
  world.socket.say({ type: "error", code: "bad_message", message: "the message is not JSON" });
  world.socket.say({ type: "error", ref: "long gone", code: "empty", message: "" });
  assert.equal(of("error").length, 1);
  assert.equal(of("error")[0].code, "bad_message");
});

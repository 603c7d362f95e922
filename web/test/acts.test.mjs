// Acts of moderators and changes of the state.

import assert from "node:assert/strict";
import { test } from "node:test";
import { live } from "./fakes.mjs";

test("an act resolves with its id", async () => {
  const { world, room } = await live();
  const done = room.act("mute", { user: "ken", for_ms: 60_000, reason: "spam", ref: "a" });
  assert.deepEqual(world.socket.sentOf("mute"), [{ type: "mute", ref: "a", user: "ken", for_ms: 60_000, reason: "spam" }]);
  world.socket.say({ type: "ok", ref: "a", act: "x", cursor: "c" });
  assert.deepEqual(await done, { ref: "a", act: "x", cursor: "c" });
  room.close();
});

test("what no server takes is not sent", async () => {
  const { world, room } = await live();
  await assert.rejects(room.act("mute", {}), { code: "bad_message" });
  await assert.rejects(room.act("remove", { user: "ken" }), TypeError);
  await assert.rejects(room.act("explode", {}), TypeError);
  await assert.rejects(room.act("toString", {}), TypeError);
  await assert.rejects(room.set([]), TypeError);
  await assert.rejects(room.set(null), TypeError);
  assert.equal(world.socket.sent.filter((m) => m.type !== "beat").length, 0);
  room.close();
});

test("a conflict has the state", async () => {
  const { world, room } = await live();
  const set = room.set({ notice: "n" }, { rev: 3, ref: "s" });
  assert.deepEqual(world.socket.sentOf("set"), [{ type: "set", ref: "s", rev: 3, state: { notice: "n" } }]);
  world.socket.say({ type: "error", ref: "s", code: "conflict", message: "m", state: { rev: 4, status: "live" } });
  await assert.rejects(set, { code: "conflict", state: { rev: 4, status: "live" } });
  const again = room.set({ notice: null }, { ref: "t" });
  world.socket.say({ type: "ok", ref: "t", rev: 5 });
  assert.deepEqual(await again, { ref: "t", rev: 5 });
  room.close();
});

test("a ban that ends is come back from, another one is not", async () => {
  const { world, room } = await live();
  world.socket.end(4403, "you are banned: spam retry_ms=60000");
  assert.equal(room.status.state, "reconnecting");
  assert.equal(room.status.reason, "banned");
  assert.ok(room.status.retryInMs >= 60_000);
  await world.pass(room.status.retryInMs + 1);
  world.socket.open();
  world.socket.end(4403, "you are banned: spam");
  assert.equal(room.status.state, "closed");
  assert.equal(room.status.reason, "banned");
});

// Events of the application.

import assert from "node:assert/strict";
import { test } from "node:test";
import { live } from "./fakes.mjs";

test("an event resolves with its id", async () => {
  const { world, room } = await live();
  const done = room.event("gift", { data: { amount: 5 }, audience: "staff", lasting: true, ref: "e" });
  assert.deepEqual(world.socket.sentOf("event"), [{ type: "event", ref: "e", name: "gift", data: { amount: 5 }, audience: "staff", lasting: true }]);
  world.socket.say({ type: "ok", ref: "e", id: "x1" });
  assert.deepEqual(await done, { ref: "e", id: "x1" });
  room.comment("yes", { data: { card: 17 }, ref: "c" }).catch(() => {});
  assert.deepEqual(world.socket.sentOf("comment")[0].data, { card: 17 });
  room.close();
});

test("what no server takes is not sent", async () => {
  const { world, room } = await live();
  await assert.rejects(room.event("a gift"), { code: "bad_message" });
  await assert.rejects(room.event("gift", { data: [1] }), { code: "bad_message" });
  await assert.rejects(room.event("gift", { data: new Date() }), { code: "bad_message" });
  await assert.rejects(room.event("gift", { audience: "mods" }), { code: "bad_message" });
  await assert.rejects(room.event("gift", { data: { a: "x".repeat(4100) } }), { code: "too_long" });
  await assert.rejects(room.comment("x", { data: { a: "あ".repeat(400) } }), { code: "too_long" });
  assert.equal(world.socket.sent.filter((m) => m.type !== "beat").length, 0);
  room.close();
});

test("an event comes once, and moves the cursor", async () => {
  const { world, room } = await live();
  const got = [];
  room.on("event", (e) => got.push([e.name, e.past, room.cursor]));
  const gift = { type: "event", id: "x1", at: 5, user: { id: "u" }, name: "gift", cursor: "c1" };
  world.socket.say(gift);
  world.socket.say(gift);
  world.socket.say({ type: "event", id: "x0", at: 4, user: { id: "u" }, name: "slide", lasting: true });
  assert.deepEqual(got, [["gift", false, "c1"], ["slide", true, "c1"]]);
  room.close();
});

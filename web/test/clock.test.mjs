// Clocks: devices sleep, and the time of day is set.

import assert from "node:assert/strict";
import { test } from "node:test";
import { steadyClock } from "../sdk/platform.js";
import { again, join, live, welcome } from "./fakes.mjs";

test("the clock goes on through sleep and steps of the time of day", () => {
  const p = { wall: 1e12, mono: 50, now: () => p.wall, monotonic: () => p.mono };
  const now = steadyClock(p);
  const passes = (wall, mono) => { p.wall += wall; p.mono += mono; return now(); };
  assert.equal(now(), 0);
  assert.equal(passes(100, 100), 100);
  assert.equal(passes(600_000, 0), 600_100, "asleep");
  assert.equal(passes(-3_600_000, 10), 600_110, "set back");
  assert.equal(passes(10, 10), 600_120);
  const alone = { wall: 1e12, now: () => alone.wall }; // without a second clock
  const then = steadyClock(alone);
  alone.wall -= 5000;
  assert.equal(then(), 0);
  alone.wall += 7;
  assert.equal(then(), 7);
});

test("a comment is not said again after a sleep: the log has forgotten its ref", async () => {
  const { world, room } = await live();
  const said = room.comment("hello").then(() => "ok", (err) => err.code);
  assert.equal(world.socket.sentOf("comment").length, 1);
  world.now += 10 * 60_000; // while no timer runs
  world.socket.end();
  world.window.dispatchEvent(new Event("online"));
  await again(world);
  assert.equal(world.socket.sentOf("comment").length, 0);
  assert.equal(await said, "unknown_outcome");
});

test("the time of day is set back by an hour: waits are what they were", async () => {
  const { world, of } = await live();
  world.verdict = async () => new Response(JSON.stringify({ retry_ms: 5000, code: "unavailable" }), { status: 503 });
  world.socket.end(1012, "retry_ms=2000");
  world.now -= 3_600_000;
  await world.pass(3500);
  assert.equal(world.sockets.length, 2);
  world.socket.end();
  await world.pass(0);
  assert.equal(of("status").at(-1).reason, "overloaded");
  world.now -= 3_600_000;
  await world.pass(10_000);
  assert.equal(world.sockets.length, 3);
  world.socket.open();
  world.socket.say(welcome());
  world.now -= 3_600_000;
  for (let i = 0; i < 3; i++) {
    await world.pass(30_000);
    world.socket.say({ type: "beat", now: 1 });
  }
  assert.equal(of("status").at(-1).state, "live");
  world.socket.end();
  assert.ok(of("status").at(-1).retryAt >= world.now, "what is shown is in the time of day");
});

test("a device that wakes up with its time of day set back comes back at once", async () => {
  const { world } = await join();
  world.socket.end();
  world.now -= 3_600_000;
  await world.pass(1000);
  world.window.dispatchEvent(new Event("online"));
  await world.pass(1000);
  assert.ok(world.sockets.length >= 2);
});

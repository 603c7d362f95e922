// close() may be called at any time, in a listener too, and is for good.

import assert from "node:assert/strict";
import { test } from "node:test";
import { World, again, comments, join, welcome } from "./fakes.mjs";

// ends checks that a connection that was closed does nothing more.
async function ends(world, room, events) {
  await world.pass(0);
  assert.equal(room.status.state, "closed");
  const { length } = events;
  const sockets = world.sockets.length;
  assert.equal(world.timers, 0, "no timer");
  world.window.dispatchEvent(new Event("online"));
  for (const s of world.sockets) {
    s.onopen?.();
    s.say(welcome());
    s.say(comments("c9", ["9"]));
    s.end();
  }
  await world.pass(600_000);
  assert.equal(world.sockets.length, sockets, "it does not come back");
  assert.deepEqual(events.slice(length), [], "it says nothing more");
  assert.equal(room.status.state, "closed");
}

for (const [name, on, happens] of [
  ["the first status", (room, f) => room.on("status", (s) => s.state === "connecting" && f()), () => {}],
  ["live", (room, f) => room.on("status", (s) => s.state === "live" && f()), (w) => w.socket.say(welcome())],
  ["welcome", (room, f) => room.on("welcome", f), (w) => w.socket.say(welcome())],
  ["comments", (room, f) => room.on("comments", f), (w) => { w.socket.say(welcome()); w.socket.say(comments("c1", ["1"])); }],
  ["error", (room, f) => room.on("error", f), (w) => { w.socket.say(welcome()); w.socket.say("no JSON"); }],
  ["reconnect", (room, f) => room.on("reconnect", f), (w) => { w.socket.say(welcome()); w.socket.say({ type: "reconnect", after_ms: 1000 }); }],
  ["a loss", (room, f) => room.on("status", (s) => s.state === "reconnecting" && f()), (w) => w.socket.end()],
  ["an end for good", (room, f) => room.on("status", (s) => s.state === "closed" && f()), (w) => w.socket.end(4403)],
]) {
  test(`closed in a listener: ${name}`, async () => {
    const world = new World();
    const { room, events } = await join({}, world);
    room.on("viewers", () => {});
    on(room, () => room.close());
    if (name === "the first status") {
      world.socket.end(); // the attempt that there was before the listener
      await world.pass(2000);
    } else {
      world.socket.open();
      happens(world);
    }
    await ends(world, room, events);
  });
}

test("closed in a listener: while moving, when the node goes first", async () => {
  const world = new World();
  const { room, events } = await join({}, world);
  world.socket.open();
  world.socket.say(welcome());
  world.socket.say({ type: "reconnect", after_ms: 100 });
  await world.pass(200);
  assert.equal(world.sockets.length, 2);
  room.on("status", (s) => s.state === "connecting" && room.close());
  world.sockets[0].end(1012);
  await ends(world, room, events);
});

test("closed in a listener: after a token that could not be had", async () => {
  const world = new World();
  const { room, events } = await join({ getToken: async () => { throw new Error("no"); } }, world);
  assert.equal(room.status.reason, "token");
  room.on("error", () => room.close());
  await world.pass(5000);
  await ends(world, room, events);
});

test("closed in a listener: a gap before the comments that were compared", async () => {
  const world = new World();
  const { room, events } = await join({}, world);
  world.socket.open();
  world.socket.say(welcome());
  world.socket.say(comments("c1", ["1"]));
  world.socket.end();
  await again(world, { recovered: false });
  room.on("gap", () => room.close());
  world.socket.say(comments("c7", ["7"], { history: true }));
  await ends(world, room, events);
  assert.ok(!events.some(([type, m]) => type === "comments" && m.cursor === "c7"));
});

test("the other listeners of the same event hear nothing once it is closed", async () => {
  const { room, world } = await join();
  const heard = [];
  room.on("welcome", () => room.close());
  room.on("welcome", () => heard.push("welcome"));
  room.on("status", (s) => heard.push(s.state));
  world.socket.open();
  world.socket.say(welcome());
  assert.deepEqual(heard, ["live", "closed"]);
});

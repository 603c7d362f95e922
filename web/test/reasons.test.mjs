// Why there is no connection, as far as it can be found out, and what to do about it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../sdk/kansei.js";
import { World, attempt, join } from "./fakes.mjs";

const answer = (status, body, type = "application/json") => new Response(body === undefined ? null : body, { status, headers: { "Content-Type": type } });

// fails makes n attempts that fail, and what HTTP says about each.
async function fails(world, n) {
  for (let i = 0; i < n; i++) {
    world.socket.end();
    await world.pass(0);
    await attempt(world);
  }
  world.socket.end();
  await world.pass(0);
}

test("a page of another origin: said as such, retried slowly, told once", async () => {
  const world = new World();
  world.verdict = async () => answer(403, JSON.stringify({ code: "forbidden", status: 403 }), "application/problem+json");
  const { room, of } = await join({}, world);
  await fails(world, 4);
  assert.deepEqual([room.status.state, room.status.reason], ["reconnecting", "origin"]);
  assert.equal(world.warned.length, 1);
  assert.match(world.warned[0], /--origin/);
  assert.ok(!of("status").some((s) => s.state === "closed"), "an operator may permit it");
});

test("with a token the question is asked again without: a browser needs leave to send one", async () => {
  const world = new World();
  world.verdict = async (_, { headers }) => {
    if (headers.Authorization) throw new TypeError("preflight");
    return answer(403, JSON.stringify({ code: "forbidden" }));
  };
  const { room } = await join({ token: "t" }, world);
  await fails(world, 0);
  assert.equal(room.status.reason, "origin");
  assert.deepEqual(world.fetched.map((f) => Object.keys(f.init.headers).length), [1, 0]);
});

test("something else answers there", async () => {
  for (const [status, body] of [[200, "<html>"], [404, "<html>not found"], [404, "{}"], [200, "[]"], [405, ""]]) {
    const world = new World();
    world.verdict = async () => answer(status, body, "text/html");
    const { room } = await join({}, world);
    await fails(world, 1);
    assert.equal(room.status.reason, "not_kansei", `${status} ${body}`);
    assert.equal(world.warned.length, 1);
  }
  // A proxy whose node is away, and a node that only does not take the upgrade, are no strangers.
  for (const [status, body] of [[502, "<html>"], [504, ""], [200, JSON.stringify({ room: "r" })], [404, JSON.stringify({ code: "no_room" })], [401, JSON.stringify({ code: "unauthorized" })]]) {
    const world = new World();
    world.verdict = async () => answer(status, body);
    const { room } = await join({}, world);
    await fails(world, 1);
    assert.equal(room.status.reason, "lost", `${status} ${body}`);
    assert.equal(world.warned.length, 0);
  }
});

test("a cause is forgotten when it has gone", async () => {
  const world = new World();
  world.verdict = async () => answer(404, "<html>");
  const { room } = await join({}, world);
  await fails(world, 1);
  assert.equal(room.status.reason, "not_kansei");
  world.verdict = async () => answer(502, "");
  await attempt(world);
  await fails(world, 1);
  assert.equal(room.status.reason, "lost");
});

test("offline", async () => {
  const world = new World();
  const { room } = await join({}, world);
  world.isOnline = false;
  world.socket.end();
  assert.deepEqual([room.status.state, room.status.reason], ["offline", "offline"]);
});

test("a socket of Node's ws: its error event has a listener, or the process ends", async () => {
  const { world } = await join();
  assert.equal(typeof world.socket.onerror, "function");
  world.socket.onerror({ message: "connect ECONNREFUSED" });
  world.socket.end();
});

test("a page that may not connect there", async () => {
  const world = new World();
  world.dialFails = new DOMException("an insecure WebSocket from a page over TLS", "SecurityError");
  const { room } = await join({}, world);
  assert.deepEqual([room.status.state, room.status.reason], ["closed", "url"]);
  assert.equal(world.warned.length, 1);
});

test("without url the file must come from a server", () => {
  const { platform } = { platform: new World().platform() };
  // This file does not.
  assert.throws(() => connect({ room: "r" }, platform), (err) => err instanceof TypeError && /give url/.test(err.message));
  assert.throws(() => connect({ room: "r", url: "kansei example" }, platform), /https:\/\/kansei\.example/);
  assert.throws(() => connect({ room: "r", url: "file:///x" }, platform), /must begin with http/);
});

test("a token function that has none", async () => {
  for (const token of [undefined, null, "", "\n", 7]) {
    const world = new World();
    const { room, of } = await join({ getToken: async () => token }, world);
    assert.deepEqual([room.status.reason, world.sockets.length, world.warned.length], ["token", 0, 1], String(token));
    assert.equal(of("error").at(-1).code, "token");
    room.close();
  }
});

test("a token that ends with a line feed, as files do", async () => {
  for (const options of [{ token: "a.b.c\n" }, { getToken: () => " a.b.c\r\n" }]) {
    const { world } = await join(options);
    assert.deepEqual(world.socket.protocols, ["kansei.v1", "bearer.a.b.c"]);
  }
});

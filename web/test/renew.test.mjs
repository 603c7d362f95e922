// A fresh token over the open connection.

import assert from "node:assert/strict";
import { test } from "node:test";
import { live } from "./fakes.mjs";

const jwt = (n) => `eyJhbGciOiJIUzI1NiJ9.${btoa(`{"n":${n}}`).replaceAll("=", "")}.c2ln`;

test("renew: a fresh token is fetched and sent, and the next connection comes with it", async () => {
  let n = 0;
  const { world, of } = await live({ getToken: () => jwt(++n) });
  const first = world.socket;
  assert.ok(first.protocols.includes(`bearer.${jwt(1)}`));
  first.say({ type: "renew", ends: 1 });
  await world.pass(0);
  assert.deepEqual(first.sentOf("auth"), [{ type: "auth", ref: "kansei-auth", token: jwt(2) }]);
  first.say({ type: "ok", ref: "kansei-auth" });
  first.say({ type: "you", id: "u", name: "", role: "viewer", can: ["comment"], ends: 2, limits: { text: 10, per_s: 1, burst: 5 } });
  assert.equal(of("you").length, 1);
  assert.equal(of("error").length, 0);
  first.end(1006);
  await world.pass(5000);
  assert.notEqual(world.socket, first);
  assert.ok(world.socket.protocols.includes(`bearer.${jwt(2)}`));
  assert.equal(n, 2);
});

test("renew: without a source, with the same token, or when it fails, nothing is sent", async () => {
  for (const [name, options, errors] of [
    ["a token alone", { token: jwt(1) }, 0],
    ["the same token", { getToken: () => jwt(1) }, 0],
    ["a failure", { getToken: (() => { let n = 0; return () => { if (n++) throw new Error("no network"); return jwt(1); }; })() }, 1],
    ["no JWT", { getToken: (() => { let n = 0; return () => (n++ ? "" : jwt(1)); })() }, 1],
  ]) {
    const { world, of } = await live(options);
    world.socket.say({ type: "renew", ends: 1 });
    await world.pass(0);
    assert.deepEqual(world.socket.sentOf("auth"), [], name);
    assert.equal(of("error").length, errors, name);
    assert.equal(of("status").at(-1).state, "live", name);
  }
});

test("renew: what the server refuses is told", async () => {
  let n = 0;
  const { world, of } = await live({ getToken: () => jwt(++n) });
  world.socket.say({ type: "renew", ends: 1 });
  await world.pass(0);
  world.socket.say({ type: "error", ref: "kansei-auth", code: "forbidden", message: "another user's" });
  assert.deepEqual(of("error").map((e) => e.code), ["forbidden"]);
});

test("you: limits that have changed count for what is said next", async () => {
  const { world, room } = await live();
  world.socket.say({ type: "you", id: "u", name: "", role: "viewer", can: ["comment"], limits: { text: 3, per_s: 1, burst: 5 } });
  await assert.rejects(room.comment("four"), { code: "too_long" });
});

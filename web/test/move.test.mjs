// A node that is leaving.

import assert from "node:assert/strict";
import { test } from "node:test";
import { World, attempt, comments, live, welcome } from "./fakes.mjs";

const states = (of) => of("status").map((s) => s.state);
const ids = (of) => of("comments").flatMap((m) => m.items.map((c) => c.id));

// moving is live, with a node that has sent the viewer to another, which is not open yet.
const moving = async (options = {}, world = new World()) => {
  const joined = await live(options, world);
  const first = world.socket;
  first.say({ type: "reconnect", after_ms: 4200 });
  first.say(comments("c1", ["1"]));
  await world.pass(4199);
  assert.equal(world.sockets.length, 1);
  await world.pass(1);
  assert.equal(world.sockets.length, 2);
  assert.equal(first.closedWith, null);
  return { ...joined, first, second: world.socket };
};

test("reconnect: stays until the told time, comes in elsewhere, and then leaves", async () => {
  const { world, of, room, first, second } = await moving();
  assert.equal(second.url.searchParams.get("since"), "c1");
  assert.equal(second.url.searchParams.get("session"), "session-0123456789");
  const said = room.comment("meanwhile", { ref: "r1" }).catch((err) => err);
  assert.equal(first.sentOf("comment").length, 1);
  first.say(comments("c3", ["2", "3"])); // in flight on both
  second.open();
  assert.equal(first.closedWith, null);
  first.say(comments("c4", ["4"]));
  second.say(welcome());
  assert.equal(first.closedWith, 1000);
  assert.equal(second.closedWith, null);
  first.say(comments("c5", ["5"])); // comes from the other too
  first.end(1000);
  second.say(comments("c6", ["2", "3", "4", "5", "6"]));
  assert.deepEqual(ids(of), ["1", "2", "3", "4", "5", "6"]);
  assert.equal(of("gap").length, 0);
  assert.deepEqual(states(of), ["connecting", "live"]);
  assert.equal(of("welcome").length, 2);
  assert.equal(of("reconnect").length, 1);
  // What was not answered is asked again, under its ref.
  assert.equal(second.sentOf("comment")[0].ref, "r1");
  second.say({ type: "ok", ref: "r1", id: "7" });
  assert.equal((await said).id, "7");
  await world.pass(30_000);
  assert.equal(second.sentOf("beat").length, 1);
  assert.equal(first.sentOf("beat").length, 0);
  assert.equal(world.sockets.length, 2);
  room.close();
  assert.equal(second.closedWith, 1000);
  assert.equal(world.timers, 0);
});

test("reconnect: where it is not welcome it does not go; it tries again", async () => {
  for (const [name, refuse, waits] of [
    ["another leaving node", (s) => { s.open(); s.end(1012, "retry_ms=300"); }, 0],
    ["refused", (s) => s.end(), 0],
    ["not recovered", (s) => { s.open(); s.say(welcome({ recovered: false })); }, 0],
    ["nonsense", (s) => { s.open(); s.say("{"); }, 0],
    ["silence", (s) => s.open(), 5000],
  ]) {
    const { world, of, first, second } = await moving();
    refuse(second);
    await world.pass(waits);
    assert.equal(first.closedWith, null, name);
    first.say(comments("c2", ["2"]));
    await world.pass(1000);
    assert.equal(world.sockets.length, 3, name);
    assert.equal(world.socket.url.searchParams.get("since"), "c2", name);
    assert.equal(world.fetched.length, name === "refused" ? 1 : 0, name);
    world.socket.open();
    world.socket.say(welcome());
    world.socket.say(comments("c3", ["2", "3"]));
    assert.deepEqual(ids(of), ["1", "2", "3"], name);
    assert.deepEqual(states(of), ["connecting", "live"], name);
    assert.equal(first.closedWith, 1000, name);
  }
});

test("reconnect: a node that closes while another is looked for", async () => {
  const { world, of, first, second } = await moving();
  first.end(1012, "leaving retry_ms=300");
  assert.deepEqual(states(of), ["connecting", "live", "connecting"]);
  second.open();
  second.say(welcome());
  second.say(comments("c2", ["1", "2"]));
  assert.deepEqual(states(of), ["connecting", "live", "connecting", "live"]);
  assert.deepEqual(ids(of), ["1", "2"]);
  assert.equal(world.sockets.length, 2);

  const lost = await moving();
  lost.first.end(1012, "leaving retry_ms=300");
  lost.second.end();
  assert.equal(lost.of("status").at(-1).state, "reconnecting");

  const banned = await moving();
  banned.first.end(4403);
  assert.equal(banned.of("status").at(-1).reason, "banned");
  assert.equal(banned.second.closedWith, 1000);
  assert.equal(banned.world.timers, 0);

  const closed = await moving();
  closed.room.close();
  assert.deepEqual([closed.first.closedWith, closed.second.closedWith, closed.world.timers], [1000, 1000, 0]);
});

test("reconnect: a node that closes earlier is not hurried", async () => {
  const { world, of } = await live();
  world.socket.say({ type: "reconnect", after_ms: 10_000 });
  await world.pass(2000);
  world.socket.end(1001);
  const s = of("status").at(-1);
  assert.equal(s.reason, "restart");
  assert.ok(s.retryInMs >= 8000 && s.retryInMs <= 9600);
});


test("reconnect: a move that is refused keeps the told time", async () => {
  const full = async () => new Response(JSON.stringify({ status: 503, retry_ms: 9000 }), { status: 503, headers: { "Retry-After": "9" } });
  for (const [name, refuse] of [
    ["a full node", (world) => { world.verdict = full; world.socket.end(); }],
    ["a leaving node", (world) => { world.socket.open(); world.socket.end(1012, "leaving retry_ms=9000"); }],
  ]) {
    const { world, of, first } = await moving();
    const at = world.now;
    refuse(world);
    await world.setVisible(true); // no reason to hurry
    world.verdict = () => Promise.reject(new TypeError("gone"));
    first.say({ type: "beat", now: 1 });
    await attempt(world);
    assert.ok(world.now - at >= 9000 && world.now - at <= 10_100, `${name}: ${world.now - at} ms`);
    assert.deepEqual(states(of), ["connecting", "live"], name);
    assert.equal(first.closedWith, null, name);
  }

  // Also if the node has closed meanwhile.
  const world = new World();
  world.verdict = full;
  const { first, of } = await moving({}, world);
  const at = world.now;
  world.socket.end();
  await world.pass(2000);
  first.end(1012, "leaving retry_ms=300");
  await world.pass(1000);
  assert.equal(of("status").at(-1).reason, "overloaded");
  await attempt(world);
  assert.ok(world.now - at >= 9000 && world.now - at <= 10_100, `${world.now - at} ms`);
});

test("reconnect: attempts to move that fail make no wait longer afterwards", async () => {
  const { world, of, first } = await moving();
  for (let i = 0; i < 5; i++) {
    world.socket.end();
    await attempt(world);
  }
  await world.pass(5000);
  first.end(1012, "leaving retry_ms=300");
  assert.equal(of("status").at(-1).retryInMs, 800);
});

test("reconnect: a token that has expired since is replaced", async () => {
  let n = 0;
  const { world, of, first } = await moving({ getToken: () => `t.t.${++n}` });
  world.socket.open();
  world.socket.end(4401, "the token has expired");
  await world.pass(0);
  assert.equal(world.sockets.length, 3);
  assert.deepEqual(world.socket.protocols, ["kansei.v1", "bearer.t.t.2"]);
  world.socket.open();
  world.socket.say(welcome());
  assert.equal(first.closedWith, 1000);
  assert.deepEqual(states(of), ["connecting", "live"]);
});

test("reconnect: who is not wanted elsewhere does not insist", async () => {
  for (const [name, code, options, attempts, reason] of [
    ["banned", 4403, {}, 1, "banned"],
    ["one token", 4401, { token: "a.b.c" }, 1, "unauthorized"],
    ["tokens that are refused", 4401, { getToken: () => "a.b.c" }, 4, "unauthorized"],
  ]) {
    const { world, of, first } = await moving(options);
    const before = world.sockets.length - 1;
    for (let n = 0; n !== world.sockets.length;) {
      n = world.sockets.length;
      world.socket.open();
      world.socket.end(code);
      await world.pass(2000);
      first.say({ type: "beat", now: 1 });
    }
    assert.equal(world.sockets.length - before, attempts, name);
    assert.equal(first.closedWith, null, name);
    assert.equal(of("status").at(-1).state, "live", name);
    first.end(1012, "leaving");
    await attempt(world);
    world.socket.open();
    world.socket.end(code);
    assert.deepEqual([of("status").at(-1).state, of("status").at(-1).reason, world.timers], ["closed", reason, 0], name);
  }
});

test("reconnect: a token that does not come is not waited for", async () => {
  let n = 0;
  const { world, of, first } = await moving({ getToken: () => (++n === 2 ? new Promise(() => {}) : `t.t.${n}`) });
  world.socket.open();
  world.socket.end(4401);
  await world.pass(5000);
  assert.equal(world.sockets.length, 2);
  assert.equal(first.closedWith, null);
  await attempt(world);
  assert.deepEqual(world.socket.protocols, ["kansei.v1", "bearer.t.t.3"]);
  assert.deepEqual(states(of), ["connecting", "live"]);
});

test("reconnect: a token that comes when it is too late opens nothing", async () => {
  const tokens = [];
  const { world, first } = await moving({ getToken: () => (tokens.length ? new Promise((resolve) => tokens.push(resolve)) : (tokens.push(null), "t.t.1")) });
  world.socket.open();
  world.socket.end(4401);
  await world.pass(0);
  assert.equal(tokens.length, 2);
  first.end(1012, "leaving retry_ms=300");
  await world.pass(2000);
  assert.equal(tokens.length, 3);
  tokens[1]("t.t.2");
  await world.pass(0);
  assert.equal(world.sockets.length, 2);
  tokens[2]("t.t.3");
  await world.pass(0);
  assert.equal(world.sockets.length, 3);
  assert.deepEqual(world.socket.protocols, ["kansei.v1", "bearer.t.t.3"]);
});

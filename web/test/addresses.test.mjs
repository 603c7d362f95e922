// More than one address.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../sdk/kansei.js";
import { World, attempt, comments, join, live, welcome } from "./fakes.mjs";

const urls = ["https://a.test", new URL("ws://b.test:8080/live/"), "https://c.test"];
const hosts = (world) => world.sockets.map((s) => s.url.hostname[0]).join("");

// busy answers the question why with that number of seconds.
const busy = (seconds) => async () => new Response("", { status: 503, headers: { "Retry-After": String(seconds) } });

test("what is no list of addresses is refused", () => {
  for (const bad of [[], "https://a.test", {}, 5, ["https://a.test", "ftp://b.test"], [""], ["b.test"]]) {
    assert.throws(() => connect({ room: "r", urls: bad }, new World().platform()), TypeError, JSON.stringify(bad));
  }
});

test("it begins with the first address, and goes on to the next after each loss and each failure", async () => {
  const { world } = await join({ urls });
  assert.equal(world.socket.url.href, "wss://a.test/v1/rooms/r/ws?visible=1");
  world.socket.end();
  await attempt(world);
  world.socket.open();
  world.socket.say(welcome());
  world.socket.say(comments("c1", ["1"]));
  world.socket.end(4408);
  await attempt(world);
  assert.equal(world.socket.url.href, "wss://c.test/v1/rooms/r/ws?since=c1&session=session-0123456789&visible=1");
  await world.pass(15_000); // no welcome comes
  await attempt(world);
  assert.equal(hosts(world), "abca");
  assert.equal(world.sockets[1].url.href, "ws://b.test:8080/live/v1/rooms/r/ws?visible=1");
});

test("the wait grows when all addresses have failed", async () => {
  const world = new World();
  world.chance = () => 1;
  const { of } = await join({ urls }, world);
  const waits = [];
  for (let i = 0; i < 9; i++) {
    world.socket.end();
    waits.push(of("status").at(-1).retryInMs);
    await world.pass(waits.at(-1));
  }
  assert.deepEqual(waits, [1000, 1000, 1000, 2000, 2000, 2000, 4000, 4000, 4000]);
});

test("why it refused is asked of the one that refused; the others are not spared for it", async () => {
  const world = new World();
  world.verdict = busy(20);
  const { of } = await join({ urls }, world);
  world.socket.end();
  await world.pass(0);
  assert.deepEqual(world.fetched.map((f) => f.url), ["https://a.test/v1/rooms/r"]);
  await world.pass(500);
  assert.equal(hosts(world), "ab");
  world.verdict = busy(60);
  world.socket.end();
  await attempt(world);
  assert.equal(world.fetched.at(-1).url, "http://b.test:8080/live/v1/rooms/r");
  assert.equal(hosts(world), "abc");
  // Now all of them are busy: the first that may be asked again is the first.
  world.socket.end();
  await world.pass(0);
  const s = of("status").at(-1);
  assert.deepEqual([s.state, s.reason], ["reconnecting", "overloaded"]);
  assert.ok(s.retryInMs > 18_000 && s.retryInMs < 22_000, `${s.retryInMs}`);
  await world.setVisible(true);
  await world.setOnline(true);
  await world.pass(s.retryInMs - 100);
  assert.equal(hosts(world), "abc");
  await world.pass(100);
  assert.equal(hosts(world), "abca");
});

test("a welcome ends what was told", async () => {
  const world = new World();
  let late;
  world.verdict = () => new Promise((resolve) => { late = resolve; });
  await join({}, world);
  world.socket.end();
  await attempt(world);
  late(new Response("", { status: 503, headers: { "Retry-After": "60" } }));
  await world.pass(0);
  world.socket.open();
  world.socket.say(welcome());
  world.socket.end();
  await world.pass(2000);
  assert.equal(world.sockets.length, 3);
});

test("reconnect: the next address first; not back to the one that is leaving", async () => {
  const { world, of } = await live({ urls });
  const [a] = world.sockets;
  a.say(comments("c1", ["1"]));
  a.say({ type: "reconnect", after_ms: 1000 });
  await world.pass(1000);
  assert.equal(hosts(world), "ab");
  world.socket.end();
  await attempt(world);
  assert.equal(hosts(world), "abc");
  world.socket.open();
  world.socket.end(1012, "retry_ms=300");
  await attempt(world);
  assert.equal(hosts(world), "abcb");
  assert.equal(a.closedWith, null);
  world.socket.open();
  world.socket.say(welcome());
  assert.equal(a.closedWith, 1000);
  assert.equal(of("status").length, 2);
  // Later the one that was left is a node like the others, and this one is leaving.
  await world.pass(20_000);
  const [, , , b] = world.sockets;
  b.say({ type: "reconnect", after_ms: 100 });
  for (const want of ["abcbc", "abcbca", "abcbcac"]) {
    await attempt(world);
    assert.equal(hosts(world), want);
    world.socket.end();
  }
  assert.equal(b.closedWith, null);
});

test("reconnect: a node that is lost before it is left", async () => {
  const { world } = await live({ urls: urls.slice(0, 2) });
  world.socket.say({ type: "reconnect", after_ms: 1000 });
  world.socket.end(1001);
  await attempt(world);
  world.socket.end();
  await attempt(world);
  assert.equal(hosts(world), "abb");
  // Later it is a node like the others.
  world.socket.open();
  world.socket.say(welcome());
  await world.pass(15_000);
  world.socket.end();
  await attempt(world);
  assert.equal(hosts(world), "abba");
});

test("reconnect: two nodes that are restarted one after the other", async () => {
  const { world, of } = await live({ urls: urls.slice(0, 2) });
  for (const want of ["ab", "aba", "abab"]) {
    world.socket.say({ type: "reconnect", after_ms: 1000 });
    await world.pass(1000);
    assert.equal(hosts(world), want);
    world.socket.open();
    world.socket.say(welcome());
  }
  assert.equal(of("status").length, 2);

  // Where there is no other, the one that is leaving is asked again: it may be another by then.
  world.verdict = busy(60);
  world.socket.say({ type: "reconnect", after_ms: 1000 });
  await world.pass(1000);
  world.socket.end();
  await attempt(world);
  assert.equal(hosts(world), "ababab");
});

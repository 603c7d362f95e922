// The network or the page comes back, and devices sleep.

import assert from "node:assert/strict";
import { test } from "node:test";
import { browser } from "../sdk/platform.js";
import { World, again, attempt, comments, join, live, welcome } from "./fakes.mjs";

test("a page that slept asks once more before it gives up", async () => {
  const { world, of } = await live();
  await world.pass(30_000);
  world.socket.say({ type: "beat", now: 1 });
  await world.pass(22_500); // the second beat is out
  await world.sleep(600_000);
  assert.equal(of("status").at(-1).state, "live");
  world.socket.say({ type: "beat", now: 1 });
  await world.pass(6000);
  assert.equal(of("status").at(-1).state, "live");
});

test("online and visible again: back at once, or a quick look at what seems alive", async () => {
  const world = new World();
  world.chance = () => 1;
  const { of } = await live({}, world);
  world.isOnline = false;
  world.socket.end();
  await world.pass(1000);
  world.socket.end();
  assert.deepEqual([of("status").at(-1).state, of("status").at(-1).retryInMs], ["offline", 2000]);
  await world.pass(1500);
  await world.setOnline(true);
  assert.equal(world.sockets.length, 3);
  world.socket.open();
  world.socket.say(welcome());

  const seemsAlive = world.socket;
  await world.setVisible(false);
  assert.deepEqual(seemsAlive.sentOf("beat").map((b) => b.visible), [false]);
  await world.setVisible(true);
  assert.equal(seemsAlive.sentOf("beat").length, 1, "not at once: it may be gone in a moment");
  await world.pass(1000);
  assert.deepEqual(seemsAlive.sentOf("beat").map((b) => b.visible), [false, true]);
  await world.pass(2999);
  assert.equal(of("status").at(-1).state, "live");
  await world.pass(1);
  assert.equal(of("status").at(-2).reason, "silent");
  assert.equal(world.sockets.length, 4, "and back at once");
});

test("a device that goes offline: the connection is looked at, and the truth is said", async () => {
  const { world, of } = await live();
  await world.setOnline(false);
  world.socket.say({ type: "beat", now: 1 });
  await world.pass(6000);
  assert.equal(of("status").at(-1).state, "live", "a server on this machine needs no network");
  await world.setOnline(true);
  world.socket.say({ type: "beat", now: 1 });
  await world.setOnline(false);
  await world.pass(3000);
  assert.equal(of("status").at(-1).state, "offline");
  await world.setOnline(true);
  assert.equal(of("status").at(-1).state, "connecting");
});

test("wake-ups do not hammer", async () => {
  const { world } = await live();
  world.socket.end();
  for (let i = 0; i < 20; i++) {
    await world.setVisible(true);
    world.socket.end();
    await world.pass(50);
  }
  assert.ok(world.sockets.length <= 5, `${world.sockets.length} sockets in a second`);
});


// awayIn is a viewer without a network whose waits have become long.
const awayIn = async (world = new World()) => {
  world.chance = () => 1;
  const joined = await live({}, world);
  await world.setOnline(false);
  world.socket.end();
  for (let i = 0; i < 6; i++) {
    await attempt(world);
    world.socket.end();
  }
  assert.deepEqual([joined.of("status").at(-1).state, joined.of("status").at(-1).retryInMs], ["offline", 30_000]);
  return joined;
};

test("a network that returns just after an attempt has failed: the next is a second after it", async () => {
  const { world, of } = await awayIn();
  const n = world.sockets.length;
  await world.pass(200);
  await world.setOnline(true);
  assert.equal(world.sockets.length, n);
  assert.equal(of("status").at(-1).state, "reconnecting");
  await world.pass(799);
  assert.equal(world.sockets.length, n);
  await world.pass(1);
  assert.equal(world.sockets.length, n + 1);
  // And the waits begin anew: the network is not there at once.
  const waits = [];
  for (let i = 0; i < 4; i++) {
    world.socket.end();
    waits.push(of("status").at(-1).retryInMs);
    await attempt(world);
  }
  assert.deepEqual(waits, [1000, 1000, 2000, 4000]);
});

test("a network that returns while an attempt hangs: another is made", async () => {
  const { world, of } = await awayIn();
  await attempt(world);
  const hangs = world.socket;
  await world.pass(5000);
  await world.setOnline(true);
  assert.equal(hangs.closedWith, 1000);
  assert.notEqual(world.socket, hangs);
  assert.equal(of("status").at(-1).state, "connecting");
  // One that has only begun goes on; if it fails, the next is at once.
  const young = world.socket;
  await world.pass(300);
  await world.setVisible(true);
  assert.equal(world.socket, young);
  young.end();
  await world.pass(700);
  assert.notEqual(world.socket, young);
});

test("a page out of the cache of the browser: its socket has been closed", async () => {
  const { world, of } = await live();
  const shown = (persisted) => world.window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted }));
  shown(false);
  assert.equal(world.socket.sentOf("beat").length, 0);
  world.socket.say(comments("c1", ["1"]));
  await world.pass(11_000);
  shown(true);
  world.socket.end(1006);
  await world.pass(0);
  assert.equal(world.sockets.length, 2);
  assert.equal(world.socket.url.searchParams.get("since"), "c1");
  assert.equal(of("status").at(-1).state, "connecting");
});

test("a frozen page whose socket is dead without a word: back within seconds, at the cursor", async () => {
  const { world, of } = await live();
  world.socket.say(comments("c1", ["1"]));
  await world.pass(20_000);
  await world.setVisible(false);
  await world.sleep(3_600_000);
  await world.setVisible(true);
  await world.pass(7000); // one beat more, because timers were late
  assert.equal(world.sockets.length, 2);
  assert.equal(world.socket.url.searchParams.get("since"), "c1");
  assert.equal(of("status").at(-1).state, "connecting");
});

test("a device that slept without anybody noticing: late beats must be answered soon", async () => {
  const { world, of } = await live();
  await world.pass(20_000);
  await world.sleep(600_000);
  assert.equal(world.socket.sentOf("beat").length, 1);
  await world.pass(2999);
  assert.equal(of("status").at(-1).state, "live");
  await world.pass(1);
  assert.ok(of("status").some((s) => s.reason === "silent"));
});

test("timers that are always late, as in a hidden tab, do not keep a dead connection", async () => {
  const { world, of } = await live();
  for (let i = 0; i < 5; i++) await world.sleep(60_000);
  assert.ok(of("status").some((s) => s.reason === "silent"));
});

test("a beat under way is hurried by a wake-up", async () => {
  const { world, of } = await live();
  await world.pass(22_500);
  assert.equal(world.socket.sentOf("beat").length, 1);
  await world.pass(1000);
  await world.setVisible(true);
  await world.pass(3000);
  assert.ok(of("status").some((s) => s.reason === "silent"));
});

test("a wait that the server told is kept, and its rest is slept through", async () => {
  for (const [code, reason] of [[1012, "leaving retry_ms=60000"], [4429, "too many retry_ms=60000"]]) {
    const { world } = await live();
    world.socket.end(code, reason);
    await world.pass(30_000);
    await world.setOnline(false);
    await world.setOnline(true);
    await world.setVisible(true);
    await world.pass(29_900);
    assert.equal(world.sockets.length, 1);
    await world.sleep(3_600_000);
    assert.equal(world.sockets.length, 2);
  }
  // Timers that stood still while the device slept.
  const world = new World();
  const { of } = await live({}, world);
  world.socket.end(4429, "retry_ms=60000");
  world.now += 3_600_000;
  await world.setVisible(true);
  assert.equal(of("status").at(-1).state, "connecting");
});

test("the jitter behind a told wait is cut short by a wake-up", async () => {
  const world = new World();
  world.chance = () => 1;
  const { of } = await join({}, world);
  for (let i = 0; i < 6; i++) {
    world.socket.open();
    world.socket.end(1012, "retry_ms=1500");
    if (i < 5) await attempt(world);
  }
  assert.equal(of("status").at(-1).retryInMs, 31_500);
  const n = world.sockets.length;
  await world.setVisible(true);
  await world.pass(1400);
  assert.equal(world.sockets.length, n);
  await world.pass(100);
  assert.equal(world.sockets.length, n + 1);
});

test("silence is the end also while messages come, and the next begins at the cursor", async () => {
  const { world, of } = await live();
  await world.pass(22_500);
  assert.equal(world.socket.sentOf("beat").length, 1);
  for (let i = 0; i < 10; i++) {
    assert.equal(of("status").at(-1).state, "live");
    world.socket.say(comments(`c${i}`, [i.toString(36)]));
    await world.pass(1000);
  }
  assert.equal(of("status").at(-1).reason, "silent");
  await again(world);
  assert.equal(world.socket.url.searchParams.get("since"), "c9");
});

test("a wake-up makes no wait longer", async () => {
  const world = new World();
  world.chance = () => 0.3;
  const { of } = await join({}, world);
  await world.setOnline(false);
  world.socket.end();
  assert.deepEqual([of("status").at(-1).state, of("status").at(-1).retryInMs], ["offline", 300]);
  await world.pass(100);
  await world.setOnline(true);
  assert.deepEqual([of("status").at(-1).state, of("status").at(-1).retryInMs], ["reconnecting", 200]);
  await world.pass(200);
  assert.equal(world.sockets.length, 2);
});

test("the server knows whether the page can be seen: at the start, when it changes, and not more than once a second", async () => {
  const world = new World();
  world.isVisible = false;
  const { room } = await join({ mediaMs: () => 1234 }, world);
  assert.equal(world.socket.url.search, "?visible=0&media_ms=1234");
  world.isVisible = true; // before the welcome: no event was of use
  world.socket.open();
  world.socket.say(welcome());
  const told = () => world.socket.sentOf("beat").map((b) => b.visible);
  assert.deepEqual(told(), [true]);
  world.socket.say({ type: "beat", now: 1 });
  await world.pass(1000);
  for (let i = 0; i < 90; i++) {
    await world.setVisible(i % 2 === 1);
    await world.pass(10);
  }
  assert.deepEqual(told(), [true, false]);
  await world.pass(1000);
  assert.deepEqual(told(), [true, false, true]);
  world.socket.say({ type: "beat", now: 1 });
  await world.pass(2000);
  await world.setVisible(false);
  await world.pass(200);
  await world.setVisible(true);
  await world.setVisible(false);
  await world.pass(1000);
  assert.deepEqual(told(), [true, false, true, false], "nothing has changed in the end");
  room.close();
});

test("picture-in-picture counts as seen", async () => {
  const world = new World();
  world.isVisible = false;
  const { room } = await join({}, world);
  world.socket.open();
  world.socket.say(welcome());
  await world.pass(1000);
  for (const [type, seen] of [["enterpictureinpicture", true], ["leavepictureinpicture", false]]) {
    world.isVisible = seen;
    world.document.dispatchEvent(new Event(type));
    await world.pass(1000);
    assert.equal(world.socket.sentOf("beat").at(-1).visible, seen, type);
    world.socket.say({ type: "beat", now: 1 });
  }
  room.close();
  const had = globalThis.document;
  try {
    for (const [document, seen] of [
      [{ visibilityState: "hidden" }, false], [{ visibilityState: "visible" }, true], [{ visibilityState: "hidden", pictureInPictureElement: {} }, true], [undefined, true],
    ]) {
      globalThis.document = document;
      assert.equal(browser().visible(), seen, JSON.stringify(document));
    }
  } finally {
    globalThis.document = had;
  }
});

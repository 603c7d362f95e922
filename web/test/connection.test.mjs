import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { connect } from "../sdk/kansei.js";
import { World, again, attempt, comment, comments, join, live, welcome } from "./fakes.mjs";

const states = (of) => of("status").map((s) => s.state);
const ids = (of) => of("comments").flatMap((m) => m.items.map((c) => c.id));

test("the address: base, prefix, room, cursor, session", async () => {
  for (const [options, want] of [
    [{ url: "https://kansei.test" }, "wss://kansei.test/v1/rooms/r/ws?visible=1"],
    [{ url: "http://kansei.test:8080/live/" }, "ws://kansei.test:8080/live/v1/rooms/r/ws?visible=1"],
    [{ url: "ws://127.0.0.1:1" }, "ws://127.0.0.1:1/v1/rooms/r/ws?visible=1"],
    [{ url: undefined, host: "kansei.test" }, "wss://kansei.test/v1/rooms/r/ws?visible=1"],
    [{ url: undefined, host: "localhost:8080" }, "ws://localhost:8080/v1/rooms/r/ws?visible=1"],
    [{ url: undefined, host: "[::1]:8080" }, "ws://[::1]:8080/v1/rooms/r/ws?visible=1"],
    [{ since: "abc_-1", session: "session-0123456789" }, "wss://kansei.test/v1/rooms/r/ws?since=abc_-1&session=session-0123456789&visible=1"],
  ]) {
    const { world, room } = await join(options);
    assert.equal(world.socket.url.href, want);
    room.close();
  }
  for (const room of ["", "-a", "a/b", "あ", "a".repeat(65), undefined]) {
    assert.throws(() => connect({ url: "https://kansei.test", room }, new World().platform()), /not a room name/);
  }
  assert.throws(() => connect({ url: "ftp://kansei.test", room: "r" }, new World().platform()), /http/);
  assert.throws(() => connect({ url: "https://kansei.test", room: "r" }, { ...new World().platform(), WebSocket: undefined }), /no WebSocket/);
});

test("the token is the second subprotocol; a guest offers none", async () => {
  const guest = await join();
  assert.deepEqual(guest.world.socket.protocols, ["kansei.v1"]);
  const fixed = await join({ token: "a.b.c" });
  assert.deepEqual(fixed.world.socket.protocols, ["kansei.v1", "bearer.a.b.c"]);
  const fetched = await join({ getToken: async () => "d.e.f" });
  assert.deepEqual(fetched.world.socket.protocols, ["kansei.v1", "bearer.d.e.f"]);
});

test("live begins with the welcome, not with the socket", async () => {
  const { world, of, room } = await join();
  world.socket.open();
  assert.deepEqual(states(of), ["connecting"]);
  world.socket.say(welcome());
  assert.deepEqual(states(of), ["connecting", "live"]);
  assert.equal(room.session, "session-0123456789");
});

test("an attempt without a welcome is given up", async () => {
  const { world, of } = await join();
  world.socket.open();
  await world.pass(14_999);
  assert.deepEqual(states(of), ["connecting"]);
  const first = world.socket;
  await world.pass(1);
  assert.equal(first.closedWith, 1000);
  assert.equal(of("status").at(-1).reason, "timeout");
});

test("reconnects at the cursor with the session, and shows nothing twice", async () => {
  const { world, of } = await live();
  world.socket.say(comments("c1", ["1", "2"], { history: true }));
  world.socket.say(comments("c2", ["3"]));
  world.socket.end();
  await attempt(world);
  assert.equal(world.sockets.length, 2);
  assert.equal(world.socket.url.searchParams.get("since"), "c2");
  assert.equal(world.socket.url.searchParams.get("session"), "session-0123456789");
  world.socket.open();
  world.socket.say(welcome());
  world.socket.say(comments("c4", ["3", "4", "4"]));
  assert.deepEqual(ids(of), ["1", "2", "3", "4"]);
  assert.deepEqual(of("comments").map((m) => m.items[0].history), [true, false, false]);
  assert.equal(of("gap").length, 0);
});

test("not recovered: what overlaps is shown once, what does not is a gap", async () => {
  const { world, of } = await live();
  world.socket.say(comments("c3", ["1", "2", "3"]));
  world.socket.end();
  await again(world, { recovered: false });
  world.socket.say(comments("d5", ["2", "3", "4", "5"], { history: true }));
  assert.deepEqual(ids(of), ["1", "2", "3", "4", "5"]);
  assert.equal(of("gap").length, 0);

  world.socket.end();
  await again(world, { recovered: false });
  world.socket.say(comments("d9", ["8", "9"], { history: true }));
  assert.deepEqual(ids(of), ["1", "2", "3", "4", "5", "8", "9"]);
  assert.equal(of("gap").length, 1);
});

test("a log that was made anew gives old ids to new comments", async () => {
  const { world, of } = await live();
  world.socket.say(comments("c1", ["1"]));
  world.socket.end();
  await again(world, { recovered: false });
  world.socket.say({ type: "comments", cursor: "n1", history: true, items: [comment("1", { at: 99_999, text: "new" })] });
  assert.equal(of("comments").at(-1).items[0].text, "new");
});

test("a cursor that was refused is not offered again", async () => {
  const { world } = await live({ since: "old" });
  world.socket.say(welcome({ recovered: false }));
  world.socket.end();
  await attempt(world);
  assert.equal(world.socket.url.searchParams.get("since"), null);
});

test("the backoff doubles, has full jitter, and starts anew after a stable connection", async () => {
  const world = new World();
  world.chance = () => 1;
  const { of } = await join({}, world);
  const waits = [];
  for (let i = 0; i < 8; i++) {
    world.socket.end();
    waits.push(of("status").at(-1).retryInMs);
    await world.pass(waits.at(-1));
  }
  assert.deepEqual(waits, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  world.chance = () => 0.25;
  world.socket.end();
  assert.equal(of("status").at(-1).retryInMs, 7500);
  await again(world);
  await world.pass(10_000);
  world.socket.end();
  assert.equal(of("status").at(-1).retryInMs, 250);
});

test("a connection that ends at once does not start the backoff anew", async () => {
  const world = new World();
  world.chance = () => 1;
  const { of } = await join({}, world);
  for (let i = 0; i < 3; i++) {
    world.socket.open();
    world.socket.say(welcome());
    world.socket.end();
    await world.pass(of("status").at(-1).retryInMs);
  }
  world.socket.end();
  assert.equal(of("status").at(-1).retryInMs, 8000);
});

test("close codes: who comes back", async () => {
  const cases = [
    [1000, "", { state: "closed", reason: "ended" }],
    [1001, "", { state: "reconnecting", reason: "lost" }],
    [1002, "", { state: "closed", reason: "protocol" }],
    [1003, "", { state: "closed", reason: "protocol" }],
    [1005, "", { state: "reconnecting", reason: "lost" }],
    [1006, "", { state: "reconnecting", reason: "lost" }],
    [1007, "", { state: "closed", reason: "protocol" }],
    [1009, "", { state: "closed", reason: "protocol" }],
    [1011, "", { state: "reconnecting", reason: "lost", retryInMs: 500 }],
    [1012, "", { state: "reconnecting", reason: "restart", retryInMs: 500 }],
    [1012, "draining retry_ms=4200", { state: "reconnecting", reason: "restart", retryInMs: 4700 }],
    [4400, "", { state: "closed", reason: "malformed" }],
    [4401, "the token has expired", { state: "closed", reason: "unauthorized" }],
    [4403, "", { state: "closed", reason: "banned" }],
    [4404, "", { state: "closed", reason: "no_room" }],
    [4408, "", { state: "reconnecting", reason: "too_slow" }],
    [4429, "too many retry_ms=60000", { state: "reconnecting", reason: "too_many", retryInMs: 60_500 }],
    // Of nobody's table.
    [1008, "", { state: "reconnecting", reason: "lost" }],
    [1013, "", { state: "reconnecting", reason: "lost" }],
    [1015, "", { state: "reconnecting", reason: "lost" }],
    [3000, "", { state: "reconnecting", reason: "lost" }],
    [4000, "", { state: "reconnecting", reason: "lost" }],
    [4999, "retry_ms=2000", { state: "reconnecting", reason: "lost", retryInMs: 2500 }],
  ];
  // The table of the protocol's document is covered whole.
  const table = readFileSync(new URL("../../protocol/PROTOCOL.md", import.meta.url), "utf8").matchAll(/^\| (\d{4})(?:, (\d{4}))? \|.*\| (yes|no)[^|]*\|$/gm);
  const documented = [...table].flatMap(([, a, b, back]) => [a, b].filter(Boolean).map((code) => [Number(code), back]));
  assert.ok(documented.length >= 15, `${documented.length} codes are documented`);
  for (const [code, back] of documented) {
    const state = back === "yes" && code !== 4401 ? "reconnecting" : "closed"; // 4401: here is no new token
    assert.ok(cases.some(([c, , want]) => c === code && want.state === state), `${code}: ${back}`);
  }
  for (const [code, reason, want] of cases) {
    const { world, of } = await live({ token: "a.b.c" });
    world.socket.end(code, reason);
    const got = of("status").at(-1);
    for (const [k, v] of Object.entries(want)) assert.equal(got[k], v, `${code}: ${k}`);
    assert.equal(got.code, code);
    await world.pass(120_000);
    assert.equal(world.sockets.length > 1, want.state !== "closed", `${code}`);
    if (want.state === "closed") assert.equal(world.timers, 0, `${code}: timers are left`);
  }
});

test("a server cannot ask for an endless wait", async () => {
  const { world, of } = await live();
  world.socket.end(4429, "retry_ms=99999999999");
  assert.ok(of("status").at(-1).retryInMs <= 12 * 60_000);
});

test("4401 fetches a new token at once, and gives up when tokens keep being refused", async () => {
  let n = 0;
  const { world, of } = await live({ getToken: () => `t.t.${++n}` });
  world.socket.end(4401);
  await world.pass(0);
  assert.deepEqual(world.socket.protocols, ["kansei.v1", "bearer.t.t.2"]);
  world.socket.open();
  world.socket.say(welcome());
  for (let i = 0; i < 3; i++) {
    world.socket.end(4401);
    await attempt(world);
  }
  assert.equal(of("status").at(-1).state, "connecting");
  world.socket.end(4401);
  assert.equal(of("status").at(-1).reason, "unauthorized");
  assert.equal(of("status").at(-1).state, "closed");
});

test("a token that ends while it is here is replaced, however often", async () => {
  let n = 0;
  const { world, of } = await live({ getToken: () => `t.t.${++n}` });
  for (let i = 2; i < 12; i++) {
    world.socket.end(4401, "the token has ended; come back with a new one retry_ms=1200");
    assert.deepEqual([of("status").at(-1).state, of("status").at(-1).retryInMs], ["reconnecting", 1200]);
    await world.pass(1199);
    assert.equal(n, i - 1, "the time that the server told is kept");
    await world.pass(1);
    assert.deepEqual(world.socket.protocols, ["kansei.v1", `bearer.t.t.${i}`]);
    world.socket.open();
    world.socket.say(welcome({ recovered: true }));
    assert.equal(of("status").at(-1).state, "live");
  }
});

test("getToken that fails or hangs is tried again", async () => {
  let answer = () => Promise.reject(new Error("503"));
  const { world, of } = await join({ getToken: () => answer() });
  assert.equal(of("error")[0].code, "token");
  assert.equal(of("status").at(-1).reason, "token");
  answer = () => new Promise(() => {});
  await world.pass(1000);
  assert.equal(of("status").at(-1).state, "connecting");
  await world.pass(15_000);
  assert.equal(of("status").at(-1).reason, "timeout");
  answer = () => "t.t.t";
  await world.pass(60_000);
  assert.equal(world.sockets.length > 0, true);
});

test("one of the crew, who is in no count", async () => {
  for (const [count, want] of [[false, "0"], [true, null], [undefined, null]]) {
    const { world } = await join({ count });
    assert.equal(world.socket.url.searchParams.get("count"), want);
  }
});

test("a token that no header can carry ends it", async () => {
  for (const token of ["not a token", "", "  ", 7, {}, "a,b"]) {
    const { world, of } = await join({ token });
    assert.equal(of("status").at(-1).reason, "token", `${token}`);
    assert.equal(of("error").at(-1).code, "token");
    assert.deepEqual([world.sockets.length, world.warned.length], [0, 1]);
  }
});

test("a node that is leaving, and is the only one, is asked again when it said", async () => {
  const world = new World();
  const { of } = await join({}, world);
  world.verdict = async () => new Response(JSON.stringify({ status: 503, code: "unavailable", retry_ms: 1000, close: 1012 }), { status: 503, headers: { "Retry-After": "1" } });
  world.socket.end(); // 503 before the upgrade, which a browser does not show
  await world.pass(0);
  const s = of("status").at(-1);
  assert.deepEqual([s.state, s.reason, s.retryInMs], ["reconnecting", "restart", 2000]);
  await world.pass(s.retryInMs);
  assert.equal(world.sockets.length, 2);
  world.socket.open();
  world.socket.say(welcome());
  assert.equal(of("status").at(-1).state, "live");
});

test("an overloaded server is left alone for as long as it says", async () => {
  for (const [headers, body, want] of [
    [{ "Retry-After": "20" }, "", 21_000],
    [{}, JSON.stringify({ status: 503, retry_ms: 9000 }), 10_000],
    [{}, "busy", 6000],
    [{ "Retry-After": "soon" }, "", 6000],
    [{ "Retry-After": "9999999" }, "", 601_000],
  ]) {
    const world = new World();
    world.verdict = async () => new Response(body, { status: 503, headers });
    const { of } = await join({ token: "a.b.c" }, world);
    world.socket.end();
    await world.pass(0);
    assert.equal(world.fetched[0].url, "https://kansei.test/v1/rooms/r");
    assert.equal(world.fetched[0].init.headers.Authorization, "Bearer a.b.c", "another token has another verdict");
    const s = of("status").at(-1);
    assert.deepEqual([s.reason, s.retryInMs], ["overloaded", want]);
    world.verdict = () => Promise.reject(new TypeError("gone"));
    // Coming back to the page is no reason to ask sooner.
    await world.setVisible(true);
    await world.setOnline(true);
    await world.pass(want - 10);
    assert.equal(world.sockets.length, 1);
    await world.pass(10);
    assert.equal(world.sockets.length, 2);
  }
});

test("a verdict that is no refusal, or late, changes nothing", async () => {
  const world = new World();
  let answer;
  world.verdict = () => new Promise((resolve) => { answer = resolve; });
  const { of } = await join({}, world);
  world.socket.end();
  await world.pass(600);
  assert.equal(world.sockets.length, 2);
  answer(new Response("", { status: 503, headers: { "Retry-After": "60" } }));
  await world.pass(0);
  assert.equal(of("status").at(-1).state, "connecting");
});

test("a socket that had opened is not asked about over HTTP", async () => {
  const { world } = await live();
  world.socket.end();
  await world.pass(0);
  assert.equal(world.fetched.length, 0);
});

test("beats: every beat_ms, with what the page knows; silence for 10 s is the end", async () => {
  const { world, of } = await live({ mediaMs: () => 60_999.7 }); // as players tell it
  const first = world.socket;
  await world.pass(30_000);
  assert.deepEqual(first.sentOf("beat")[0], { type: "beat", visible: true, media_ms: 61_000 });
  first.say({ type: "beat", now: 1 });
  world.isVisible = false;
  await world.pass(30_000);
  assert.equal(first.sentOf("beat").length, 2);
  assert.equal(first.sentOf("beat")[1].visible, false);
  assert.equal(of("status").at(-1).state, "live");
  await world.pass(10_000);
  assert.equal(first.closedWith, 1000);
  assert.ok(of("status").some((s) => s.reason === "silent"));
});

test("unknown types and fields are ignored, nonsense is an error event", async () => {
  const { world, of, events } = await live();
  const before = events.length;
  for (const m of [{ type: "reactions", counts: {} }, { type: "toString" }, {}, [], 5, null, "x"]) world.socket.say(JSON.stringify(m));
  assert.equal(events.length, before);
  world.socket.say("{");
  assert.equal(of("error")[0].code, "bad_message");
  world.socket.say({ type: "comments", cursor: "c", items: [{ id: 5, text: "x" }, null, { id: "a", text: 7 }, comment("b", { future: 1 })] });
  assert.deepEqual(ids(of), ["b"]);
  world.socket.say({ type: "comments", cursor: "c" });
  assert.equal(of("status").at(-1).state, "live");
});

test("a listener that throws is reported and stops nobody", async () => {
  const { world, room, of } = await live();
  const off = room.on("viewers", () => { throw new Error("mine"); });
  world.socket.say({ type: "viewers", users: 1, connections: 1, peak_users: 1, at: 1 });
  assert.equal(of("viewers").length, 1);
  assert.equal(world.reported.length, 1);
  off();
  world.socket.say({ type: "viewers", users: 2, connections: 2, peak_users: 2, at: 2 });
  assert.equal(world.reported.length, 1);
});

test("what is remembered of comments is bounded", async () => {
  const { world, of } = await live();
  for (let i = 0; i < 5000; i++) world.socket.say(comments(`c${i}`, [i.toString(36)]));
  assert.equal(ids(of).length, 5000);
  world.socket.say(comments("again", [(4999).toString(36)]));
  assert.equal(ids(of).length, 5000);
  world.socket.say(comments("long ago", ["0"]));
  assert.equal(ids(of).length, 5001);
});

test("shown n of m is told even when nothing is shown", async () => {
  const { world, of } = await live();
  world.socket.say({ type: "comments", cursor: "c", items: [], shown: 0, of: 9 });
  assert.deepEqual([of("comments")[0].shown, of("comments")[0].of], [0, 9]);
});

test("close: at any time, once, and nothing is left", async () => {
  const world = new World();
  const early = connect({ url: "https://kansei.test", room: "r" }, world.platform());
  early.close();
  await world.pass(60_000);
  assert.equal(world.sockets.length, 0);
  assert.equal(world.timers, 0);

  const joined = await live();
  joined.room.close();
  joined.room.close();
  assert.equal(joined.world.socket.closedWith, 1000);
  joined.world.socket.end(1000);
  await joined.world.setOnline(true);
  await joined.world.pass(120_000);
  assert.equal(joined.world.sockets.length, 1);
  assert.equal(joined.world.timers, 0);
  assert.equal(joined.of("status").filter((s) => s.state === "closed").length, 1);
  assert.equal(joined.of("status").at(-1).reason, "closed");
});

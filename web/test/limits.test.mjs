// Nothing that is typed may end a connection: what no server takes is refused here.

import assert from "node:assert/strict";
import { test } from "node:test";
import { again, join, live, welcome } from "./fakes.mjs";

const sent = (world) => world.sockets.flatMap((s) => s.sentOf("comment"));
const refusal = (promise) => promise.then(() => assert.fail("it was taken"), (err) => err);

test("what no server takes is refused at once, by its own code, and never sent", async () => {
  const { world, room } = await live();
  for (const [text, options, code] of [
    ["hi" + " ".repeat(10_000), {}, "too_long"],
    ["あ".repeat(201), {}, "too_long"],
    ["a" + "\n".repeat(21) + "b", {}, "too_long"],
    ["", {}, "empty"], [" \u3000\n", {}, "empty"], ["\u200b\u3164", {}, "empty"],
    ["x", { style: { position: "left" } }, "bad_message"], ["x", { style: { size: 7 } }, "bad_message"],
    ["x", { style: { color: "mauve" } }, "bad_message"], ["x", { style: { color: "#12345" } }, "bad_message"],
    ["x", { style: "big" }, "bad_message"], ["x", { style: [] }, "bad_message"],
    ["x", { ref: "" }, "bad_message"], ["x", { ref: "r".repeat(65) }, "bad_message"], ["x", { ref: 5 }, "bad_message"],
  ]) {
    const err = await refusal(room.comment(text, options));
    assert.equal(err.code, code, `${text.slice(0, 20)} ${JSON.stringify(options)}: ${err}`);
  }
  await assert.rejects(room.comment("x", { timeoutMs: NaN }), TypeError);
  await assert.rejects(room.comment("x", { timeoutMs: "soon" }), TypeError);
  assert.deepEqual(sent(world), []);
});

test("what is taken goes as everybody gets it, with nothing that nobody knows", async () => {
  const { world, room } = await live();
  room.comment("か\u3099" + "\u200b".repeat(9000), { style: { color: "#FF00aa", position: "", size: null, blink: true }, ref: null }).catch(() => {});
  room.comment("👩".repeat(200), null).catch(() => {});
  room.comment("x", { style: { color: "red" }, ref: "名".repeat(64) }).catch(() => {});
  const [first, second, third] = sent(world);
  assert.deepEqual([first.text, first.style], ["が", { color: "#FF00aa" }]);
  assert.equal([...second.text].length, 200);
  assert.deepEqual([third.style, third.ref], [{ color: "red" }, "名".repeat(64)]);
});

test("the limit is that of the welcome: what waited for it is looked at then", async () => {
  const { world, room } = await join();
  const long = refusal(room.comment("x".repeat(300)));
  const short = room.comment("x");
  world.socket.open();
  world.socket.say(welcome({ limits: { text: 250, per_s: 1, burst: 5 } }));
  assert.equal((await long).code, "too_long");
  assert.deepEqual(sent(world).map((m) => m.text), ["x"]);
  world.socket.say({ type: "ok", ref: sent(world)[0].ref, id: "1" });
  assert.equal((await short).id, "1");
});

test("beside the text a request has at most the 512 bytes that every server takes", async () => {
  const { room, world } = await live();
  const text = "👩".repeat(200);
  room.comment(text, { ref: "\u0001".repeat(64), style: { color: "#ffffff", size: "small", position: "bottom" }, mediaMs: Number.MAX_SAFE_INTEGER }).catch(() => {});
  const bytes = (s) => new TextEncoder().encode(s).length;
  const [request] = sent(world);
  assert.ok(bytes(JSON.stringify(request)) - bytes(text) <= 512);
});

test("comments said right after coming back go behind those that waited", async () => {
  const { world, room } = await live();
  world.socket.end();
  const outcomes = [];
  const say = (text) => room.comment(text, { timeoutMs: 60_000 }).then(() => outcomes.push(text), (err) => outcomes.push(err.code));
  for (let i = 0; i < 8; i++) say(`waits ${i}`);
  await again(world, { limits: { text: 200, per_s: 2, burst: 3 } });
  for (let i = 0; i < 4; i++) say(`new ${i}`);
  // A server with a bucket of 3 that fills with 2 a second, which another device has emptied.
  let bucket = 0;
  let answered = 0;
  for (let t = 0; t < 20_000; t += 100) {
    bucket = Math.min(3, bucket + 0.2);
    for (const m of world.socket.sentOf("comment").slice(answered)) {
      answered++;
      if (bucket >= 1) {
        bucket--;
        world.socket.say({ type: "ok", ref: m.ref, id: m.text });
      } else world.socket.say({ type: "error", ref: m.ref, code: "rate_limited", message: "", retry_ms: 500 });
    }
    await world.pass(100);
  }
  assert.deepEqual(outcomes, ["waits 0", "waits 1", "waits 2", "waits 3", "waits 4", "waits 5", "waits 6", "waits 7", "new 0", "new 1", "new 2", "new 3"]);
});

test("a missing number is 0: none of many shown", async () => {
  const { world, of } = await live();
  world.socket.say({ type: "comments", cursor: "c1", items: [], of: 7 });
  assert.deepEqual([of("comments").at(-1).shown, of("comments").at(-1).of], [0, 7]);
  world.socket.say({ type: "comments", cursor: "c2", items: [] });
  assert.equal(of("comments").length, 1);
});

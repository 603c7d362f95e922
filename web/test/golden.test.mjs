// The messages that the Go code of the protocol writes and reads, as files.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { measure } from "../sdk/kansei.js";
import { World, join, live } from "./fakes.mjs";

const root = new URL("../../protocol/testdata/", import.meta.url);

function golden(dir) {
  const names = readdirSync(new URL(`${dir}/`, root)).filter((n) => n.endsWith(".json")).sort();
  assert.ok(names.length > 0, `there are no golden files in protocol/testdata/${dir}`);
  return names.map((name) => ({ name, text: readFileSync(new URL(`${dir}/${name}`, root), "utf8") }));
}

const KNOWN = new Set(["welcome", "comments", "viewers", "state", "ok", "error", "gap", "beat", "reconnect", "you", "renew", "removed", "restored", "event"]);

const ACTS = new Set(["remove", "clear", "mute", "unmute", "ban", "unban", "warn", "trust", "undo", "ack", "sweep", "note"]);

for (const dir of ["server", "future"]) {
  test(`what servers send: ${dir}`, async (t) => {
    for (const { name, text } of golden(dir)) {
      await t.test(name, async () => {
        const m = JSON.parse(text);
        const { world, room, events } = await (m.type === "welcome" ? join() : live());
        if (m.type === "welcome") world.socket.open();
        const before = events.length;
        let answer;
        if (m.ref !== undefined) answer = room.comment("x", { ref: m.ref, timeoutMs: 1000 }).catch((err) => err);
        world.socket.say(text);
        const got = events.slice(before);
        const value = (type) => got.find(([t]) => t === type)?.[1];
        switch (m.type) {
          case "ok": {
            const { id, held } = await answer;
            assert.deepEqual([id, held], [m.id, m.held === true]);
            break;
          }
          case "error": {
            await world.pass(1000);
            const err = answer ? await answer : value("error");
            assert.deepEqual([err.code, err.message, err.retryMs], [m.code, m.message, m.retry_ms]);
            assert.deepEqual([err.act, err.reason, err.ends, err.appealUrl, err.state], [m.act, m.reason, m.ends, m.appeal_url, m.state]);
            break;
          }
          case "comments":
            if (m.items.length === 0 && !(m.of > m.shown)) {
              assert.deepEqual(got, []);
            } else {
              assert.deepEqual(value("comments").items.map(({ history, ...c }) => c), m.items);
              assert.ok(value("comments").items.every((c) => c.history === (m.history === true)));
              assert.deepEqual([value("comments").shown, value("comments").of], [m.shown, m.of]);
            }
            assert.equal(room.cursor, m.cursor);
            break;
          case "welcome":
            assert.deepEqual(value("welcome"), m);
            assert.equal(room.session, m.session);
            assert.equal(room.status.state, "live");
            break;
          case "viewers":
          case "state":
          case "gap":
          case "removed":
          case "restored":
          case "event":
          case "reconnect":
          case "you":
            assert.deepEqual(value(m.type), m.type === "event" ? { ...m, past: !m.cursor } : m);
            if (m.cursor) assert.equal(room.cursor, m.cursor);
            break;
          default:
            assert.ok(["beat", "renew"].includes(m.type) || !KNOWN.has(m.type));
            assert.deepEqual(got, [], "what is not known is ignored");
        }
        assert.notEqual(room.status.state, "closed");
        room.close();
      });
    }
  });
}

test("what viewers send", async (t) => {
  let compared = 0;
  for (const { name, text } of golden("client")) {
    const want = JSON.parse(text);
    await t.test(name, async () => {
      const world = new World();
      world.isVisible = want.visible ?? true;
      let tokens = 0;
      const getToken = want.type === "auth" ? () => (tokens++ ? want.token : `${want.token}x`) : undefined;
      const { room } = await live({ mediaMs: () => want.media_ms, getToken }, world);
      if (want.type === "comment") {
        const said = room.comment(want.text, { ref: want.ref, mediaMs: want.media_ms, style: want.style, data: want.data });
        const { text, empty } = measure(want.text);
        compared++;
        if (empty) return assert.rejects(said, { code: "empty" });
        said.catch(() => {});
        want.text = text; // as everybody gets it
      } else if (want.type === "set") {
        const { type, state, ...options } = want;
        room.set(state, options).catch(() => {});
      } else if (want.type === "event") {
        const { type, name, ...options } = want;
        room.event(name, options).catch(() => {});
      } else if (ACTS.has(want.type)) {
        const { type, ...options } = want;
        room.act(type, options).catch(() => {});
      } else if (want.type === "auth") {
        world.socket.say({ type: "renew", ends: 1 });
        await world.pass(0);
      } else {
        assert.equal(want.type, "beat", "the SDK must learn to send this, or the file says something new");
        await world.pass(30_000);
      }
      const [got] = world.socket.sentOf(want.type);
      // The SDK always gives a ref and says whether the page can be seen.
      const given = want.type === "beat" ? { visible: got.visible } : { ref: got.ref };
      assert.deepEqual(got, { ...want, ...given });
      room.close();
    });
  }
  assert.ok(compared > 0);
});

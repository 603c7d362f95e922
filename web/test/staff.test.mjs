import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { KanseiError } from "../sdk/kansei.js";
import { live } from "./fakes.mjs";

const golden = async (name) => JSON.parse(await readFile(new URL(`../../protocol/testdata/${name}.json`, import.meta.url), "utf8"));
const answer = (body, status = 200) => () => Promise.resolve(new Response(JSON.stringify(body), { status }));

test("the log of moderation is read by pages", async () => {
  const { world, room } = await live({ token: "a.b.c" });
  const page = await golden("http/moderation");
  world.verdict = answer({ ...page, entries: [...page.entries, null, {}] });
  assert.deepEqual(await room.moderation({ limit: 2, cursor: "2s" }), page);
  assert.match(world.fetched.at(-1).url, /\/v1\/rooms\/[^/]+\/moderation\?limit=2&cursor=2s$/);
  world.verdict = answer({ entries: [] });
  assert.deepEqual(await room.moderation(), { entries: [], cursor: undefined });
  assert.match(world.fetched.at(-1).url, /\/moderation$/);
  await room.moderation({ allRooms: true });
  assert.match(world.fetched.at(-1).url, /\/moderation\?all_rooms=1$/);
});

test("a user's card is read", async () => {
  const { world, room } = await live({ token: "a.b.c" });
  const card = await golden("http/person");
  world.verdict = answer(card);
  assert.deepEqual(await room.person("u/4 2"), card);
  assert.match(world.fetched.at(-1).url, /\/users\/u%2F4%202$/);
  await assert.rejects(room.person(""), TypeError);
});

test("who watched is read, and which broadcasts there were", async () => {
  const { world, room } = await live({ token: "a.b.c" });
  const log = await golden("http/watchlog");
  world.verdict = answer(log);
  assert.deepEqual(await room.watchLog(), log);
  assert.match(world.fetched.at(-1).url, /\/watchlog$/);
  await room.watchLog({ broadcast: "3", minShare: 0.85, users: false });
  assert.match(world.fetched.at(-1).url, /\/watchlog\?broadcast=3&min_share=0.85&users=0$/);
  await room.watchLog({ minShare: 0 });
  assert.match(world.fetched.at(-1).url, /\/watchlog\?min_share=0$/);
  const list = await golden("http/broadcasts");
  world.verdict = answer(list);
  assert.deepEqual(await room.broadcasts(), list.broadcasts);
  assert.match(world.fetched.at(-1).url, /\/broadcasts$/);
});

test("a dry run is posted, and the act cites it", async () => {
  const { world, room } = await live({ token: "a.b.c" });
  const found = await golden("http/sweep");
  const wanted = await golden("http/sweep_query");
  world.verdict = answer(found);
  assert.deepEqual(await room.sweep(wanted), found);
  const { url, init } = world.fetched.at(-1);
  assert.match(url, /\/sweeps$/);
  assert.deepEqual([init.method, JSON.parse(init.body), init.headers["Content-Type"], init.headers.Authorization], ["POST", wanted, "application/json", "Bearer a.b.c"]);
  await assert.rejects(room.sweep([]), TypeError);
  room.act("sweep", { sweep: found.sweep, until: "broadcast", sure: true, ref: "m-20", reason: "raid" }).catch(() => {});
  assert.deepEqual(world.socket.sent.at(-1), await golden("client/sweep_act"));
  room.act("note", { user: "u42", text: "first time", ref: "m-22" }).catch(() => {});
  assert.deepEqual(world.socket.sent.at(-1), await golden("client/note"));
  await assert.rejects(room.act("sweep", {}), (err) => err.code === "bad_message");
});

test("what cannot be read says why", async () => {
  const { world, room } = await live({ token: "a.b.c" });
  for (const read of [() => room.moderation(), () => room.person("u"), () => room.watchLog(), () => room.broadcasts(), () => room.sweep({ last_ms: 1000, links: true })]) {
    for (const [verdict, code] of [
      [answer({ code: "forbidden", detail: "only the staff" }, 403), "forbidden"],
      [answer({ hello: 1 }), "unsupported"],
      [() => Promise.resolve(new Response("<html>")), "unsupported"],
      [() => Promise.reject(new TypeError("fetch failed")), "unavailable"],
    ]) {
      world.verdict = verdict;
      await assert.rejects(read(), (err) => err instanceof KanseiError && err.code === code, code);
    }
  }
});

test("the staff is told of each entry", async () => {
  const { world, room } = await live();
  const told = [];
  room.on("moderation", (m) => told.push(m.entry));
  const m = await golden("server/moderation");
  world.socket.say(m);
  assert.deepEqual(told, [m.entry]);
});

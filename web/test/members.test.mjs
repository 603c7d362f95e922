import assert from "node:assert/strict";
import { test } from "node:test";
import { KanseiError } from "../sdk/kansei.js";
import { live } from "./fakes.mjs";

const answer = (body, status = 200, headers = {}) => () => Promise.resolve(new Response(JSON.stringify(body), { status, headers }));

test("members reads a page, and what is malformed in it is left out", async () => {
  const { world, room } = await live({ token: "a.b.c" });
  world.verdict = answer({
    users: [{ id: "u1", name: "さくら", role: "moderator", since: 5, devices: 2, first_seen: 4, more: 1 }, { id: 7 }, null, { id: "u2" }],
    cursor: "abc", later: true,
  });
  assert.deepEqual(await room.members({ limit: 3, cursor: "x y" }), {
    users: [
      { id: "u1", name: "さくら", role: "moderator", since: 5, devices: 2, firstSeen: 4 },
      { id: "u2", name: "", role: "viewer", since: 0, devices: 0, firstSeen: undefined },
    ],
    cursor: "abc", stale: false, ageMs: 0,
  });
  const { url, init } = world.fetched.at(-1);
  assert.match(url, /\/v1\/rooms\/[^/]+\/viewers\?limit=3&cursor=x\+y$/);
  assert.equal(init.headers.Authorization, "Bearer a.b.c");
});

test("an old page says so, and the last one has no cursor", async () => {
  const { world, room } = await live();
  world.verdict = answer({ users: [], stale: true, age_ms: 4000 });
  assert.deepEqual(await room.members(), { users: [], cursor: undefined, stale: true, ageMs: 4000 });
  assert.equal(world.fetched.at(-1).init.headers.Authorization, undefined);
});

test("a refusal says why", async () => {
  const { world, room } = await live();
  for (const [verdict, code, retryMs] of [
    [answer({ code: "forbidden", detail: "only the staff" }, 403), "forbidden"],
    [answer({ code: "unavailable", retry_ms: 1500 }, 503), "unavailable", 1500],
    [answer("no problem document", 403), "forbidden"],
    [answer({}, 500), "unavailable"],
    [answer({ hello: 1 }), "unsupported"],
    [() => Promise.resolve(new Response("<html>")), "unsupported"],
    [() => Promise.reject(new TypeError("fetch failed")), "unavailable"],
  ]) {
    world.verdict = verdict;
    await assert.rejects(room.members(), (err) => err instanceof KanseiError && err.code === code && err.retryMs === retryMs, code);
  }
});

test("who does not want the page any more gets the reason", async () => {
  const { world, room } = await live();
  const abort = new AbortController();
  world.verdict = () => new Promise((_, reject) => { abort.signal.addEventListener("abort", () => reject(abort.signal.reason)); });
  const page = room.members({ signal: abort.signal });
  abort.abort(new Error("enough"));
  await assert.rejects(page, /enough/);
});

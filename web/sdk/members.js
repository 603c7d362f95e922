// Who is in a room, read over HTTP.

import { ask, listed, query } from "./ask.js";

/** members reads a page of the members of a room, or throws a KanseiError that says why there is none. */
export async function members(platform, room, token, { limit, cursor, signal }) {
  const answer = await ask(platform, `${room}/viewers${query({ limit, cursor })}`, token, "the members", { signal });
  return {
    users: listed(answer, "users", "list of members").filter((u) => typeof u.id === "string").map(member),
    cursor: answer.cursor || undefined, stale: answer.stale === true, ageMs: Number(answer.age_ms) || 0,
  };
}

const member = (u) => ({
  id: u.id, name: typeof u.name === "string" ? u.name : "", role: typeof u.role === "string" ? u.role : "viewer",
  since: Number(u.since) || 0, devices: Number(u.devices) || 0, firstSeen: Number(u.first_seen) || undefined,
});

// What the staff of a room read over HTTP: the log of moderation, what is known of a user, what a sweep would find, who watched.

import { ask, listed, query } from "./ask.js";
import { KanseiError } from "./request.js";

/** moderation reads a page of the log of moderation. */
export async function moderation(platform, room, token, { limit, cursor, allRooms, signal }) {
  const url = `${room}/moderation${query({ limit, cursor, all_rooms: allRooms ? "1" : "" })}`;
  const answer = await ask(platform, url, token, "the log of moderation", { signal });
  return { entries: listed(answer, "entries", "log of moderation").filter((e) => typeof e.act === "string"), cursor: answer.cursor || undefined };
}

/** person reads what is known of a user. */
export async function person(platform, room, token, user, { signal }) {
  if (typeof user !== "string" || user === "") throw new TypeError("kansei: person takes the id of a user");
  const answer = await ask(platform, `${room}/users/${encodeURIComponent(user)}`, token, "the user", { signal });
  return { ...answer, comments: listed(answer, "comments", "card of users"), acts: listed(answer, "acts", "card of users") };
}

/** watchLog reads who watched a broadcast. */
export async function watchLog(platform, room, token, { broadcast, minShare, users, signal }) {
  const url = `${room}/watchlog${query({ broadcast, min_share: minShare === undefined ? "" : String(minShare), users: users === false ? "0" : "" })}`;
  const answer = await ask(platform, url, token, "the watch log", { signal });
  return { ...answer, users: listed(answer, "users", "watch log") };
}

/** broadcasts lists the broadcasts of the room. */
export async function broadcasts(platform, room, token, { signal }) {
  return listed(await ask(platform, `${room}/broadcasts`, token, "the broadcasts", { signal }), "broadcasts", "list of broadcasts");
}

/** sweep makes the dry run of a sweep. */
export async function sweep(platform, room, token, wanted, { signal }) {
  if (wanted === null || typeof wanted !== "object" || Array.isArray(wanted)) throw new TypeError("kansei: a sweep is an object that says what is to be found");
  const answer = await ask(platform, `${room}/sweeps`, token, "the sweep", { body: wanted, signal });
  if (typeof answer?.sweep !== "string") throw new KanseiError("unsupported", "the server has no sweeps");
  return { ...answer, samples: listed(answer, "samples", "sweeps") };
}

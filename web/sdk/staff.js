// What the staff of a room read over HTTP: the log of moderation, what is known of a user, what a sweep would find.

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

/** sweep makes the dry run of a sweep. */
export async function sweep(platform, room, token, wanted, { signal }) {
  if (wanted === null || typeof wanted !== "object" || Array.isArray(wanted)) throw new TypeError("kansei: a sweep is an object that says what is to be found");
  const answer = await ask(platform, `${room}/sweeps`, token, "the sweep", { body: wanted, signal });
  if (typeof answer?.sweep !== "string") throw new KanseiError("unsupported", "the server has no sweeps");
  return { ...answer, samples: listed(answer, "samples", "sweeps") };
}

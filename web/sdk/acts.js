// What moderators ask for, and users about themselves, checked where it is made.

import { KanseiError } from "./request.js";

// The fields that each act may have, beside reason and ref.
const LASTING = ["user", "for_ms", "until"];
const FIELDS = {
  remove: ["ids"], clear: ["user"], mute: [...LASTING, "clear", "quiet", "all_rooms"], ban: [...LASTING, "clear", "all_rooms"],
  warn: LASTING, trust: LASTING, unmute: ["user", "all_rooms"], unban: ["user", "all_rooms"], undo: ["act"], ack: ["act"],
  sweep: ["sweep", "for_ms", "until", "sure", "spare"], note: ["user", "text"],
};
const NEEDED = { remove: "ids", clear: "", undo: "act", ack: "act", sweep: "sweep" };

/** actRequest makes the request of an act, or throws what is wrong with it. */
export function actRequest(type, options) {
  const fields = Object.hasOwn(FIELDS, type) ? FIELDS[type] : undefined;
  if (!fields) throw new TypeError(`kansei: ${type} is no act: there are ${Object.keys(FIELDS).join(", ")}`);
  const request = { type, ref: options.ref ?? undefined };
  for (const [name, value] of Object.entries(options)) {
    if (["ref", "timeoutMs"].includes(name) || value == null) continue;
    if (name !== "reason" && !fields.includes(name)) throw new TypeError(`kansei: ${type} has no ${name}`);
    request[name] = value;
  }
  const needed = NEEDED[type] ?? "user";
  if (needed && !request[needed]) throw new KanseiError("bad_message", `${needed} is missing`);
  return request;
}

/** setRequest makes the request of a change of the state. */
export function setRequest(patch, { rev, ref }) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) throw new TypeError("kansei: a patch is an object with the fields that are to change");
  return { type: "set", ref: ref ?? undefined, rev: rev ?? undefined, state: patch };
}

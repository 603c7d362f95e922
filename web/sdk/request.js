// What a request may hold, checked where it is made: a server closes the connection of who
// sends what is too large, or is none of its requests, again and again.

import { MAX_LINE_FEEDS, measure } from "./text.js";

const REF_MAX = 64; // code points
const COMMENT_DATA_MAX = 1024; // bytes, as JSON
const EVENT_DATA_MAX = 4096;

const POSITIONS = ["scroll", "top", "bottom"];
const SIZES = ["small", "medium", "big"];
const COLORS = ["white", "black", "red", "pink", "orange", "yellow", "green", "cyan", "blue", "purple"];

/** What a request was refused with: `code` of the protocol (or "closed") and `retryMs`. */
export class KanseiError extends Error {
  constructor(code, message, retryMs) {
    super(message || code);
    this.name = "KanseiError";
    this.code = code;
    this.retryMs = retryMs;
  }
}

/** refusal is the error that a server's message is. */
export function refusal(m) {
  const err = new KanseiError(m.code, m.message, m.retry_ms);
  // Of what moderators have done, and of a conflict.
  for (const [name, value] of [["act", m.act], ["reason", m.reason], ["ends", m.ends], ["appealUrl", m.appeal_url], ["state", m.state]]) {
    if (value !== undefined) err[name] = value;
  }
  return err;
}

// A player tells its position as a fraction, or NaN before it has one; the wire
// takes whole milliseconds, or nothing.
export const whole = (ms) => (ms >= 0 && ms <= Number.MAX_SAFE_INTEGER ? Math.round(ms) : undefined);

/** asToken returns a token without what surrounds it, or throws: the header that it goes into takes no other characters. */
export const asToken = (token) => {
  const t = typeof token === "string" ? token.trim() : token;
  if (typeof t !== "string" || !/^[A-Za-z0-9._~+/=-]+$/.test(t)) throw new TypeError(`kansei: the token is ${t === "" ? "empty" : typeof t === "string" ? "no JWT" : String(t)}`);
  return t;
};

/** commentRequest makes the request of a comment, but for a ref that is to be made up, or throws what is wrong. */
export function commentRequest(text, { mediaMs, style, data, ref }) {
  if (typeof text !== "string") throw new TypeError("kansei: the text of a comment must be a string");
  const clean = measure(text);
  if (clean.empty) throw new KanseiError("empty", "there is nothing to see in the text");
  if (clean.lineFeeds > MAX_LINE_FEEDS) throw new KanseiError("too_long", `the text has ${clean.lineFeeds} line breaks, at most ${MAX_LINE_FEEDS} are allowed`);
  checkRef(ref);
  return { type: "comment", ref: ref ?? undefined, text: clean.text, media_ms: whole(mediaMs), style: checkedStyle(style), data: checkedData(data, COMMENT_DATA_MAX) };
}

/** eventRequest makes the request of an event of the application, but for a ref that is to be made up, or throws what is wrong. */
export function eventRequest(name, { data, audience, lasting, ref }) {
  if (typeof name !== "string" || !/^[A-Za-z0-9_-]{1,32}$/.test(name)) throw new KanseiError("bad_message", "name must be 1 to 32 of A-Z a-z 0-9 _ -");
  checkRef(ref);
  if (audience != null && !/^(all|staff|user:.+)$/.test(audience)) throw new KanseiError("bad_message", "audience must be all, staff, or user: and an id");
  return { type: "event", ref: ref ?? undefined, name, data: checkedData(data, EVENT_DATA_MAX), audience: audience ?? undefined, lasting: lasting === true || undefined };
}

function checkRef(ref) {
  if (ref != null && (typeof ref !== "string" || ref === "" || [...ref].length > REF_MAX)) {
    throw new KanseiError("bad_message", `ref must be a string of 1 to ${REF_MAX} characters`);
  }
}

function checkedData(data, most) {
  if (data == null) return undefined;
  const json = typeof data === "object" && !Array.isArray(data) ? JSON.stringify(data) : undefined;
  if (json?.[0] !== "{") throw new KanseiError("bad_message", "data must be an object");
  const bytes = new TextEncoder().encode(json).length;
  if (bytes > most) throw new KanseiError("too_long", `data has ${bytes} bytes, at most ${most} are allowed`);
  return data;
}

function checkedStyle(style) {
  if (style == null) return undefined;
  if (typeof style !== "object" || Array.isArray(style)) throw new KanseiError("bad_message", "style must be an object");
  const wrong = (name, allowed) => new KanseiError("bad_message", `style.${name} must be ${allowed}, not ${String(style[name]).slice(0, 20)}`);
  const { position, size, color } = style;
  if (position && !POSITIONS.includes(position)) throw wrong("position", POSITIONS.join(", "));
  if (size && !SIZES.includes(size)) throw wrong("size", SIZES.join(", "));
  if (color && !COLORS.includes(color) && !(typeof color === "string" && /^#[0-9A-Fa-f]{6}$/.test(color))) throw wrong("color", "#rrggbb or the name of a color");
  // What is the default is left out, as the server does.
  return { position: position === "scroll" ? undefined : position || undefined, size: size === "medium" ? undefined : size || undefined, color: color || undefined };
}

/**
 * overLimit is the error of a text that is longer than the welcome has told; undefined if it is not. A request that was made
 * here has at most 1,600 bytes beside its text, which every server takes.
 */
export function overLimit(text, limits) {
  const length = [...text].length;
  if (limits?.text > 0 && length > limits.text) return new KanseiError("too_long", `the text has ${length} characters, at most ${limits.text} are allowed`);
  return undefined;
}

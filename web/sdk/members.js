// Who is in a room, read over HTTP.

import { KanseiError } from "./request.js";
import { toldMs } from "./why.js";

const PAGE_MS = 15_000;
const CODES = { 401: "unauthorized", 403: "forbidden", 404: "no_room", 429: "rate_limited" };

/** members reads a page of the members of a room, or throws a KanseiError that says why there is none. */
export async function members(platform, room, token, { limit, cursor, signal }) {
  const abort = new AbortController();
  const timer = platform.setTimeout(() => abort.abort(), PAGE_MS);
  const stop = () => abort.abort(signal.reason);
  if (signal?.aborted) stop();
  signal?.addEventListener("abort", stop, { once: true });
  try {
    const query = new URLSearchParams({ ...(limit ? { limit } : {}), ...(cursor ? { cursor } : {}) });
    const res = await platform.fetch(`${room}/viewers?${query}`, {
      headers: token ? { Authorization: `Bearer ${token}` } : {}, cache: "no-store", credentials: "omit", signal: abort.signal,
    });
    const answer = await res.json().catch(() => null);
    if (!res.ok) {
      const retry = toldMs(answer?.retry_ms || Number(res.headers.get("Retry-After")) * 1000);
      throw new KanseiError(answer?.code ?? CODES[res.status] ?? "unavailable", answer?.detail, retry || undefined);
    }
    if (!Array.isArray(answer?.users)) throw new KanseiError("unsupported", "the server has no list of members");
    return {
      users: answer.users.filter((u) => typeof u?.id === "string").map(member),
      cursor: answer.cursor || undefined, stale: answer.stale === true, ageMs: Number(answer.age_ms) || 0,
    };
  } catch (err) {
    if (err instanceof KanseiError || signal?.aborted) throw err;
    throw new KanseiError("unavailable", "the members could not be read");
  } finally {
    platform.clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

const member = (u) => ({
  id: u.id, name: typeof u.name === "string" ? u.name : "", role: typeof u.role === "string" ? u.role : "viewer",
  since: Number(u.since) || 0, devices: Number(u.devices) || 0, firstSeen: Number(u.first_seen) || undefined,
});

// Requests over HTTP about a room.

import { KanseiError } from "./request.js";
import { toldMs } from "./why.js";

const ASK_MS = 15_000;
const CODES = { 401: "unauthorized", 403: "forbidden", 404: "no_room", 429: "rate_limited" };

/**
 * ask makes a request and returns the answer, an object, or throws a KanseiError that says why there is none. what names
 * it in errors; body, if there is one, is posted.
 */
export async function ask(platform, url, token, what, { body, signal } = {}) {
  const abort = new AbortController();
  const timer = platform.setTimeout(() => abort.abort(), ASK_MS);
  const stop = () => abort.abort(signal.reason);
  if (signal?.aborted) stop();
  signal?.addEventListener("abort", stop, { once: true });
  try {
    const headers = { ...(token ? { Authorization: `Bearer ${token}` } : {}), ...(body ? { "Content-Type": "application/json" } : {}) };
    const res = await platform.fetch(url, {
      ...(body ? { method: "POST", body: JSON.stringify(body) } : {}), headers, cache: "no-store", credentials: "omit", signal: abort.signal,
    });
    const answer = await res.json().catch(() => null);
    if (!res.ok) {
      const retry = toldMs(answer?.retry_ms || Number(res.headers.get("Retry-After")) * 1000);
      throw new KanseiError(answer?.code ?? CODES[res.status] ?? "unavailable", answer?.detail, retry || undefined);
    }
    return answer;
  } catch (err) {
    if (err instanceof KanseiError || signal?.aborted) throw err;
    throw new KanseiError("unavailable", `${what} could not be read`);
  } finally {
    platform.clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

/** query is the parameters of a request, without those that are not given. */
export const query = (values) => {
  const given = Object.entries(values).filter(([, v]) => v);
  return given.length > 0 ? `?${new URLSearchParams(given)}` : "";
};

/** listed returns the objects of a list in an answer that has it. */
export function listed(answer, name, what) {
  if (!Array.isArray(answer?.[name])) throw new KanseiError("unsupported", `the server has no ${what}`);
  return answer[name].filter((e) => e !== null && typeof e === "object");
}

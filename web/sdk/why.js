// What a browser hides of a refused upgrade, asked over HTTP.

const VERDICT_MS = 5_000;
const BUSY_MS = 5_000; // for a server that is busy and does not say for how long
const TOLD_MAX_MS = 10 * 60_000; // the longest wait that a server may ask for

/** toldMs is how long a server wants to be left alone, out of what it said. */
export const toldMs = (ms) => Math.min(Math.max(Number(ms) || 0, 0), TOLD_MAX_MS);

/** toldBy is the same out of the reason of a close. */
export const toldBy = (reason) => toldMs(/retry_ms=(\d+)/.exec(reason)?.[1]);

/**
 * whyNot asks a room why no connection is made: `told`, how long an overloaded server wants to be left alone (0: it is
 * not), and `cause` and `hint`, what waiting alone does not mend. It throws when there is no answer.
 */
export async function whyNot(platform, room, token) {
  const abort = new AbortController();
  const limit = platform.setTimeout(() => abort.abort(), VERDICT_MS);
  const ask = (headers) => platform.fetch(room, { headers, cache: "no-store", credentials: "omit", signal: abort.signal });
  try {
    const res = await ask(token ? { Authorization: `Bearer ${token}` } : {})
      .catch((err) => { // a token makes a browser ask for leave, which pages of other origins do not get
        if (!token || abort.signal.aborted) throw err;
        return ask({});
      });
    const answer = (await res.json().catch(() => null)) ?? {}; // what stands in front of a node may say less
    if (res.status === 503 || res.status === 429) {
      return { told: toldMs(answer.retry_ms || Number(res.headers.get("Retry-After")) * 1000) || BUSY_MS };
    }
    if (res.status === 403 && answer.code === "forbidden") {
      const origin = globalThis.location?.origin ?? "this origin";
      return { told: 0, cause: "origin", hint: `pages of ${origin} may not connect to ${room}: start the server with --origin ${origin}` };
    }
    const ours = typeof answer.code === "string" || typeof answer.room === "string";
    if (!ours && (res.status < 400 || res.status === 404 || res.status === 405)) {
      return { told: 0, cause: "not_kansei", hint: `what answers at ${room} is no Kansei server: look at url` };
    }
    return { told: 0 };
  } finally {
    platform.clearTimeout(limit);
  }
}

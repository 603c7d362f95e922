// What a browser hides of a refused upgrade, asked over HTTP.

const VERDICT_MS = 5_000;
const BUSY_MS = 5_000; // for a server that is busy and does not say for how long
const TOLD_MAX_MS = 10 * 60_000; // the longest wait that a server may ask for

/** toldMs is how long a server wants to be left alone, out of what it said. */
export const toldMs = (ms) => Math.min(Math.max(Number(ms) || 0, 0), TOLD_MAX_MS);

/** toldBy is the same out of the reason of a close. */
export const toldBy = (reason) => toldMs(/retry_ms=(\d+)/.exec(reason)?.[1]);

/**
 * whyNot asks a room why no connection is made: `told`, how long a server that is overloaded, or `leaving`, wants to be left
 * alone (0: it does not), and `cause` and `hint`, what waiting alone does not mend. It throws when there is no answer.
 */
export async function whyNot(platform, room, token) {
  const abort = new AbortController();
  const limit = platform.setTimeout(() => abort.abort(), VERDICT_MS);
  const ask = async (url, headers) => {
    const res = await platform.fetch(url, { headers, cache: "no-store", credentials: "omit", signal: abort.signal });
    const answer = (await res.json().catch(() => null)) ?? {}; // what stands in front of a node may say less
    const busy = res.status === 503 || res.status === 429;
    const told = busy ? toldMs(answer.retry_ms || Number(res.headers.get("Retry-After")) * 1000) || BUSY_MS : 0;
    return { status: res.status, code: answer.code, ours: typeof answer.code === "string" || typeof answer.room === "string", told, leaving: answer.close === 1012 };
  };
  try {
    // A token makes a browser ask for leave first, which pages of other origins do not get.
    const verdict = await ask(room, token ? { Authorization: `Bearer ${token}` } : {}).catch((err) => {
      if (!token || abort.signal.aborted) throw err;
      return undefined;
    });
    if (verdict?.told > 0) return verdict;
    if (verdict && !verdict.ours && (verdict.status < 400 || verdict.status === 404 || verdict.status === 405)) {
      return { told: 0, cause: "not_kansei", hint: `what answers at ${room} is no Kansei server: look at url` };
    }
    // What anybody may read tells nothing of who may connect.
    const door = await ask(`${room}/ws`, {}).catch(() => undefined); // pages that may connect cannot read it, unless they are the server's own
    if (door?.told > 0) return door;
    if (door?.status === 403 && door.code === "forbidden") {
      const origin = globalThis.location?.origin ?? "this origin";
      return { told: 0, cause: "origin", hint: `pages of ${origin} may not connect to ${room}: start the server with --origin ${origin}` };
    }
    return { told: 0 };
  } finally {
    platform.clearTimeout(limit);
  }
}

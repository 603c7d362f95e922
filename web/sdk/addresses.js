// The addresses of a room's nodes: which of them to ask next, and when.

const BACKOFF_MS = 1_000; // the first wait is up to this, each later one up to twice as much
const BACKOFF_MAX_MS = 30_000;
const LEFT_MS = 10_000; // a node is left for good, or is another one, so long after the time that it told

/** Addresses are asked in turn; one that has named a time, not before it. */
export class Addresses {
  #all; // { room: address of the room, http(s); sparedUntil: time }
  #current = -1;
  #home = 0; // where the last welcome came from
  #left = -1; // the node that wants to be left: asked only if there is no other
  #leftUntil = 0;
  #p;

  constructor(options, platform) {
    this.#p = platform;
    const urls = options.urls ?? [options.url];
    if (!Array.isArray(urls) || urls.length === 0) throw new TypeError("kansei: urls must be a list of addresses");
    this.#all = urls.map((url) => ({ room: `${baseURL(url, options.host)}/v1/rooms/${options.room}`, sparedUntil: 0 }));
  }

  /** The address of the room at the node whose turn it is. */
  get room() { return this.#all[Math.max(this.#current, 0)].room; }

  /** next turns to the next node that may be asked, and returns 0; or how long it is until one may. */
  next(now) {
    let found = -1;
    for (let k = this.#all.length; k >= 1; k--) {
      const i = (this.#current + k) % this.#all.length;
      if (this.#all[i].sparedUntil > now) continue;
      if (found < 0 || i !== this.#left || now >= this.#leftUntil) found = i;
    }
    if (found < 0) return this.wait(now);
    this.#current = found;
    return 0;
  }

  /** wait is how long it is until any node may be asked. */
  wait(now) { return Math.max(0, Math.min(...this.#all.map((a) => a.sparedUntil)) - now); }

  /** arrive says that the node whose turn it is has said welcome. */
  arrive() {
    this.#home = this.#current;
    this.#all[this.#home].sparedUntil = 0;
  }

  /** leave says that this node wants to be left then. */
  leave(at) {
    this.#left = this.#home;
    this.#leftUntil = at + LEFT_MS;
  }

  /** spare keeps the node with that address of the room from being asked before a time. */
  spare(room, until) {
    for (const a of this.#all) if (a.room === room) a.sparedUntil = until;
  }

  /**
   * jitter is the wait after that many failures: a random part of a whole that is doubled each time
   * that all addresses have failed, because those who lost the same node must not come back at once.
   */
  jitter(failures) {
    const rounds = Math.min(Math.floor(failures / this.#all.length), 16);
    return this.#p.random() * Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** rounds);
  }
}

// baseURL is the http or https address under which /v1 lies; without url and host
// it is that of the server from which this file was loaded.
function baseURL(url, host) {
  if (!url && host) {
    const local = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/.test(host);
    url = `${local && globalThis.location?.protocol !== "https:" ? "http" : "https"}://${host}`;
  }
  url ??= home();
  let base;
  try {
    base = new URL(url);
  } catch {
    throw new TypeError(`kansei: url must be an address such as https://kansei.example, not ${url}`);
  }
  const protocol = base.protocol.replace(/^ws/, "http");
  if (!/^https?:$/.test(protocol)) throw new TypeError(`kansei: url must begin with http(s) or ws(s), not ${base.protocol}`);
  return `${protocol}//${base.host}${base.pathname.replace(/\/+$/, "")}`;
}

// home is the server that this file came from, if it was not put into a bundle.
function home() {
  const [, base] = /^(https?:.*\/)(?:assets\/[^/]+\/)?sdk\/[^/]*$/.exec(import.meta.url ?? "") ?? [];
  if (!base) throw new TypeError("kansei: give url, such as https://kansei.example: this file does not come from a Kansei server");
  return base;
}

// Kansei for browsers: the comments, viewer counts and state of one room, pushed.
//
//   import { connect } from "https://kansei.example/sdk/kansei.js";
//   const room = connect({ room: "lobby" });
//   room.on("comments", ({ items }) => items.forEach((c) => console.log(c.text)));
//   await room.comment("hello");
//
// A Connection keeps one WebSocket to the room and opens another when it is lost,
// at its cursor, so that listeners see each comment once and in order; a node that
// is leaving is left only when another has said welcome. Outbox
// holds the comments that are not answered yet, and sends them again under the
// same ref. Everything that waits has a limit; the types are in kansei.d.ts.

const SUBPROTOCOL = "kansei.v1";

const CONNECT_MS = 15_000; // from the attempt to the welcome
const MOVE_MS = 5_000; // the same while there is still another connection
const ANSWER_MS = 10_000; // for the answer to a beat
const PROBE_MS = 5_000; // for the same when the network or the page has just come back
const SUSPENDED_MS = 2_000; // a timer that is later than this says that the page slept
const STABLE_MS = 10_000; // a connection that lasted this long starts the backoff anew
const BACKOFF_MS = 1_000; // the first wait is up to this, each later one up to twice as much
const BACKOFF_MAX_MS = 30_000;
const TOLD_MAX_MS = 10 * 60_000; // the longest wait that a server may ask for
const WAKE_MS = 1_000; // attempts because of wake-ups are at least this far apart
const TOKENS_MAX = 3; // tokens refused in a row before giving up
const VERDICT_MS = 5_000;
const SEEN_MAX = 2_048; // comments remembered, to show none twice
const PENDING_MAX = 100; // comments waiting for an answer
const PENDING_MS = 30_000; // how long one waits by default
const REF_MS = 110_000; // at most; the server knows a ref for two minutes

// The close codes after which coming back cannot help, and what they mean.
const FINAL = new Map([
  [1000, "ended"], [1002, "protocol"], [1003, "protocol"], [1007, "protocol"], [1009, "protocol"],
  [4400, "malformed"], [4403, "banned"], [4404, "no_room"],
]);
const LOST = new Map([[1012, "restart"], [4408, "too_slow"], [4429, "too_many"]]);
const UNAUTHORIZED = 4401;

// A player tells its position as a fraction, or NaN before it has one; the wire
// takes whole milliseconds, or nothing.
const whole = (ms) => (ms >= 0 && ms < Infinity ? Math.round(ms) : undefined);

/** What a request was refused with: `code` of the protocol (or "closed") and `retryMs`. */
export class KanseiError extends Error {
  constructor(code, message, retryMs) {
    super(message || code);
    this.name = "KanseiError";
    this.code = code;
    this.retryMs = retryMs;
  }
}

/** Joins a room and stays in it until `close()`. */
export function connect(options, platform = browser()) {
  return new Connection(options, platform);
}

// browser is what the SDK needs of its surroundings; tests and other runtimes pass their own.
function browser() {
  const g = globalThis;
  return {
    WebSocket: g.WebSocket,
    fetch: (url, init) => g.fetch(url, init),
    now: () => Date.now(),
    random: () => Math.random(),
    setTimeout: (f, ms) => g.setTimeout(f, ms),
    clearTimeout: (t) => g.clearTimeout(t),
    online: () => g.navigator?.onLine !== false,
    visible: () => g.document?.visibilityState !== "hidden",
    window: g.addEventListener ? g : undefined,
    document: g.document,
    report: (err) => (g.reportError ?? console.error)(err),
  };
}

// baseURL is the http or https address under which /v1 lies; without url and host
// it is that of the server from which this file was loaded.
function baseURL({ url, host }) {
  if (!url && host) {
    const local = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/.test(host);
    url = `${local && globalThis.location?.protocol !== "https:" ? "http" : "https"}://${host}`;
  }
  const base = new URL(url ?? import.meta.url.replace(/(assets\/[^/]+\/)?sdk\/[^/]*$/, ""));
  const protocol = base.protocol.replace(/^ws/, "http");
  if (!/^https?:$/.test(protocol)) throw new TypeError(`kansei: url must begin with http(s) or ws(s), not ${base.protocol}`);
  return `${protocol}//${base.host}${base.pathname.replace(/\/+$/, "")}`;
}

class Connection {
  #o;
  #p;
  #room; // address of the room, http(s)
  #listeners = new Map();
  #outbox;
  #unlisten = [];

  #status = { state: "connecting", attempt: 1 };
  #socket = null; // the one that counts; events of any other are ignored
  #welcomed = false;
  #timer; // the next attempt, or the limit of the one under way
  #attempt = 0;
  #attemptAt = 0;
  #failures = 0; // since a connection last proved stable
  #liveAt = 0;
  #told = false; // the server named the time of the next attempt
  #comeBackAt = 0; // from a reconnect message
  #next = null; // the socket that is to take the place of the one that counts
  #moveTimer; // of the next attempt to move, or the limit of the one under way
  #beatTimer;
  #answerTimer;

  #token;
  #refusedTokens = 0;
  #session;
  #cursor;
  #offered; // the cursor of this attempt
  #resync = false; // the server could not go on from it: the next history is compared instead
  #seen = new Set();

  constructor(options, platform) {
    if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(options?.room ?? "")) throw new TypeError(`kansei: not a room name: ${options?.room}`);
    if (!platform.WebSocket) throw new Error("kansei: there is no WebSocket here");
    this.#o = options;
    this.#p = platform;
    this.#room = `${baseURL(options)}/v1/rooms/${options.room}`;
    this.#token = options.token;
    this.#session = options.session;
    this.#cursor = options.since;
    this.#outbox = new Outbox(platform);
    const listen = (target, type, f) => {
      if (!target?.addEventListener) return;
      target.addEventListener(type, f);
      this.#unlisten.push(() => target.removeEventListener(type, f));
    };
    listen(platform.window, "online", () => this.#wake());
    listen(platform.window, "offline", () => this.#wake());
    listen(platform.window, "pageshow", (e) => e.persisted && this.#wake());
    listen(platform.document, "visibilitychange", () => platform.visible() && this.#wake());
    // Later, so that the caller's listeners see everything from the start.
    this.#timer = platform.setTimeout(() => this.#open(), 0);
  }

  get status() { return this.#status; }
  get session() { return this.#session; }
  get cursor() { return this.#cursor; }

  on(type, listener) {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type).add(listener);
    return () => this.off(type, listener);
  }

  off(type, listener) { this.#listeners.get(type)?.delete(listener); }

  comment(text, options = {}) {
    if (typeof text !== "string") return Promise.reject(new TypeError("kansei: the text of a comment must be a string"));
    if (this.#status.state === "closed") return Promise.reject(new KanseiError("closed", "the connection is closed"));
    const { mediaMs, style, ref, timeoutMs } = options;
    return this.#outbox.add({ type: "comment", ref, text, media_ms: whole(mediaMs), style }, timeoutMs);
  }

  close() { this.#end("closed"); }

  // --- coming and going

  async #open() {
    this.#clearTimers();
    const attempt = ++this.#attempt;
    this.#attemptAt = this.#p.now();
    this.#told = false;
    this.#setStatus({ state: "connecting", attempt: this.#failures + 1 });
    this.#timer = this.#p.setTimeout(() => this.#lose("timeout"), CONNECT_MS);
    try {
      if (!this.#token && this.#o.getToken) {
        const token = await this.#o.getToken();
        if (attempt !== this.#attempt) return; // it took too long, or was overtaken
        this.#token = token;
      }
    } catch (err) {
      if (attempt !== this.#attempt) return;
      this.#emit("error", new KanseiError("token", `getToken failed: ${err?.message ?? err}`));
      return this.#lose("token");
    }
    try {
      this.#socket = this.#dial();
    } catch (err) { // a token that no header can carry, or a page that may not connect
      this.#emit("error", new KanseiError("bad_message", err.message));
      this.#end("malformed");
    }
  }

  // dial makes a socket, which counts when it is made #socket or #next.
  #dial() {
    const url = new URL(`${this.#room.replace(/^http/, "ws")}/ws`);
    this.#offered = this.#cursor;
    if (this.#cursor) url.searchParams.set("since", this.#cursor);
    if (this.#session) url.searchParams.set("session", this.#session);
    const protocols = [SUBPROTOCOL];
    if (this.#token) protocols.push(`bearer.${this.#token}`);
    const ws = new this.#p.WebSocket(url.href, protocols);
    let opened = false;
    ws.onopen = () => { opened = true; };
    ws.onmessage = (e) => {
      if (ws === this.#next) this.#arrive(e.data);
      else if (ws === this.#socket) this.#receive(e.data);
    };
    ws.onclose = (e) => {
      if (ws === this.#next) return this.#stay();
      if (ws !== this.#socket) return;
      this.#closed(e.code, e.reason ?? "");
      if (!opened) this.#askWhy();
    };
    return ws;
  }

  // move looks for another connection while there is this one, whose messages are
  // taken until the other has its welcome; #seen has none shown twice.
  #move() {
    try {
      this.#next = this.#dial();
    } catch {
      return this.#stay();
    }
    this.#moveTimer = this.#p.setTimeout(() => this.#stay(), MOVE_MS);
  }

  // arrive takes the first message of the other connection.
  #arrive(data) {
    let m;
    try {
      m = JSON.parse(data);
    } catch {
      return this.#stay();
    }
    // Where the cursor was not recovered, more would be missed than here.
    if (m?.type !== "welcome" || (this.#offered && !m.recovered)) return this.#stay();
    const next = this.#next;
    this.#next = null; // or it would be dropped too
    this.#drop();
    this.#socket = next;
    this.#onWelcome(m);
  }

  // stay gives up an attempt to move; another follows while the node is still here.
  #stay() {
    this.#giveUpNext();
    this.#moveTimer = this.#p.setTimeout(() => this.#move(), this.#backoff());
  }

  #giveUpNext() {
    this.#p.clearTimeout(this.#moveTimer);
    const ws = this.#next;
    this.#next = null;
    if (ws && ws.readyState < 2) ws.close(1000);
  }

  // closed decides what the end of the socket means.
  #closed(code, reason) {
    if (this.#next && !FINAL.has(code) && code !== UNAUTHORIZED) return this.#adopt();
    this.#drop();
    if (FINAL.has(code)) return this.#end(FINAL.get(code), code, reason);
    const told = Number(/retry_ms=(\d+)/.exec(reason)?.[1] ?? 0);
    if (code === UNAUTHORIZED) {
      if (!this.#o.getToken || ++this.#refusedTokens > TOKENS_MAX) return this.#end("unauthorized", code, reason);
      this.#token = undefined;
      return this.#retry(this.#refusedTokens === 1 ? 0 : this.#backoff(), "unauthorized", code);
    }
    const why = LOST.get(code) ?? "lost";
    if (told) return this.#retryTold(told, why, code);
    const left = this.#comeBackAt - this.#p.now();
    if (left > 0) return this.#retryTold(left, "restart", code);
    this.#retry(this.#backoff(), why, code);
  }

  // adopt makes an attempt to move the attempt to connect, when the node has gone.
  #adopt() {
    const next = this.#next;
    this.#next = null;
    this.#drop();
    this.#socket = next;
    this.#attemptAt = this.#p.now();
    this.#told = false;
    this.#setStatus({ state: "connecting", attempt: this.#failures + 1 });
    this.#timer = this.#p.setTimeout(() => this.#lose("timeout"), MOVE_MS);
  }

  // lose gives up a socket, or an attempt, that nothing more is expected of.
  #lose(reason) {
    this.#drop();
    this.#retry(this.#backoff(), reason);
  }

  #drop() {
    const ws = this.#socket;
    this.#socket = null;
    this.#attempt++;
    this.#clearTimers();
    this.#giveUpNext();
    if (this.#welcomed && this.#p.now() - this.#liveAt >= STABLE_MS) this.#failures = 0;
    this.#welcomed = false;
    this.#outbox.disconnected();
    if (ws && ws.readyState < 2) ws.close(1000);
  }

  // backoff is exponential with full jitter: after a node has died, its viewers
  // come back spread over the whole wait.
  #backoff() {
    return this.#p.random() * Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** Math.min(this.#failures++, 16));
  }

  #retryTold(ms, reason, code) {
    ms = Math.min(ms, TOLD_MAX_MS);
    this.#retry(ms * (1 + 0.2 * this.#p.random()), reason, code, true);
  }

  #retry(ms, reason, code, told = false) {
    this.#p.clearTimeout(this.#timer);
    this.#told = told;
    this.#timer = this.#p.setTimeout(() => this.#open(), ms);
    this.#setStatus({
      state: this.#p.online() ? "reconnecting" : "offline",
      attempt: this.#failures, retryInMs: Math.round(ms), retryAt: this.#p.now() + ms, reason, code,
    });
  }

  // askWhy asks over HTTP what a browser hides of a refused upgrade: how long an
  // overloaded server wants to be left alone.
  async #askWhy() {
    const attempt = this.#attempt;
    const abort = new AbortController();
    const limit = this.#p.setTimeout(() => abort.abort(), VERDICT_MS);
    try {
      const res = await this.#p.fetch(this.#room, { cache: "no-store", credentials: "omit", signal: abort.signal });
      if (res.status !== 503 && res.status !== 429) return;
      // The header is not readable for pages of other origins; the body is.
      const problem = await res.json().catch(() => ({}));
      if (attempt !== this.#attempt) return;
      this.#retryTold(problem.retry_ms || Number(res.headers.get("Retry-After")) * 1000 || 5000, "overloaded");
    } catch {
      // Not reachable over HTTP either: the backoff goes on.
    } finally {
      this.#p.clearTimeout(limit);
    }
  }

  // wake looks after the connection when the network or the page has come back.
  #wake() {
    const { state } = this.#status;
    if (this.#welcomed) return this.#beat(PROBE_MS);
    if (state !== "reconnecting" && state !== "offline") return;
    const online = this.#p.online();
    // A wait that the server asked for is kept.
    if (online && !this.#told && this.#p.now() - this.#attemptAt >= WAKE_MS) return this.#open();
    const now = online ? "reconnecting" : "offline";
    if (now !== state) this.#setStatus({ ...this.#status, state: now, retryInMs: Math.max(0, this.#status.retryAt - this.#p.now()) });
  }

  #end(reason, code, message) {
    if (this.#status.state === "closed") return;
    this.#drop();
    this.#unlisten.forEach((f) => f());
    this.#setStatus({ state: "closed", attempt: this.#failures, reason, code, message });
    this.#outbox.end(new KanseiError("closed", `the connection is closed: ${reason}`));
  }

  #clearTimers() {
    for (const t of [this.#timer, this.#moveTimer, this.#beatTimer, this.#answerTimer]) this.#p.clearTimeout(t);
    this.#answerTimer = undefined;
  }

  #setStatus(status) {
    this.#status = status;
    this.#emit("status", status);
  }

  // --- messages

  #receive(data) {
    let m;
    try {
      m = JSON.parse(data);
    } catch {
      return this.#emit("error", new KanseiError("bad_message", "the server sent something that is not JSON"));
    }
    switch (m?.type) {
      case "welcome": return this.#onWelcome(m);
      case "comments": return this.#onComments(m);
      case "viewers": return this.#emit("viewers", m);
      case "state": return this.#emit("state", m);
      case "ok": return this.#outbox.ok(m);
      case "error":
        if (m.ref !== undefined) return this.#outbox.error(m);
        return this.#emit("error", new KanseiError(m.code, m.message, m.retry_ms));
      case "gap":
        if (m.cursor) this.#cursor = m.cursor;
        return this.#emit("gap", m);
      case "beat":
        this.#p.clearTimeout(this.#answerTimer);
        this.#answerTimer = undefined;
        return;
      case "reconnect": return this.#onReconnect(m);
    }
  }

  #onWelcome(m) {
    this.#p.clearTimeout(this.#timer);
    this.#welcomed = true;
    this.#liveAt = this.#p.now();
    this.#refusedTokens = 0;
    this.#comeBackAt = 0;
    this.#session = m.session;
    this.#resync = Boolean(this.#offered) && !m.recovered;
    if (this.#resync) this.#cursor = undefined;
    if (this.#status.state !== "live") this.#setStatus({ state: "live", attempt: 0 });
    this.#emit("welcome", m);
    const every = m.beat_ms >= 1000 ? m.beat_ms : 30_000;
    const next = () => {
      this.#beatTimer = this.#p.setTimeout(() => { next(); this.#beat(ANSWER_MS); }, every);
    };
    // The first one at any time, so that viewers who came at once don't beat at once.
    this.#beatTimer = this.#p.setTimeout(() => { next(); this.#beat(ANSWER_MS); }, every * (0.5 + this.#p.random() / 2));
    this.#outbox.connected(this.#socket, m.session);
  }

  #onComments(m) {
    let items = Array.isArray(m.items) ? m.items.filter((c) => typeof c?.id === "string" && typeof c.text === "string") : [];
    // With the time, because a log that was made anew gives the same ids again.
    const key = (c) => `${c.id} ${c.at}`;
    if (this.#resync && m.history) {
      const last = items.findLastIndex((c) => this.#seen.has(key(c)));
      if (last < 0 && items.length) this.#emit("gap", { type: "gap" });
      items = items.slice(last + 1);
    }
    this.#resync = false;
    const before = items.length;
    items = items.filter((c) => !this.#seen.has(key(c)) && this.#seen.add(key(c)));
    for (const k of this.#seen) {
      if (this.#seen.size <= SEEN_MAX) break;
      this.#seen.delete(k);
    }
    if (m.cursor) this.#cursor = m.cursor;
    const history = m.history === true;
    if (items.length || (!before && m.of > m.shown)) this.#emit("comments", { ...m, history, items: items.map((c) => ({ ...c, history })) });
  }

  // The node is leaving. What it still sends is welcome, until the time to come back.
  #onReconnect(m) {
    const ms = Math.min(Math.max(Number(m.after_ms) || 0, 0), TOLD_MAX_MS);
    this.#comeBackAt = this.#p.now() + ms;
    this.#giveUpNext();
    this.#moveTimer = this.#p.setTimeout(() => this.#move(), ms);
    this.#emit("reconnect", m);
  }

  #beat(limit) {
    const beat = { type: "beat", visible: this.#p.visible(), media_ms: whole(this.#o.mediaMs?.()) };
    try {
      this.#socket.send(JSON.stringify(beat));
    } catch {
      return this.#lose("lost");
    }
    if (this.#answerTimer !== undefined) return;
    const due = this.#p.now() + limit;
    this.#answerTimer = this.#p.setTimeout(() => {
      this.#answerTimer = undefined;
      // After a sleep the answer may be waiting behind this timer: ask once more.
      if (this.#p.now() - due > SUSPENDED_MS) return this.#beat(PROBE_MS);
      this.#lose("silent");
    }, limit);
  }

  #emit(type, value) {
    for (const f of [...(this.#listeners.get(type) ?? [])]) {
      try {
        f(value);
      } catch (err) {
        this.#p.report(err); // a listener's mistake must not stop the others
      }
    }
  }
}

// Outbox holds the comments that wait for their answer, over reconnects.
class Outbox {
  #p;
  #pending = new Map(); // ref → entry, in the order in which they were made
  #socket = null;
  #session;
  #prefix;
  #n = 0;

  constructor(platform) {
    this.#p = platform;
    // Two pages may share a session, so refs are not counted from 1 alone.
    this.#prefix = Math.floor(platform.random() * 2 ** 48).toString(36);
  }

  add(message, timeoutMs = PENDING_MS) {
    const ref = message.ref ?? `${this.#prefix}-${++this.#n}`;
    if (this.#pending.size >= PENDING_MAX) return Promise.reject(new KanseiError("unavailable", "too many comments wait for an answer"));
    if (this.#pending.has(ref)) return Promise.reject(new TypeError(`kansei: ref ${ref} is waiting for its answer already`));
    return new Promise((resolve, reject) => {
      const limit = Math.min(Math.max(timeoutMs, 0), REF_MS);
      const entry = { ref, text: JSON.stringify({ ...message, ref }), resolve, reject, sentIn: undefined, tries: 0 };
      entry.deadline = this.#p.now() + limit;
      entry.timer = this.#p.setTimeout(() => this.#expire(entry), limit);
      this.#pending.set(ref, entry);
      this.#send(entry);
    });
  }

  connected(socket, session) {
    this.#socket = socket;
    this.#session = session;
    for (const e of [...this.#pending.values()]) this.#send(e);
  }

  disconnected() {
    this.#socket = null;
    for (const e of this.#pending.values()) this.#p.clearTimeout(e.retry);
  }

  end(err) {
    for (const e of [...this.#pending.values()]) this.#settle(e, () => e.reject(err));
  }

  ok(m) {
    const e = this.#pending.get(m.ref);
    if (e) this.#settle(e, () => e.resolve({ id: m.id, held: m.held === true, ref: m.ref }));
  }

  error(m) {
    const e = this.#pending.get(m.ref);
    if (!e) return;
    const refuse = () => this.#settle(e, () => e.reject(new KanseiError(m.code, m.message, m.retry_ms)));
    if (m.code !== "unavailable" && m.code !== "unknown_outcome") return refuse();
    if (m.code === "unavailable") e.sentIn = undefined; // known not to be done
    const wait = Math.max(m.retry_ms || 0, (0.5 + this.#p.random() / 2) * Math.min(4000, 500 * 2 ** e.tries));
    if (this.#p.now() + wait >= e.deadline) return refuse();
    this.#p.clearTimeout(e.retry);
    e.retry = this.#p.setTimeout(() => this.#send(e), wait);
  }

  #send(e) {
    if (!this.#socket) return;
    // Another session does not know the ref: sending again could say it twice.
    if (e.sentIn !== undefined && e.sentIn !== this.#session) return this.#expire(e);
    e.sentIn = this.#session;
    e.tries++;
    try {
      this.#socket.send(e.text);
    } catch {
      // The socket is closing; its close event leads to the next one.
    }
  }

  #expire(e) {
    const [code, text] = e.sentIn === undefined ? ["unavailable", "not sent: there is no connection"] : ["unknown_outcome", "there was no answer"];
    this.#settle(e, () => e.reject(new KanseiError(code, text)));
  }

  #settle(e, how) {
    this.#p.clearTimeout(e.timer);
    this.#p.clearTimeout(e.retry);
    this.#pending.delete(e.ref);
    how();
  }
}

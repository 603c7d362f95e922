// Kansei for browsers: the comments, viewer counts and state of one room, pushed.
//
//   import { connect } from "https://kansei.example/sdk/kansei.js";
//   const room = connect({ room: "lobby" });
//   room.on("comments", ({ items }) => items.forEach((c) => console.log(c.text)));
//   await room.comment("hello");
//
// A Connection keeps one WebSocket to the room and opens another when it is lost, at
// the next of its addresses (addresses.js) and at its cursor, so that listeners see each
// comment once and in order; a node that is leaving is left only when another has said
// welcome. Who comes back does so after a random time that grows with each failure, but
// not before the time that a server told, and at once when the network or the page is
// back. outbox.js holds the comments that are not answered yet. Everything that waits
// has a limit; the types are in kansei.d.ts.

import { Addresses } from "./addresses.js";
import { KanseiError, Outbox } from "./outbox.js";
import { browser } from "./platform.js";

export { KanseiError };

const SUBPROTOCOL = "kansei.v1";

const CONNECT_MS = 15_000; // from the attempt to the welcome
const MOVE_MS = 5_000; // the same while there is still another connection
const ANSWER_MS = 10_000; // for the answer to a beat
const PROBE_MS = 3_000; // for the same when the network or the page has just come back
const SLEPT_MS = 1_000; // a timer that is later than this says that the page slept
const STABLE_MS = 10_000; // a connection that lasted this long starts the backoff anew
const TOLD_MAX_MS = 10 * 60_000; // the longest wait that a server may ask for
const BUSY_MS = 5_000; // for a server that is busy and does not say for how long
const WAKE_MS = 1_000; // attempts because of wake-ups are at least this far apart
const AWAKE_MS = 5_000; // who has woken so lately is not kept waiting when it finds its connection lost
const TOKENS_MAX = 3; // tokens refused in a row before giving up
const VERDICT_MS = 5_000;
const SEEN_MAX = 2_048; // comments remembered, to show none twice

// The close codes after which coming back cannot help, and what they mean.
const FINAL = new Map([
  [1000, "ended"], [1002, "protocol"], [1003, "protocol"], [1007, "protocol"], [1009, "protocol"],
  [4400, "malformed"], [4403, "banned"], [4404, "no_room"],
]);
const LOST = new Map([[1012, "restart"], [4408, "too_slow"], [4429, "too_many"]]);
const UNAUTHORIZED = 4401;

// toldMs is how long a server wants to be left alone, out of what it said.
const toldMs = (ms) => Math.min(Math.max(Number(ms) || 0, 0), TOLD_MAX_MS);
const toldBy = (reason) => toldMs(/retry_ms=(\d+)/.exec(reason)?.[1]);

// A player tells its position as a fraction, or NaN before it has one; the wire
// takes whole milliseconds, or nothing.
const whole = (ms) => (ms >= 0 && ms < Infinity ? Math.round(ms) : undefined);

/** Joins a room and stays in it until `close()`. */
export function connect(options, platform = browser()) {
  return new Connection(options, platform);
}

class Connection {
  #o;
  #p;
  #addresses;
  #listeners = new Map();
  #outbox;
  #unlisten = [];

  #status = { state: "connecting", attempt: 1 };
  #socket = null; // the one that counts; events of any other are ignored
  #welcomed = false;
  #timer; // the next attempt, or the limit of the one under way
  #attempt = 0; // what belongs to an earlier one is void
  #attemptAt = 0;
  #failures = 0; // since a connection last proved stable
  #liveAt = 0;
  #notBefore = 0; // a server told it
  #awakeUntil = 0; // a loss before it finds the device just woken
  #comeBackAt = 0; // from a reconnect message
  #next = null; // the socket that is to take the place of the one that counts
  #moves = 0; // attempts to find it that failed
  #moveTimer; // of the next attempt to move, or the limit of the one under way
  #beatTimer;
  #answerTimer;
  #answerDue;

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
    this.#addresses = new Addresses(options, platform);
    this.#token = options.token;
    this.#session = options.session;
    this.#cursor = options.since;
    this.#outbox = new Outbox(platform, () => this.#beat(ANSWER_MS));
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
    const wait = this.#addresses.next(this.#p.now());
    if (wait > 0) return this.#retry(wait, "overloaded", undefined, wait);
    this.#attemptAt = this.#p.now();
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
    const { room } = this.#addresses;
    const url = new URL(`${room.replace(/^http/, "ws")}/ws`);
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
      if (ws === this.#next) this.#declined(e.code, e.reason ?? "");
      else if (ws === this.#socket) this.#closed(e.code, e.reason ?? "");
      else return;
      if (!opened) this.#askWhy(room);
    };
    return ws;
  }

  // move looks for another connection while there is this one, whose messages are
  // taken until the other has its welcome; #seen has none shown twice.
  async #move() {
    this.#giveUpNext();
    const attempt = this.#attempt;
    const wait = this.#addresses.next(this.#p.now());
    this.#moveTimer = this.#p.setTimeout(() => (wait > 0 ? this.#move() : this.#stay()), wait || MOVE_MS);
    if (wait > 0) return;
    try {
      if (!this.#token && this.#o.getToken) {
        const token = await this.#o.getToken();
        if (attempt !== this.#attempt) return;
        this.#token = token;
      }
      this.#next = this.#dial();
    } catch {
      if (attempt === this.#attempt) this.#stay();
    }
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

  // declined decides what the end of the other socket means before its welcome.
  #declined(code, reason) {
    if (FINAL.has(code)) return this.#giveUpNext(); // what is left is the node that is leaving
    if (code !== UNAUTHORIZED) return this.#stay(toldBy(reason));
    // The token was good when this connection began.
    if (!this.#o.getToken || ++this.#refusedTokens > TOKENS_MAX) return this.#giveUpNext();
    this.#token = undefined;
    if (this.#refusedTokens > 1) return this.#stay();
    this.#move();
  }

  // stay gives up an attempt to move; another follows while the node is still here.
  #stay(told = 0) {
    this.#giveUpNext();
    this.#moveTimer = this.#p.setTimeout(() => this.#move(), told + this.#addresses.jitter(this.#moves++));
  }

  #giveUpNext() {
    this.#p.clearTimeout(this.#moveTimer);
    this.#attempt++;
    const ws = this.#next;
    this.#next = null;
    if (ws && ws.readyState < 2) ws.close(1000);
  }

  // closed decides what the end of the socket means.
  #closed(code, reason) {
    if (this.#next && !FINAL.has(code) && code !== UNAUTHORIZED) return this.#adopt();
    this.#drop();
    if (FINAL.has(code)) return this.#end(FINAL.get(code), code, reason);
    if (code === UNAUTHORIZED) {
      if (!this.#o.getToken || ++this.#refusedTokens > TOKENS_MAX) return this.#end("unauthorized", code, reason);
      this.#token = undefined;
      const told = toldBy(reason); // so that those whose tokens end at once don't come back at once
      return this.#retry(told + (this.#refusedTokens === 1 ? 0 : this.#backoff()), "unauthorized", code, told);
    }
    const left = this.#comeBackAt - this.#p.now();
    const told = Math.max(toldBy(reason), left, 0);
    this.#retry(told + this.#backoff(), LOST.get(code) ?? (left > 0 ? "restart" : "lost"), code, told);
  }

  // adopt makes an attempt to move the attempt to connect, when the node has gone.
  #adopt() {
    const next = this.#next;
    this.#next = null;
    this.#drop();
    this.#socket = next;
    this.#attemptAt = this.#p.now();
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
    this.#clearTimers();
    this.#giveUpNext();
    if (this.#welcomed && this.#p.now() - this.#liveAt >= STABLE_MS) this.#failures = 0;
    this.#welcomed = false;
    this.#outbox.disconnected();
    if (ws && ws.readyState < 2) ws.close(1000);
  }

  // backoff is the wait after a failure, beside what a server told.
  #backoff() {
    const now = this.#p.now();
    if (now >= this.#awakeUntil) return this.#addresses.jitter(this.#failures++);
    this.#awakeUntil = 0;
    return Math.max(0, this.#attemptAt + WAKE_MS - now);
  }

  // retry opens another socket after ms, of which a server told the first told.
  #retry(ms, reason, code, told = 0) {
    const now = this.#p.now();
    this.#p.clearTimeout(this.#timer);
    this.#notBefore = now + told;
    this.#timer = this.#p.setTimeout(() => this.#open(), ms);
    this.#setStatus({
      state: this.#p.online() ? "reconnecting" : "offline",
      attempt: this.#failures, retryInMs: Math.round(ms), retryAt: now + ms, reason, code,
    });
  }

  // askWhy asks over HTTP what a browser hides of a refused upgrade: how long a server
  // that is overloaded, or leaving, wants to be left alone.
  async #askWhy(room) {
    const attempt = this.#attempt;
    const abort = new AbortController();
    const limit = this.#p.setTimeout(() => abort.abort(), VERDICT_MS);
    const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    try {
      const res = await this.#p.fetch(room, { headers, cache: "no-store", credentials: "omit", signal: abort.signal });
      if (res.status !== 503 && res.status !== 429) return;
      const problem = await res.json().catch(() => ({})); // what stands in front of a node may say less
      const told = toldMs(problem.retry_ms || Number(res.headers.get("Retry-After")) * 1000) || BUSY_MS;
      const now = this.#p.now();
      this.#addresses.spare(room, now + told + this.#addresses.jitter(this.#failures));
      const wait = this.#addresses.wait(now);
      const reason = problem.close === 1012 ? LOST.get(1012) : "overloaded";
      if (wait > 0 && !this.#welcomed && attempt === this.#attempt) this.#retry(wait, reason, undefined, wait);
    } catch {
      // Not reachable over HTTP either: the backoff goes on.
    } finally {
      this.#p.clearTimeout(limit);
    }
  }

  // wake looks after the connection when the network or the page has come back.
  #wake() {
    const now = this.#p.now();
    const { state, retryAt, reason, code } = this.#status;
    const online = this.#p.online();
    if (online) this.#failures = 0;
    this.#awakeUntil = online ? now + AWAKE_MS : 0;
    if (this.#welcomed) return this.#beat(PROBE_MS);
    if (state === "connecting") { // perhaps to a network that is no more
      if (!online || now - this.#attemptAt < WAKE_MS) return;
      this.#drop();
      return this.#open();
    }
    // A wait that a server asked for is kept.
    const at = online ? Math.min(retryAt, Math.max(this.#notBefore, this.#attemptAt + WAKE_MS)) : retryAt;
    if (online && at <= now) return this.#open();
    if (at < retryAt || online !== (state === "reconnecting")) this.#retry(Math.max(0, at - now), reason, code, this.#notBefore - now);
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
    this.#addresses.arrive();
    this.#refusedTokens = 0;
    this.#comeBackAt = 0;
    this.#moves = 0;
    this.#session = m.session;
    this.#resync = Boolean(this.#offered) && !m.recovered;
    if (this.#resync) this.#cursor = undefined;
    if (this.#status.state !== "live") this.#setStatus({ state: "live", attempt: 0 });
    this.#emit("welcome", m);
    const every = m.beat_ms >= 1000 ? m.beat_ms : 30_000;
    const beatIn = (ms) => {
      const due = this.#p.now() + ms;
      this.#beatTimer = this.#p.setTimeout(() => {
        beatIn(every);
        this.#beat(this.#p.now() - due > SLEPT_MS ? PROBE_MS : ANSWER_MS);
      }, ms);
    };
    // The first one at any time, so that viewers who came at once don't beat at once.
    beatIn(every * (0.5 + this.#p.random() / 2));
    this.#outbox.connected(this.#socket, m.session, m.limits);
  }

  #onComments(m) {
    let items = Array.isArray(m.items) ? m.items.filter((c) => typeof c?.id === "string" && typeof c.text === "string") : [];
    // With the time: servers of other versions may give an id again when a log was made anew.
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
    const ms = toldMs(m.after_ms);
    this.#comeBackAt = this.#p.now() + ms;
    this.#addresses.leave(this.#comeBackAt);
    this.#moves = 0;
    this.#giveUpNext();
    this.#moveTimer = this.#p.setTimeout(() => this.#move(), ms);
    this.#emit("reconnect", m);
  }

  // beat asks whether the server is there; it must answer within limit.
  #beat(limit, again = false) {
    const beat = { type: "beat", visible: this.#p.visible(), media_ms: whole(this.#o.mediaMs?.()) };
    try {
      this.#socket.send(JSON.stringify(beat));
    } catch {
      return this.#lose("lost");
    }
    const due = this.#p.now() + limit;
    if (this.#answerTimer !== undefined && this.#answerDue <= due) return;
    this.#p.clearTimeout(this.#answerTimer);
    this.#answerDue = due;
    this.#answerTimer = this.#p.setTimeout(() => {
      this.#answerTimer = undefined;
      // After a sleep the answer may be waiting behind this timer: ask once more.
      if (!again && this.#p.now() - due > SLEPT_MS) return this.#beat(PROBE_MS, true);
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

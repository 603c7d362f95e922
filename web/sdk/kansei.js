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
// welcome. It reconnects after a random time that grows with each failure, but
// not before the time that a server told, and at once when the network or the page is
// back. outbox.js holds the comments that are not answered yet. Everything that waits
// has a limit; the types are in kansei.d.ts.

import { actRequest, setRequest } from "./acts.js";
import { Addresses } from "./addresses.js";
import { members } from "./members.js";
import { Outbox } from "./outbox.js";
import { browser, steadyClock } from "./platform.js";
import { KanseiError, asToken, commentRequest, eventRequest, refusal, whole } from "./request.js";
import { Seen } from "./seen.js";
import { broadcasts, moderation, person, sweep, watchLog } from "./staff.js";
import { measure } from "./text.js";
import { toldBy, toldMs, whyNot } from "./why.js";

export { KanseiError, measure };

const SUBPROTOCOL = "kansei.v1";

const CONNECT_MS = 15_000; // from the attempt to the welcome
const MOVE_MS = 5_000; // the same while there is still another connection
const ANSWER_MS = 10_000; // for the answer to a beat
const PROBE_MS = 3_000; // for the same when the network or the page has just come back
const VISIBLE_MS = 1_000; // at least so far apart are beats that tell that the page was hidden or shown
const SLEPT_MS = 1_000; // a timer that is later than this says that the page slept
const STABLE_MS = 10_000; // a connection that lasted this long starts the backoff anew
const WAKE_MS = 1_000; // attempts because of wake-ups are at least this far apart
const AWAKE_MS = 5_000; // who has woken so lately is not kept waiting when it finds its connection lost
const TOKENS_MAX = 3; // tokens refused in a row before giving up

// The close codes after which coming back cannot help, and what they mean.
const FINAL = new Map([
  [1000, "ended"], [1002, "protocol"], [1003, "protocol"], [1007, "protocol"], [1009, "protocol"],
  [4400, "malformed"], [4403, "banned"], [4404, "no_room"],
]);
const LOST = new Map([[1012, "restart"], [4403, "banned"], [4408, "too_slow"], [4429, "too_many"]]);
const UNAUTHORIZED = 4401;
const BANNED = 4403; // for good, unless it says until when
const isFinal = (code, reason) => FINAL.has(code) && !(code === BANNED && toldBy(reason) > 0);
const AUTH_REF = "kansei-auth"; // of a fresh token

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
  #retryAt = 0; // of the next attempt
  #cause; // why attempts fail, as far as it could be found out
  #hinted = new Set(); // causes that the console was told of
  #awakeUntil = 0; // a loss before it finds the device just woken
  #comeBackAt = 0; // from a reconnect message
  #next = null; // the socket that is to take the place of the one that counts
  #moves = 0; // attempts to find it that failed
  #moveTimer; // of the next attempt to move, or the limit of the one under way
  #beatTimer;
  #answerTimer;
  #answerDue;
  #told; // whether the page could be seen, as the server was told last
  #toldAt = -VISIBLE_MS;
  #visibleTimer;

  #token;
  #refusedTokens = 0;
  #session;
  #cursor;
  #offered; // the cursor of this attempt
  #resync = false; // the server could not go on from it: the next history is compared instead
  #seen = new Seen();

  constructor(options, platform) {
    if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(options?.room ?? "")) throw new TypeError(`kansei: not a room name: ${options?.room}`);
    if (!platform.WebSocket) throw new Error("kansei: there is no WebSocket here");
    this.#o = options;
    const date = () => platform.now();
    this.#p = Object.assign(Object.create(platform), { now: steadyClock(platform), date });
    this.#addresses = new Addresses(options, this.#p);
    this.#token = options.token ?? undefined; // looked at when it is used
    this.#session = options.session;
    this.#cursor = options.since;
    this.#outbox = new Outbox(this.#p, () => this.#beat(ANSWER_MS));
    const listen = (target, type, f) => {
      if (!target?.addEventListener) return;
      target.addEventListener(type, f);
      this.#unlisten.push(() => target.removeEventListener(type, f));
    };
    listen(platform.window, "online", () => this.#wake());
    listen(platform.window, "offline", () => this.#wake());
    listen(platform.window, "pageshow", (e) => e.persisted && this.#wake());
    for (const type of ["visibilitychange", "enterpictureinpicture", "leavepictureinpicture"]) listen(platform.document, type, () => this.#look(true));
    // Later, so that the caller's listeners see everything from the start.
    this.#timer = platform.setTimeout(() => this.#open(), 0);
  }

  get status() { return this.#status; }
  get #over() { return this.#status.state === "closed"; }
  get session() { return this.#session; }
  get cursor() { return this.#cursor; }

  on(type, listener) {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type).add(listener);
    return () => this.off(type, listener);
  }

  off(type, listener) { this.#listeners.get(type)?.delete(listener); }

  async comment(text, options) { return this.#request(commentRequest(text, options ?? {}), options); }

  async act(type, options) { return this.#request(actRequest(type, options ?? {}), options); }

  async event(name, options) { return this.#request(eventRequest(name, options ?? {}), options); }

  async set(patch, options) { return this.#request(setRequest(patch, options ?? {}), options); }

  #request(request, options) {
    const { timeoutMs } = options ?? {};
    if (timeoutMs != null && !(timeoutMs >= 0)) throw new TypeError(`kansei: timeoutMs must be milliseconds, not ${timeoutMs}`);
    if (this.#over) throw new KanseiError("closed", "the connection is closed");
    return this.#outbox.add(request, timeoutMs ?? undefined);
  }

  async members(options) { return this.#ask(members, options ?? {}); }

  async moderation(options) { return this.#ask(moderation, options ?? {}); }

  async person(user, options) { return this.#ask(person, user, options ?? {}); }

  async sweep(wanted, options) { return this.#ask(sweep, wanted, options ?? {}); }

  async watchLog(options) { return this.#ask(watchLog, options ?? {}); }

  async broadcasts(options) { return this.#ask(broadcasts, options ?? {}); }

  // ask has f make a request over HTTP.
  async #ask(f, ...rest) {
    if (this.#token === undefined && this.#o.getToken) this.#token = await this.#o.getToken();
    return f(this.#p, this.#addresses.room, this.#token == null ? undefined : asToken(this.#token), ...rest);
  }

  close() { this.#end("closed"); }

  // --- coming and going

  async #open() {
    this.#clearTimers();
    const attempt = ++this.#attempt;
    const wait = this.#addresses.next(this.#p.now());
    if (wait > 0) return this.#retry(wait, "overloaded", undefined, wait);
    this.#attemptAt = this.#p.now();
    this.#timer = this.#p.setTimeout(() => this.#lose("timeout"), CONNECT_MS);
    this.#setStatus({ state: "connecting", attempt: this.#failures + 1 });
    if (attempt !== this.#attempt) return; // a listener has closed it
    try {
      if (this.#token === undefined && this.#o.getToken) {
        const token = asToken(await this.#o.getToken());
        if (attempt !== this.#attempt) return; // it took too long, or was overtaken
        this.#token = token;
      }
    } catch (err) {
      if (attempt !== this.#attempt) return;
      this.#emit("error", new KanseiError("token", `getToken failed: ${err?.message ?? err}`));
      if (attempt !== this.#attempt) return;
      this.#hint("token", "getToken must return a JWT; leave it out to join as a guest");
      return this.#lose("token");
    }
    try {
      if (this.#token !== undefined) this.#token = asToken(this.#token);
    } catch (err) {
      this.#emit("error", new KanseiError("token", err.message));
      this.#hint("token", `${err.message.replace("kansei: ", "")}; leave it out to join as a guest`);
      return this.#end("token", undefined, err.message);
    }
    try {
      this.#socket = this.#dial();
    } catch (err) { // a page that may not connect there: its policy, or plain HTTP from a page over TLS
      this.#emit("error", new KanseiError("bad_message", err.message));
      this.#hint("url", `this page may not connect to ${this.#addresses.room}: ${err.message}`);
      this.#end("url", undefined, err.message);
    }
  }

  // dial makes a socket, which counts when it is made #socket or #next.
  #dial() {
    const { room } = this.#addresses;
    const url = new URL(`${room.replace(/^http/, "ws")}/ws`);
    this.#offered = this.#cursor;
    if (this.#cursor) url.searchParams.set("since", this.#cursor);
    if (this.#session) url.searchParams.set("session", this.#session);
    if (this.#o.count === false) url.searchParams.set("count", "0");
    // A page that is opened in the background has no event to tell of.
    this.#told = this.#p.visible();
    url.searchParams.set("visible", this.#told ? "1" : "0");
    const mediaMs = whole(this.#o.mediaMs?.());
    if (mediaMs !== undefined) url.searchParams.set("media_ms", mediaMs);
    const protocols = [SUBPROTOCOL];
    if (this.#token) protocols.push(`bearer.${this.#token}`);
    const ws = new this.#p.WebSocket(url.href, protocols);
    let opened = false;
    ws.onopen = () => { opened = true; };
    ws.onerror = () => {}; // close says it; some sockets throw what nobody listens to
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
      if (this.#token === undefined && this.#o.getToken) {
        const token = asToken(await this.#o.getToken());
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
    if (isFinal(code, reason)) return this.#giveUpNext(); // what is left is the node that is leaving
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
    if (isFinal(code, reason)) return this.#end(FINAL.get(code), code, reason);
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
    this.#timer = this.#p.setTimeout(() => this.#lose("timeout"), MOVE_MS);
    this.#setStatus({ state: "connecting", attempt: this.#failures + 1 });
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
    this.#retryAt = now + ms;
    this.#timer = this.#p.setTimeout(() => this.#open(), ms);
    const online = this.#p.online();
    if (online && reason === "lost" && this.#cause) reason = this.#cause;
    if (!online && reason === "lost") reason = "offline";
    this.#setStatus({
      state: online ? "reconnecting" : "offline",
      attempt: this.#failures, retryInMs: Math.round(ms), retryAt: this.#p.date() + ms, reason, code,
    });
  }

  // askWhy finds out what a browser hides of a refused upgrade, and says so at once if this
  // is the wait for the next attempt.
  async #askWhy(room) {
    const attempt = this.#attempt;
    const why = await whyNot(this.#p, room, this.#token).catch(() => null); // not reachable over HTTP either
    if (!why || this.#over) return;
    const now = this.#p.now();
    if (why.told > 0) this.#addresses.spare(room, now + why.told + this.#addresses.jitter(this.#failures));
    if (this.#welcomed) return; // it was asked elsewhere, to move there
    this.#cause = why.cause;
    if (why.hint) this.#hint(why.cause, why.hint);
    if (attempt !== this.#attempt) return;
    if (why.told > 0) {
      const wait = this.#addresses.wait(now);
      if (wait > 0) this.#retry(wait, why.leaving ? "restart" : "overloaded", undefined, wait);
    } else if (why.cause && this.#status.reason === "lost") {
      this.#retry(Math.max(0, this.#retryAt - now), "lost", this.#status.code, Math.max(0, this.#notBefore - now));
    }
  }

  // hint tells the developer in the console, once, what is to be mended.
  #hint(cause, text) {
    if (this.#hinted.has(cause)) return;
    this.#hinted.add(cause);
    this.#p.warn?.(`kansei: ${text}`);
  }

  // look sees to it that the server knows whether the page can be seen. back says that the page has just come back.
  #look(back = false) {
    const visible = this.#p.visible();
    this.#p.clearTimeout(this.#visibleTimer);
    if (!this.#welcomed || (visible && back && this.#told)) return back && visible && this.#wake();
    if (this.#told === visible) return;
    const wait = this.#toldAt + VISIBLE_MS - this.#p.now();
    if (wait > 0) this.#visibleTimer = this.#p.setTimeout(() => this.#look(back), wait); // it may be back in a moment
    else if (visible && back) this.#wake();
    else this.#beat(ANSWER_MS);
  }

  // wake looks after the connection when the network or the page has come back.
  #wake() {
    const now = this.#p.now();
    const { state, reason, code } = this.#status;
    const retryAt = this.#retryAt;
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
    for (const t of [this.#timer, this.#moveTimer, this.#beatTimer, this.#answerTimer, this.#visibleTimer]) this.#p.clearTimeout(t);
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
      case "viewers":
      case "state":
      case "moderation":
      case "removed":
      case "restored": return this.#emit(m.type, m);
      case "event": return this.#onEvent(m);
      case "ok": return this.#outbox.ok(m);
      case "error":
        if (m.ref !== undefined && m.ref !== AUTH_REF) return this.#outbox.error(m);
        return this.#emit("error", refusal(m));
      case "gap":
        if (m.cursor) this.#cursor = m.cursor;
        return this.#emit("gap", m);
      case "beat":
        this.#p.clearTimeout(this.#answerTimer);
        this.#answerTimer = undefined;
        return;
      case "reconnect": return this.#onReconnect(m);
      case "renew": return this.#renew();
      case "you":
        this.#outbox.limit(m.limits);
        return this.#emit("you", m);
    }
  }

  // renew sends a fresh token over the open connection. Without one the server closes when the
  // token ends, and another is fetched then.
  async #renew() {
    if (!this.#o.getToken) return;
    const socket = this.#socket;
    let token;
    try {
      token = asToken(await this.#o.getToken());
    } catch (err) {
      return this.#emit("error", new KanseiError("token", `getToken failed: ${err?.message ?? err}`));
    }
    if (this.#over || token === this.#token) return;
    this.#token = token;
    if (socket === this.#socket && socket.readyState === 1) socket.send(JSON.stringify({ type: "auth", ref: AUTH_REF, token }));
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
    this.#cause = undefined;
    this.#resync = Boolean(this.#offered) && !m.recovered;
    if (this.#resync) this.#cursor = undefined;
    if (this.#status.state !== "live") this.#setStatus({ state: "live", attempt: 0 });
    this.#emit("welcome", m);
    if (this.#over) return; // a listener has closed it
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
    this.#look(); // what was told when the connection was begun may have changed
  }

  #onComments(m) {
    let items = Array.isArray(m.items) ? m.items.filter((c) => typeof c?.id === "string" && typeof c.text === "string") : [];
    if (this.#resync && m.history) {
      const after = this.#seen.after(items);
      if (after.gap) this.#emit("gap", { type: "gap" });
      items = after.items;
    }
    this.#resync = false;
    const before = items.length;
    items = this.#seen.fresh(items);
    if (m.cursor) this.#cursor = m.cursor;
    const history = m.history === true;
    const counts = m.of > 0 ? { shown: m.shown ?? 0 } : {}; // what is 0 is left out
    if (items.length || (!before && m.of > counts.shown)) this.#emit("comments", { ...m, ...counts, history, items: items.map((c) => ({ ...c, history })) });
  }

  #onEvent(m) {
    if (typeof m.name !== "string" || (m.cursor && !this.#seen.fresh([m]).length)) return;
    if (m.cursor) this.#cursor = m.cursor;
    this.#emit("event", { ...m, past: !m.cursor });
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
    this.#told = this.#p.visible();
    this.#toldAt = this.#p.now();
    const beat = { type: "beat", visible: this.#told, media_ms: whole(this.#o.mediaMs?.()) };
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
      if (this.#over && type !== "status") return; // a closed connection says nothing more
      try {
        f(value);
      } catch (err) {
        this.#p.report(err); // a listener's mistake must not stop the others
      }
    }
  }
}

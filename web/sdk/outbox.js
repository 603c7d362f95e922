// The comments, acts and changes of the state that wait for their answer.

import { KanseiError, overLimit, refusal } from "./request.js";

const PENDING_MAX = 100; // comments waiting for an answer
const PENDING_MS = 30_000; // how long one waits by default
// And at most: two minutes are promised from when the server took a ref, less the
// time that it takes to append.
const REF_MS = 100_000;
const AGAIN_MS = 500; // the first wait is up to this, each later one up to twice as much
const AGAIN_MAX_MS = 4_000;
const QUIET_MS = 3_000; // without an answer: perhaps the connection is none any more

// What may be otherwise later, and what the text alone decides.
const TOO_FAST = new Set(["rate_limited", "slow_mode"]);
const LATER = new Set([...TOO_FAST, "unavailable", "unknown_outcome"]);
const OF_THE_TEXT = new Set(["bad_message", "unsupported", "too_long", "empty"]);

/** Outbox holds comments until they are answered, over reconnects, and sends them again under the same ref. */
export class Outbox {
  #p;
  #quiet; // called when an answer is late
  #pending = new Map(); // ref → entry, in the order in which they were made
  #socket = null;
  #session;
  #limits;
  #prefix;
  #n = 0;

  // Those who waited for this connection leave one behind the other, as fast as the server
  // takes them, and those that arrive meanwhile behind them.
  #queue = []; // entries
  #burst = 0; // how many may still leave at once
  #pump; // the timer of the next one

  constructor(platform, quiet) {
    this.#p = platform;
    this.#quiet = quiet;
    // Two pages may share a session, so refs are not counted from 1 alone.
    this.#prefix = Math.floor(platform.random() * 2 ** 48).toString(36);
  }

  add(message, timeoutMs = PENDING_MS) {
    const ref = message.ref ?? `${this.#prefix}-${++this.#n}`;
    if (this.#pending.size >= PENDING_MAX) return Promise.reject(new KanseiError("unavailable", "too many comments wait for an answer"));
    if (this.#pending.has(ref)) return Promise.reject(new TypeError(`kansei: ref ${ref} is waiting for its answer already`));
    const over = message.text !== undefined && overLimit(message.text, this.#limits);
    if (over) return Promise.reject(over);
    return new Promise((resolve, reject) => {
      const limit = Math.min(Math.max(timeoutMs, 0), REF_MS);
      // sentIn: the session in which it was sent, unless that is known to have come to
      // nothing; doubt: a sending before the last one may have reached the log; waited:
      // it was made before the connection that it is sent on, or behind one that was.
      const entry = { ref, text: message.text, json: JSON.stringify({ ...message, ref }), resolve, reject, sentIn: undefined, doubt: false, waited: false, tries: 0 };
      entry.deadline = this.#p.now() + limit;
      entry.timer = this.#p.setTimeout(() => this.#expire(entry), limit);
      this.#pending.set(ref, entry);
      if (!this.#queue.length) return this.#send(entry);
      entry.waited = true;
      this.#queue.push(entry);
    });
  }

  // connected sends what waits, as fast as the server takes it at most: the user may have
  // another connection, or have said something just before.
  connected(socket, session, limits) {
    this.#socket = socket;
    this.#session = session;
    this.#limits = limits;
    this.#burst = limits?.burst > 0 ? limits.burst : 1;
    for (const e of [...this.#pending.values()]) {
      const over = e.sentIn === undefined && e.text !== undefined && overLimit(e.text, limits);
      if (over) this.#settle(e, () => e.reject(over));
      else e.waited = true;
    }
    this.#queue = [...this.#pending.values()];
    this.#next();
  }

  limit(limits) { this.#limits = limits ?? this.#limits; }

  disconnected() {
    this.#socket = null;
    this.#stop();
    for (const e of this.#pending.values()) this.#rest(e);
  }

  end(err) {
    this.#stop();
    for (const e of [...this.#pending.values()]) this.#settle(e, () => e.reject(err));
  }

  ok(m) {
    const e = this.#pending.get(m.ref);
    if (!e) return;
    const said = { id: m.id, held: m.held === true, ref: m.ref };
    const { type, ...done } = m;
    this.#settle(e, () => e.resolve(e.text === undefined ? done : said));
  }

  error(m) {
    const e = this.#pending.get(m.ref);
    if (!e) return;
    const refuse = () => this.#settle(e, () => e.reject(refusal(m)));
    const outcome = m.code === "unavailable" || m.code === "unknown_outcome";
    if (!e.doubt) {
      if (!outcome && !(e.waited && LATER.has(m.code))) return refuse();
      if (m.code !== "unknown_outcome") e.sentIn = undefined; // known not to be done
    } else if (!LATER.has(m.code)) {
      // It was refused this time; the time before it may have been taken.
      return OF_THE_TEXT.has(m.code) ? refuse() : this.#expire(e);
    }
    const wait = Math.max(m.retry_ms || 0, (0.5 + this.#p.random() / 2) * Math.min(AGAIN_MAX_MS, AGAIN_MS * 2 ** e.tries));
    if (this.#p.now() + wait >= e.deadline) return e.doubt ? this.#expire(e) : refuse();
    this.#rest(e);
    if (!TOO_FAST.has(m.code)) {
      e.retry = this.#p.setTimeout(() => this.#send(e), wait);
      return;
    }
    // Nobody overtakes it: what comes after it waits, too.
    this.#queue = [...this.#pending.values()].filter((x) => x === e || this.#queue.includes(x));
    this.#burst = 0;
    this.#p.clearTimeout(this.#pump);
    this.#pump = this.#p.setTimeout(() => this.#next(true), wait);
  }

  // next sends those whose turn it is.
  #next(due = false) {
    for (; this.#queue.length && (due || this.#burst > 0); due = false) {
      if (!due) this.#burst--;
      this.#send(this.#queue.shift());
    }
    this.#p.clearTimeout(this.#pump);
    if (this.#queue.length) this.#pump = this.#p.setTimeout(() => this.#next(true), 1000 / (this.#limits?.per_s > 0 ? this.#limits.per_s : 1));
  }

  #stop() {
    this.#queue = [];
    this.#p.clearTimeout(this.#pump);
  }

  #send(e) {
    if (!this.#socket) return;
    // Another session does not know the ref, and neither does one that has forgotten it
    // while the device slept and no timer ran: sending again could say it twice.
    if (e.sentIn !== undefined && e.sentIn !== this.#session) return this.#expire(e);
    if (this.#p.now() >= e.deadline) return this.#expire(e);
    if (e.sentIn !== undefined) e.doubt = true;
    e.sentIn = this.#session;
    e.tries++;
    this.#rest(e);
    e.late = this.#p.setTimeout(this.#quiet, QUIET_MS);
    try {
      this.#socket.send(e.json);
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
    this.#rest(e);
    this.#pending.delete(e.ref);
    this.#queue = this.#queue.filter((x) => x !== e);
    how();
  }

  #rest(e) {
    this.#p.clearTimeout(e.retry);
    this.#p.clearTimeout(e.late);
  }
}

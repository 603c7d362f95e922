// A server, a clock and a network that tests move by hand.

import { connect } from "../sdk/kansei.js";

export class FakeSocket {
  readyState = 0;
  sent = [];
  closedWith = null;

  constructor(url, protocols) {
    this.url = new URL(url);
    this.protocols = protocols;
  }

  send(text) {
    if (this.readyState !== 1) throw new Error("InvalidStateError");
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closedWith = code;
    this.readyState = 2;
  }

  // What the server does.

  open() {
    this.readyState = 1;
    this.onopen?.();
  }

  say(message) { this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) }); }

  end(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  sentOf(type) { return this.sent.filter((m) => m.type === type); }
}

/** World is what a Connection lives in. */
export class World {
  sockets = [];
  fetched = [];
  reported = [];
  warned = [];
  verdict = () => Promise.reject(new TypeError("fetch failed"));
  chance = () => 0.5; // random()
  isOnline = true;
  isVisible = true;
  window = new EventTarget();
  document = new EventTarget();

  #now = 1_000_000;
  #awake = 0; // a clock that nobody sets, and that stands still while the device sleeps
  #timers = new Map();
  #next = 1;

  platform() {
    const world = this;
    return {
      WebSocket: class extends FakeSocket {
        constructor(url, protocols) {
          super(url, protocols);
          if (world.dialFails) throw world.dialFails;
          if (protocols.some((p) => /[\s,]/.test(p))) throw new SyntaxError("invalid subprotocol");
          world.sockets.push(this);
        }
      },
      fetch: (url, init) => {
        world.fetched.push({ url, init });
        return world.verdict(url, init);
      },
      now: () => world.#now,
      monotonic: () => world.#awake,
      random: () => world.chance(),
      setTimeout: (f, ms) => {
        const id = world.#next++;
        world.#timers.set(id, { at: world.#now + Math.max(0, ms), f });
        return id;
      },
      clearTimeout: (id) => world.#timers.delete(id),
      online: () => world.isOnline,
      visible: () => world.isVisible,
      window: world.window,
      document: world.document,
      report: (err) => world.reported.push(err),
      warn: (text) => world.warned.push(text),
    };
  }

  get now() { return this.#now; }
  /** Setting the clock moves no timer: they stand still while some devices sleep. */
  set now(time) {
    for (const t of this.#timers.values()) t.at += time - this.#now;
    this.#now = time;
  }
  get timers() { return this.#timers.size; }
  get socket() { return this.sockets.at(-1); }

  /** pass lets time go by, and everything happen that was due. */
  async pass(ms) {
    const end = this.#now + ms;
    for (;;) {
      await settle();
      let due;
      for (const [id, t] of this.#timers) if (t.at <= end && (!due || t.at < due.t.at)) due = { id, t };
      if (!due) break;
      this.#timers.delete(due.id);
      this.#goOn(due.t.at);
      due.t.f();
    }
    this.#goOn(end);
    await settle();
  }

  #goOn(at) {
    this.#awake += Math.max(0, at - this.#now);
    this.#now = Math.max(this.#now, at);
  }

  /** sleep is pass for a device that was asleep: every timer is late. */
  async sleep(ms) {
    this.#now += ms;
    await this.pass(0);
  }

  async setOnline(on) {
    this.isOnline = on;
    this.window.dispatchEvent(new Event(on ? "online" : "offline"));
    await this.pass(0);
  }

  async setVisible(on) {
    this.isVisible = on;
    this.document.dispatchEvent(new Event("visibilitychange"));
    await this.pass(0);
  }
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

export const welcome = (fields = {}) => ({
  type: "welcome", v: 1, room: "r", session: "session-0123456789", you: { id: "u1", name: "U", role: "viewer", can: ["comment"] },
  now: 1, recovered: true, beat_ms: 30_000, limits: { text: 200, per_s: 1, burst: 5 }, ...fields,
});

export const comment = (id, fields = {}) => ({ id, at: 1000 + Number.parseInt(id, 36), user: { id: "u2" }, text: `text ${id}`, ...fields });

export const comments = (cursor, ids, fields = {}) => ({ type: "comments", cursor, items: ids.map((id) => comment(id)), ...fields });

/** join connects and records every event. */
export async function join(options = {}, world = new World()) {
  const room = connect({ url: "https://kansei.test", room: "r", ...options }, world.platform());
  const events = [];
  for (const type of ["welcome", "comments", "viewers", "state", "gap", "status", "error", "reconnect", "you", "removed", "restored", "event"]) {
    room.on(type, (value) => events.push([type, value]));
  }
  const of = (type) => events.filter(([t]) => t === type).map(([, v]) => v);
  await world.pass(0);
  return { room, world, events, of };
}

/** live is join, up to the welcome. */
export async function live(options = {}, world = new World()) {
  const joined = await join(options, world);
  world.socket.open();
  world.socket.say(welcome());
  await world.pass(0);
  return joined;
}

/** attempt lets time go by until there is another socket. */
export async function attempt(world) {
  const before = world.sockets.length;
  for (let i = 0; i < 6000 && world.sockets.length === before; i++) await world.pass(100);
  if (world.sockets.length === before) throw new Error("no attempt within ten minutes");
}

/** again is the next attempt, which succeeds. */
export async function again(world, fields = {}) {
  await attempt(world);
  world.socket.open();
  world.socket.say(welcome(fields));
  await world.pass(0);
}

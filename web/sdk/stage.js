// A stage over which comments fly: over a video, a picture, or nothing at all.
//
//   import { Stage, connect } from "https://kansei.example/sdk/stage.js";
//   new Stage(document.getElementById("player")).follow(connect({ room: "lobby" }));
//
// The stage is divided into thin rows. A comment takes as many as its lines need,
// and enters where it can cross without running into the one in front of it; when
// there is no such place, or too many are flying, it is left out and counted. Own
// comments and those of the staff wait for a place instead; so does one big or
// long comment at a time, for which rows are kept free, because small ones would
// otherwise always be there first. Comments at the top and the bottom stand in
// the middle of rows that flying ones then keep clear of.
//
// What one comment takes is bounded, and so is what those of one user take together:
// nobody covers the picture. When the stage changes its size, so does what is on it.
//
// All motion is one animation per comment, on the compositor. Under
// prefers-reduced-motion nothing flies: comments stand in their rows for a while,
// a few at a time.

import { Places, compact } from "./compact.js";

export { connect, KanseiError, measure } from "./kansei.js";

const ROWS = 44; // of the stage's height, but none thinner than this:
const ROW_MIN_PX = 8;
const ROWS_OF = { small: 2, medium: 3, big: 4 }; // one line of text
const LINE = 1.22; // line height over font size
const CROSS_MS = 6_500; // for a short comment to cross the stage
const UNEVEN = 0.12; // what comes at once doesn't fly as a wall: part of speed and of width
const FASTEST = 0.42; // stage widths a second, however long the comment
const WIDEST = 1.6; // stage widths; what is longer is set smaller
const SMALLEST = 0.55; // but not by more than this
const STAND_MS = 4_000; // for comments at the top and the bottom
const APART_PX = 28; // between two comments in a row
const KEEP_CLEAR_MS = 10_000; // flying comments avoid rows where one stood lately
const BAND = 0.2; // of the rows are for standing ones, at the top and at the bottom each
const TRIES_PER_FRAME = 24; // comments laid out in one frame
const WAITING_MAX = 40; // own and staff comments waiting for a place
const WAITING_MS = 3_000; // and how long they do
const KEPT_FREE_MS = 3_000; // rows for a big or long comment, at most
const LONG = 0.5; // stage widths
const STILL_MS = 7_000; // without motion: how long a comment stands
const STILL_EVERY_MS = 700; // and how often one appears
const SHARE = 0.5; // of the rows for one comment, but for the staff's
const OF_ONE = 0.5; // of the rows for the comments of one user together
// Elements that show no children: a stage lies around them, not in them.
const CHILDLESS = new Set(["VIDEO", "AUDIO", "IMG", "CANVAS", "IFRAME", "EMBED", "OBJECT", "INPUT", "TEXTAREA", "SELECT", "BR", "HR"]);
const STAFF = new Set(["moderator", "broadcaster"]);

export class Stage {
  /** How many comments were shown, and left out because there was no place. */
  shown = 0;
  leftOut = 0;
  /** The id of the user whose comments are marked and always shown. */
  self = "";

  #layer;
  #maxNodes;
  #paused = false;
  #pausedAt = 0;
  #pausedFor = 0;
  #queue = []; // for the next frame
  #waiting = []; // for a place
  #since = new WeakMap(); // comment → when it began to wait
  #kept = null; // rows kept free: {comment, row, span, at}
  #places = new Places(OF_ONE);
  #flying = new Set(); // entries on the stage
  #frame = 0;
  #width = 0;
  #height = 0;
  #rows = 0;
  #rowPx = 0;
  #last = []; // row → the last comment that flew into it
  #standing = []; // row → when the comment that stands there goes
  #clear = []; // row → until when flying comments avoid it
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  #stillAt = -Infinity;
  #resize;
  #onMotion = () => this.clear();

  constructor(element, { maxNodes = 120 } = {}) {
    if (!(element instanceof Element)) throw new TypeError("kansei: a stage needs an element to lie in");
    if (CHILDLESS.has(element.tagName)) {
      throw new TypeError(`kansei: nothing can be shown in a <${element.tagName.toLowerCase()}>: put it into an element with position: relative, and make the stage of that`);
    }
    this.#maxNodes = maxNodes;
    this.#layer = document.createElement("div");
    this.#layer.setAttribute("aria-hidden", "true"); // a list beside it is for reading
    Object.assign(this.#layer.style, {
      position: "absolute", inset: "0", overflow: "hidden", pointerEvents: "none", contain: "strict",
      fontWeight: "700", lineHeight: String(LINE),
    });
    element.append(this.#layer);
    this.#resize = new ResizeObserver(() => this.#measure());
    this.#resize.observe(this.#layer);
    this.#still.addEventListener("change", this.#onMotion);
    this.#measure();
  }

  /** Shows what a connection brings, and takes off what is removed. */
  follow(room) {
    room.on("comments", this.show);
    room.on("removed", this.remove);
    return this;
  }

  /** Takes off what a connection's "removed" event names. */
  remove = ({ ids, user, all }) => {
    const gone = (c) => all === true || (user !== undefined && c.user?.id === user) || (ids ?? []).includes(c.id);
    this.#queue = this.#queue.filter((c) => !gone(c));
    this.#waiting = this.#waiting.filter((c) => !gone(c));
    if (this.#kept && gone(this.#kept.comment)) this.#kept = null;
    for (const e of [...this.#flying]) if (gone(e.comment)) this.#remove(e);
  };

  /** Shows what a connection's "comments" event brings. Those of the past are not news. */
  show = ({ items }) => this.#add(items.filter((c) => !c.history));

  add(...comments) { this.#add(comments); }

  #add(comments) {
    if (this.#paused || document.hidden || !this.#layer.isConnected) {
      this.leftOut += comments.length;
      return;
    }
    for (const c of comments) {
      if (this.#always(c)) this.#waiting.push(c);
      else this.#queue.push(c);
    }
    this.leftOut += trim(this.#queue, TRIES_PER_FRAME * 2) + trim(this.#waiting, WAITING_MAX);
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  get paused() { return this.#paused; }

  set paused(on) {
    if (Boolean(on) === this.#paused) return;
    this.#paused = Boolean(on);
    const now = clock();
    if (this.#paused) this.#pausedAt = now;
    else this.#pausedFor += now - this.#pausedAt;
    for (const { animation } of this.#flying) {
      const at = animation.currentTime;
      if (this.#paused) {
        animation.pause();
        animation.currentTime = at; // not when the browser gets round to it
      } else {
        animation.startTime = now - at;
      }
    }
    if (!this.#paused && (this.#kept || this.#waiting.length)) this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  clear() {
    for (const e of [...this.#flying]) this.#remove(e);
    this.#places.clear();
    this.#kept = null;
    this.#last = Array(this.#rows).fill(null);
    this.#standing = Array(this.#rows).fill(0);
    this.#clear = Array(this.#rows).fill(0);
  }

  close() {
    cancelAnimationFrame(this.#frame);
    this.#resize.disconnect();
    this.#still.removeEventListener("change", this.#onMotion);
    this.clear();
    this.#layer.remove();
  }

  #always(c) { return STAFF.has(c.user?.role) || (this.self !== "" && c.user?.id === this.self); }

  #measure() {
    const { clientWidth: width, clientHeight: height } = this.#layer;
    if (width === this.#width && height === this.#height) return;
    const before = { rows: this.#rows, width: this.#width, height: this.#height };
    [this.#width, this.#height] = [width, height];
    this.#rows = Math.min(ROWS, Math.floor(height / ROW_MIN_PX));
    this.#rowPx = this.#rows ? height / this.#rows : 0;
    const flying = before.rows && this.#rows && width ? [...this.#flying] : [];
    if (!flying.length) return this.clear();
    this.#kept = null;
    [this.#last, this.#standing, this.#clear] = [Array(this.#rows).fill(null), Array(this.#rows).fill(0), Array(this.#rows).fill(0)];
    for (const e of flying) this.#resettle(e, before);
  }

  // resettle gives a comment the place on a stage of another size that it had on the one before.
  // It takes as long as it would have; it grows no more than the stage does in either way, so that
  // it still runs into nobody.
  #resettle(e, before) {
    const wider = this.#width / before.width;
    const larger = Math.min(wider, this.#height / before.height);
    e.px *= larger;
    e.width *= larger;
    e.node.style.fontSize = `${e.px}px`;
    e.span = Math.min(this.#rows, Math.ceil((e.span * this.#rows) / before.rows));
    e.row = Math.min(this.#rows - e.span, Math.floor((e.row * this.#rows) / before.rows));
    e.way = e.position === "scroll" && !this.#still.matches ? [e.way[0] * wider, -e.width] : [(this.#width - e.width) / 2, (this.#width - e.width) / 2];
    if (this.#still.matches || e.position !== "scroll") this.#take(this.#standing, e.row, e.span, e.gone);
    else this.#take(this.#last, e.row, e.span, { entered: e.entered, gone: e.gone });
    e.animation.effect.setKeyframes(this.#keyframes(e));
  }

  // The rows' time stands still during a pause, as the comments do.
  #now() { return clock() - this.#pausedFor; }

  #draw() {
    this.#frame = 0;
    if (this.#paused) { // those who wait for a place go on waiting
      this.leftOut += this.#queue.splice(0).length;
      return;
    }
    if (this.#kept && this.#kept.at <= this.#now()) this.#waiting.unshift(this.#kept.comment);
    const batch = [...this.#waiting.splice(0), ...this.#queue.splice(0)];
    if (!this.#rows) {
      this.leftOut += batch.length;
      return;
    }
    if (this.#still.matches) this.#drawStill(batch);
    else this.#drawMoving(batch);
    if (this.#waiting.length || this.#kept) this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  // Elements are made, then all measured, then all set in motion, so that the
  // browser lays out once.
  #drawMoving(batch) {
    const laid = [];
    for (const c of batch) {
      if (laid.length >= TRIES_PER_FRAME || this.#flying.size + laid.length >= this.#maxNodes || !this.#anyRow(c)) {
        this.#leave(c);
        continue;
      }
      laid.push(this.#element(c));
    }
    for (const e of laid) e.width = e.node.offsetWidth;
    for (const e of laid) {
      this.#fit(e);
      e.share = e.span / this.#rows;
      if (this.#mayTake(e) && (e.position === "scroll" ? this.#fly(e) : this.#stand(e))) {
        this.#flying.add(e);
        this.shown++;
      } else {
        if (e.taken) this.#places.give(e.taken, e.share);
        e.node.remove();
        this.#leave(e.comment);
      }
    }
  }

  // mayTake reports whether there is still enough of the stage for the user of a comment.
  #mayTake(e) {
    const user = e.comment.user?.id;
    if (!user || STAFF.has(e.comment.user?.role)) return true;
    if (!this.#places.take(user, e.share)) return false;
    e.taken = user;
    return true;
  }

  #leave(c) {
    const now = this.#now();
    if (!this.#since.has(c)) this.#since.set(c, now);
    if (this.#kept?.comment === c) return;
    const patient = this.#always(c) && now - this.#since.get(c) < WAITING_MS && this.#waiting.length < WAITING_MAX;
    if (patient) this.#waiting.push(c);
    else this.leftOut++;
  }

  // anyRow spares the making of an element that has no place in any row.
  #anyRow(c) {
    if (placeOf(c) !== "scroll") return true;
    const now = this.#now();
    for (let r = 0; r < this.#rows; r++) if (!this.#last[r] || this.#last[r].entered <= now) return true;
    return false;
  }

  #element(comment) {
    const { size, color } = comment.style ?? {};
    const position = placeOf(comment);
    const text = compact(comment.text.replace(/\t/g, "  "));
    const lines = text.split("\n").length;
    // A drawing that is higher than its share of the stage is made smaller as a whole.
    const share = STAFF.has(comment.user?.role) ? 1 : SHARE;
    const per = Math.min(ROWS_OF[size] ?? ROWS_OF.medium, (share * this.#rows) / lines);
    const e = { comment, position, lines, px: (per * this.#rowPx) / LINE, span: Math.min(this.#rows, Math.ceil(per * lines)), width: 0 };
    const own = this.self !== "" && comment.user?.id === this.self;
    e.node = document.createElement("div");
    e.node.dir = "auto";
    e.node.textContent = text;
    e.node.className = "kansei-comment";
    const [fill, halo] = ink(color);
    Object.assign(e.node.style, {
      position: "absolute", left: "0", top: "0", whiteSpace: "pre", unicodeBidi: "isolate", willChange: "transform", visibility: "hidden",
      // Tall letters stay in their lines.
      maxHeight: `${lines * LINE}em`, overflow: "clip", overflowClipMargin: ".3em",
      fontSize: `${e.px}px`, color: fill, textAlign: position === "scroll" ? "" : "center",
      textShadow: `0 0 1px ${halo}, 0 1px 2px ${halo}, 0 0 .3em ${halo}`,
    });
    if (position !== "scroll") Object.assign(e.node.style, { padding: "0 .35em", borderRadius: ".3em", background: "rgb(10 8 20 / .78)" });
    if (own || STAFF.has(comment.user?.role)) {
      Object.assign(e.node.style, { border: "2px solid currentcolor", borderRadius: ".3em", padding: "0 .35em", background: "rgb(10 8 20 / .55)", margin: "-2px 0" });
    }
    this.#layer.append(e.node);
    return e;
  }

  // fit sets smaller what is too wide to be read in passing.
  #fit(e) {
    const widest = e.position === "scroll" ? WIDEST * this.#width : 0.96 * this.#width;
    if (e.width <= widest) return;
    const scale = Math.max(e.position === "scroll" ? SMALLEST : 0.3, widest / e.width);
    e.px *= scale;
    e.node.style.fontSize = `${e.px}px`;
    e.width *= scale;
    e.span = Math.max(1, Math.ceil(e.span * scale));
  }

  #fly(e) {
    const now = this.#now();
    const even = Math.min((this.#width + e.width) / CROSS_MS, (FASTEST * this.#width) / 1000);
    const speed = even * (1 - UNEVEN * Math.random()); // px per ms
    const start = this.#width * (1 + UNEVEN * Math.random());
    const reaches = now + start / speed; // when its head is at the far side
    // The first moment at which a row is free for it.
    const from = (r) => {
      const before = this.#last[r];
      return Math.max(this.#clear[r], before ? Math.max(before.entered, before.gone - (reaches - now)) : 0);
    };
    const kept = this.#kept;
    const mine = kept?.comment === e.comment;
    if (mine) this.#kept = null;
    const others = (r) => kept && !mine && r >= kept.row && r < kept.row + kept.span;
    const row = this.#find(e.span, 0, this.#rows, 1, (r) => from(r) <= now && !others(r));
    if (row < 0) {
      if (!kept && (e.span > ROWS_OF.medium || e.width > LONG * this.#width)) this.#keep(e, from, now);
      return false;
    }
    const ms = (start + e.width) / speed;
    e.entered = now + (start - this.#width + e.width + APART_PX) / speed;
    this.#take(this.#last, row, e.span, { entered: e.entered, gone: now + ms });
    this.#animate(e, row, [start, -e.width], ms);
    return true;
  }

  // keep keeps the rows free that are so first for a comment that has no place now.
  #keep(e, from, now) {
    let best = { at: now + KEPT_FREE_MS };
    for (let row = 0; row + e.span <= this.#rows; row++) {
      let at = 0;
      for (let r = row; r < row + e.span; r++) at = Math.max(at, from(r));
      if (at < best.at) best = { comment: e.comment, row, span: e.span, at };
    }
    if (best.comment) this.#kept = best;
  }

  #stand(e) {
    const now = this.#now();
    const last = this.#rows - e.span;
    // What is higher than the band may stand as well, at the very edge.
    const steps = Math.max(1, Math.floor(BAND * this.#rows) - e.span + 1);
    const seek = (free) => (e.position === "top" ? this.#find(e.span, 0, steps, 1, free) : this.#find(e.span, last, Math.max(-1, last - steps), -1, free));
    const free = (r) => this.#standing[r] <= now;
    let row = seek((r) => free(r) && !(this.#last[r]?.gone > now)); // with nothing flying below it, if possible
    if (row < 0) row = seek(free);
    if (row < 0) return false;
    this.#take(this.#standing, row, e.span, now + STAND_MS);
    this.#take(this.#clear, row, e.span, now + KEEP_CLEAR_MS);
    e.node.style.zIndex = "1";
    const x = (this.#width - e.width) / 2;
    this.#animate(e, row, [x, x], STAND_MS);
    return true;
  }

  #drawStill(batch) {
    const now = this.#now();
    const due = now - this.#stillAt >= STILL_EVERY_MS && this.#flying.size < this.#maxNodes;
    const chosen = due ? (batch.find((c) => this.#always(c)) ?? batch.at(-1)) : undefined;
    for (const c of batch) if (c !== chosen) this.#leave(c);
    if (!chosen) return;
    const e = this.#element(chosen);
    e.width = e.node.offsetWidth;
    this.#fit(e);
    e.share = e.span / this.#rows;
    const row = this.#find(e.span, 0, this.#rows, 1, (r) => this.#standing[r] <= now);
    if (row < 0 || !this.#mayTake(e)) {
      e.node.remove();
      this.#leave(chosen);
      return;
    }
    this.#stillAt = now;
    this.#take(this.#standing, row, e.span, now + STILL_MS);
    const room = Math.max(0, this.#width - e.width);
    const x = e.position === "scroll" ? Math.min(room, 0.04 * this.#width) : room / 2;
    this.#animate(e, row, [x, x], STILL_MS);
    this.#flying.add(e);
    this.shown++;
  }

  // find returns the first row, in steps from start to before end, from which span rows are free; -1.
  #find(span, start, end, step, free) {
    next: for (let row = start; row !== end; row += step) {
      if (row < 0 || row + span > this.#rows) continue;
      for (let r = row; r < row + span; r++) if (!free(r)) continue next;
      return row;
    }
    return -1;
  }

  #take(rows, row, span, value) { rows.fill(value, row, row + span); }

  #keyframes({ row, way }) { return way.map((x) => ({ transform: `translate(${x}px, ${row * this.#rowPx}px)` })); }

  #animate(e, row, way, ms) {
    Object.assign(e, { row, way, gone: this.#now() + ms });
    e.node.style.visibility = "";
    e.animation = e.node.animate(this.#keyframes(e), { duration: ms, fill: "both" });
    // Where it is must follow from the clock that the rows go by, also when the
    // browser takes a while to draw the first frame of it.
    e.animation.startTime = clock();
    e.animation.onfinish = () => this.#remove(e);
  }

  #remove(e) {
    this.#flying.delete(e);
    if (e.taken) this.#places.give(e.taken, e.share);
    e.animation.onfinish = null;
    e.animation.cancel();
    e.node.remove();
  }
}

// clock is that of the animations: milliseconds, the same throughout a frame.
function clock() { return Number(document.timeline.currentTime ?? performance.now()); }

// trim takes the oldest away from what is over the limit, and says how many.
function trim(queue, limit) { return queue.splice(0, queue.length - limit > 0 ? queue.length - limit : 0).length; }

// placeOf reads a place that it does not know as none.
function placeOf(c) { return ["top", "bottom"].includes(c.style?.position) ? c.style.position : "scroll"; }

// ink is the colour of a comment and of the halo that keeps it readable on any
// picture. The colours of danmaku sites are pure; here they are mixed with white,
// the darker the more.
function ink(color) {
  const dark = "rgb(8 6 18 / .85)";
  if (!/^#[0-9a-f]{6}$/i.test(color ?? "")) return ["#fff", dark];
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
  const light = (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
  if (light < 0.04) return ["#1b1724", "rgb(255 255 255 / .9)"];
  const white = light > 0.6 ? 0.12 : 0.2 + 0.4 * (1 - light / 0.6) ** 2;
  const mix = (v) => Math.round(v + (255 - v) * white);
  return [`rgb(${mix(r)} ${mix(g)} ${mix(b)})`, dark];
}

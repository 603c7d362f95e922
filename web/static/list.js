// The list of comments. It shows at most a handful of new ones in each interval
// and keeps the latest few hundred, however many come; it says how many it has
// left out. While the reader has scrolled up it stands still.

import { $, config, has, make, number, say, setText } from "./page.js";

const KEPT = 200; // items in the list
const EVERY_MS = 200; // how often it changes
const PER_CHANGE = 8; // comments added then: 40 a second, which nobody reads
const WAITING = 200; // comments held while nothing is drawn
const FORGET_MS = 15_000; // the note about comments left out goes when none was for so long
const ALOUD_MS = 3_000; // between two comments read aloud
const ALOUD_MAX = 160; // characters of one
const AT_END_PX = 48;

const CREW = new Set(["broadcaster", "moderator"]);

export class List {
  /** The id of the user whose comments are marked and never left out. */
  self = "";
  readAloud = false;

  #list = $("list");
  #newer = $("newer");
  #waiting = []; // entries for the list: comments, and gaps
  #missed = 0; // among those waiting, left out because too many wait
  #leftOut = 0;
  #leftOutAt = 0;
  #held = false; // the reader has scrolled up
  #drawnAt = -Infinity;
  #scheduled = false;
  #aloud; // the comment to read next
  #aloudTimer;

  constructor() {
    this.#list.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    this.#newer.addEventListener("click", () => this.#catchUp());
    this.#list.append(make("li", "empty", say("empty")));
    // The interval has no other use than to let the note go, so it may be coarse.
    setInterval(() => this.#note(), 5_000);
  }

  add({ items, shown, of }) {
    for (const c of items) this.#waiting.push({ comment: c });
    if (of > shown) this.#leave(of - shown);
    const news = items.findLast((c) => !c.history && c.user?.id !== this.self);
    if (this.readAloud && news) this.#read(news);
    this.#limit();
    this.#schedule();
  }

  gap(missed) {
    this.#waiting.push({ gap: missed ? say("gap", { n: missed }) : say("gap_unknown") });
    this.#limit();
    this.#schedule();
  }

  /** follow goes back to the newest, as after a layout change. */
  follow() {
    if (!this.#held) this.#list.scrollTop = this.#list.scrollHeight;
  }

  #always(e) { return e.gap !== undefined || e.comment.user?.id === this.self || CREW.has(e.comment.user?.role); }

  // limit leaves out the oldest of what waits, ordinary comments first.
  #limit() {
    let over = this.#waiting.length - WAITING;
    if (over <= 0) return;
    const before = this.#waiting.length;
    this.#waiting = this.#waiting.filter((e) => over <= 0 || this.#always(e) || --over < 0);
    this.#waiting.splice(0, this.#waiting.length - WAITING);
    this.#leave(before - this.#waiting.length);
  }

  #leave(n) {
    this.#leftOut += n;
    this.#leftOutAt = performance.now();
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const wait = Math.max(0, this.#drawnAt + EVERY_MS - performance.now());
    setTimeout(() => requestAnimationFrame(() => this.#draw()), wait);
  }

  #draw() {
    this.#scheduled = false;
    this.#drawnAt = performance.now();
    if (this.#held) {
      this.#showNewer();
      this.#note();
      return;
    }
    let batch = this.#waiting.splice(0);
    // Those of the past come in one go, the others as fast as they can be shown.
    let over = batch.filter((e) => !e.comment?.history).length - PER_CHANGE;
    const before = batch.length;
    batch = batch.filter((e) => over <= 0 || this.#always(e) || e.comment.history || --over < 0);
    if (before > batch.length) this.#leave(before - batch.length);
    const nodes = batch.slice(-KEPT).map((e) => (e.gap ? make("li", "gap", e.gap) : this.#item(e.comment)));
    if (nodes.length) this.#list.querySelector(".empty")?.remove();
    this.#list.append(...nodes);
    while (this.#list.childElementCount > KEPT) this.#list.firstElementChild.remove();
    this.#list.scrollTop = this.#list.scrollHeight;
    this.#note();
  }

  #item(c) {
    const li = make("li", "item");
    const role = c.user?.role;
    const own = this.self !== "" && c.user?.id === this.self;
    if (own) li.classList.add("own");
    if (CREW.has(role)) li.classList.add("staff");
    const head = make("span", "who");
    const name = make("bdi", "name", c.user?.name || say("somebody"));
    head.append(name);
    if (own) head.append(" ", make("span", "you", say("you")));
    if (has(`role_${role}`)) head.append(" ", make("span", "role", say(`role_${role}`)));
    const text = make("p", "text", c.text.replace(/^\s*\n/, ""));
    text.dir = "auto";
    if (c.text.includes("\n")) text.classList.add("drawing");
    if (/^#[0-9a-f]{6}$/i.test(c.style?.color ?? "") && c.style.color.toLowerCase() !== "#ffffff") {
      li.classList.add("colored");
      li.style.setProperty("--tint", c.style.color);
    }
    li.append(head, text);
    return li;
  }

  #note() {
    const old = performance.now() - this.#leftOutAt > FORGET_MS;
    if (old) this.#leftOut = 0;
    setText($("left-out"), this.#leftOut ? say("left_out", { n: this.#leftOut }) : "");
  }

  #onScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.#list;
    const atEnd = scrollHeight - scrollTop - clientHeight < AT_END_PX;
    if (atEnd === !this.#held) return;
    this.#held = !atEnd;
    if (atEnd) this.#schedule();
    this.#showNewer();
  }

  #showNewer() {
    this.#newer.hidden = !this.#held;
    const n = this.#waiting.length;
    setText(this.#newer, n ? say("newer", { n: n >= WAITING ? `${number(WAITING)}+` : n }) : say("newest"));
  }

  #catchUp() {
    this.#held = false;
    this.#newer.hidden = true;
    this.#list.scrollTop = this.#list.scrollHeight;
    this.#list.focus({ preventScroll: true });
    this.#schedule();
  }

  // read announces the latest comment, then nothing for a while; what came
  // meanwhile is told by its last one.
  #read(comment) {
    this.#aloud = comment;
    if (this.#aloudTimer) return;
    const next = () => {
      this.#aloudTimer = undefined;
      if (!this.#aloud || !this.readAloud) return;
      const { user, text } = this.#aloud;
      this.#aloud = undefined;
      const line = make("span", "", `${user?.name || say("somebody")}: ${[...text].slice(0, ALOUD_MAX).join("")}`);
      line.lang = /[\u3040-\u30ff]/.test(text) ? "ja" : config.lang;
      $("aloud").replaceChildren(line);
      this.#aloudTimer = setTimeout(next, ALOUD_MS);
    };
    next();
  }
}

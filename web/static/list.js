// The list of comments. It keeps the latest few hundred, however many come, and says how
// many it has left out: those that come faster than anybody reads. While the reader has
// scrolled up, or has selected something, it stands still. What one comment and one user
// take of it is bounded; a button shows the rest.

import { Places, compact } from "../sdk/compact.js";
import { $, config, has, make, number, root, say, setText } from "./page.js";

const KEPT = 200; // items in the list, and comments held while nothing is drawn
const EVERY_MS = 200; // how often it changes
const PER_S = 40; // comments a second in the long run, which nobody reads; a burst fills the list
const FORGET_MS = 15_000; // the note about comments left out goes when none was for so long
const ALOUD_MS = 3_000; // between two comments read aloud
const ALOUD_MAX = 160; // characters of one
const AT_END_PX = 2;
const LINE_WIDTH = 30; // half-width characters on a line, or fewer
const OF_ONE_USER = 24; // lines that the comments of one user take
const OF_ONE_USER_MS = 10_000; // in this time

const CREW = new Set(["broadcaster", "moderator"]);

const times = new Intl.DateTimeFormat(config.lang, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const moments = new Intl.DateTimeFormat(config.lang, { dateStyle: "medium", timeStyle: "medium" });

// avatar is a picture of a user, if there is one; the policy of the page says from which hosts.
function avatar(address) {
  if (!/^https:\/\//.test(address ?? "")) return null;
  const img = make("img", "avatar");
  img.alt = "";
  img.loading = "lazy";
  img.decoding = "async";
  img.referrerPolicy = "no-referrer";
  img.addEventListener("error", () => img.remove());
  img.src = address;
  return img;
}

export class List {
  /** The id of the user whose comments are marked and never left out. */
  self = "";
  readAloud = false;

  /** Of requests for the list. */
  headers = {};

  #list = $("list");
  #chosen;
  #newer = $("newer");
  #waiting = []; // entries for the list: comments, and gaps
  #leftOut = 0;
  #leftOutAt = 0;
  #held = false; // the reader has scrolled up, or has selected something
  #top = 0; // where the list was scrolled to last
  #budget = KEPT; // comments that may be shown now
  #drawnAt = -Infinity;
  #scheduled = false;
  #places = new Places(OF_ONE_USER);
  #aloud; // the comment to read next
  #aloudTimer;

  constructor() {
    this.#list.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    this.#newer.addEventListener("click", () => this.#catchUp());
    this.#list.addEventListener("click", (e) => e.target.classList.contains("more") && this.#open(e.target));
    document.addEventListener("selectionchange", () => this.#onSelection());
    new ResizeObserver(() => this.follow()).observe(this.#list);
    this.#list.append(make("li", "empty", say("empty")));
    // The interval has no other use than to let the note go, so it may be coarse.
    setInterval(() => this.#note(), 5_000);
  }

  add({ items, shown, of }) {
    for (const c of items) this.#waiting.push({ comment: c });
    if (of > (shown ?? 0)) this.#leave(of - (shown ?? 0));
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

  /** remove takes out what a "removed" event names. */
  remove({ ids, user, all, reload }) {
    const gone = (id, author) => all === true || (user !== undefined && author === user) || (ids ?? []).includes(id);
    this.#waiting = this.#waiting.filter((e) => e.gap !== undefined || !gone(e.comment.id, e.comment.user?.id));
    for (const li of [...this.#list.querySelectorAll(".item")]) {
      if (gone(li.dataset.id, li.dataset.user)) this.#drop(li);
    }
    if (this.#aloud && gone(this.#aloud.id, this.#aloud.user?.id)) this.#aloud = undefined;
    if (reload) this.#reload();
  }

  /** restore puts comments back where they were. */
  restore({ items }) {
    for (const c of items) {
      const all = [...this.#list.querySelectorAll(".item")];
      if (all.some((li) => li.dataset.id === c.id)) continue;
      const next = all.find((li) => Number(li.dataset.at) > c.at);
      if (next === all[0] && this.#list.childElementCount >= KEPT) continue; // it was left behind long ago
      const li = this.#item(c);
      if (next) next.before(li);
      else this.#list.append(li);
      this.#list.querySelector(".empty")?.remove();
      this.#offerMore([li]);
    }
    this.follow();
  }

  /** selected is the comment that was chosen, as {id, user, name, li}; none without pick. */
  get selected() {
    const li = this.#list.querySelector(".item.chosen");
    return li ? { id: li.dataset.id, user: li.dataset.user, name: li.querySelector(".name").textContent, li } : undefined;
  }

  /** pick lets comments be chosen, by pointer and by the arrow keys; chosen is told of each. */
  pick(chosen) {
    this.#chosen = chosen;
    this.#list.classList.add("pickable");
    this.#list.addEventListener("click", (e) => {
      const li = e.target.closest?.(".item");
      if (li && !e.target.closest("button") && !this.#selected()) this.choose(li.classList.contains("chosen") ? null : li);
    });
    this.#list.addEventListener("keydown", (e) => {
      if (e.key !== "ArrowUp" && e.key !== "ArrowDown" || e.ctrlKey || e.metaKey || e.altKey) return;
      const all = [...this.#list.querySelectorAll(".item")];
      const at = all.indexOf(this.#list.querySelector(".item.chosen"));
      const next = at < 0 ? all.at(-1) : all[at + (e.key === "ArrowUp" ? -1 : 1)];
      if (!next) return;
      e.preventDefault();
      this.choose(next);
      next.scrollIntoView({ block: "nearest" });
    });
  }

  choose(li) {
    for (const e of this.#list.querySelectorAll(".item.chosen")) e.classList.remove("chosen");
    li?.classList.add("chosen");
    if (li) {
      li.id ||= `item-${li.dataset.id}`;
      this.#list.setAttribute("aria-activedescendant", li.id);
    } else this.#list.removeAttribute("aria-activedescendant");
    this.#hold(Boolean(li) || !this.#atEnd());
    this.#chosen?.(this.selected);
  }

  #drop(li) {
    const chosen = li.classList.contains("chosen");
    li.remove();
    if (chosen) this.choose(null);
  }

  // reload reads the list again: too much was removed to be told.
  async #reload() {
    try {
      const res = await fetch(`${root}v1/rooms/${encodeURIComponent(config.room)}/comments`, { cache: "no-store", headers: this.headers, signal: AbortSignal.timeout(15_000) });
      if (!res.ok) return;
      const { items } = await res.json();
      const there = new Set(items.map((c) => c.id));
      for (const li of [...this.#list.querySelectorAll(".item")]) if (!there.has(li.dataset.id)) this.#drop(li);
      this.restore({ items });
    } catch {
      // The next one may come through.
    }
  }

  /** follow goes back to the newest, as after a layout change. */
  follow() {
    if (this.#held) return;
    this.#list.scrollTop = this.#list.scrollHeight;
    this.#top = this.#list.scrollTop;
  }

  #always(e) { return e.gap !== undefined || e.comment.user?.id === this.self || CREW.has(e.comment.user?.role); }

  // limit leaves out the oldest of what waits, ordinary comments first.
  #limit() {
    let over = this.#waiting.length - KEPT;
    if (over <= 0) return;
    const before = this.#waiting.length;
    this.#waiting = this.#waiting.filter((e) => over <= 0 || this.#always(e) || --over < 0);
    this.#waiting.splice(0, this.#waiting.length - KEPT);
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
    const now = performance.now();
    this.#budget = Math.min(KEPT, this.#budget + ((now - this.#drawnAt) * PER_S) / 1000);
    this.#drawnAt = now;
    if (this.#held) {
      this.#showNewer();
      this.#note();
      return;
    }
    let batch = this.#waiting.splice(0);
    // Those of the past come in one go, the others as fast as they can be read in the long run.
    let over = batch.filter((e) => !e.comment?.history).length - Math.floor(this.#budget);
    const before = batch.length;
    batch = batch.filter((e) => over <= 0 || this.#always(e) || e.comment.history || --over < 0);
    if (before > batch.length) this.#leave(before - batch.length);
    this.#budget = Math.max(0, this.#budget - batch.filter((e) => e.comment && !e.comment.history).length);
    const nodes = batch.slice(-KEPT).map((e) => (e.gap ? make("li", "gap", e.gap) : this.#item(e.comment)));
    if (nodes.length) this.#list.querySelector(".empty")?.remove();
    this.#list.append(...nodes);
    while (this.#list.childElementCount > KEPT) this.#drop(this.#list.firstElementChild);
    this.#offerMore(nodes);
    this.follow();
    this.#note();
  }

  #item(c) {
    const li = make("li", "item");
    Object.assign(li.dataset, { id: c.id, user: c.user?.id ?? "", at: c.at ?? 0 });
    const role = c.user?.role;
    const own = this.self !== "" && c.user?.id === this.self;
    if (own) li.classList.add("own");
    if (CREW.has(role)) li.classList.add("staff");
    const head = make("span", "who");
    const name = make("bdi", "name", c.user?.name || say("somebody"));
    const picture = avatar(c.user?.avatar);
    if (picture) head.append(picture, " ");
    head.append(name);
    if (c.user?.confusable) head.append(" ", make("span", "not-staff", say("not_staff")));
    if (own) head.append(" ", make("span", "you", say("you")));
    if (has(`role_${role}`)) head.append(" ", make("span", "role", say(`role_${role}`)));
    if (c.at > 0) head.append(" ", this.#time(c.at));
    const text = make("p", "text", compact(c.text));
    text.dir = "auto";
    if (text.textContent.includes("\n")) text.classList.add("drawing");
    if (!own && !CREW.has(role) && !this.#mayTake(c.user?.id ?? "", linesOf(text.textContent))) text.classList.add("brief");
    if (/^#[0-9a-f]{6}$/i.test(c.style?.color ?? "") && c.style.color.toLowerCase() !== "#ffffff") {
      li.classList.add("colored");
      li.style.setProperty("--tint", c.style.color);
    }
    li.append(head, text);
    return li;
  }

  // time is when a comment was said: shown to who points at it, and in full as its title.
  #time(at) {
    const date = new Date(at);
    const e = make("time", "when", times.format(date));
    e.dateTime = date.toISOString();
    e.title = moments.format(date);
    return e;
  }

  // mayTake reports whether a comment of so many lines may have them all.
  #mayTake(user, lines) {
    if (!this.#places.take(user, lines)) return false;
    setTimeout(() => this.#places.give(user, lines), OF_ONE_USER_MS);
    return true;
  }

  // offerMore puts a button below comments that do not fit; all are measured before any changes.
  #offerMore(nodes) {
    const cut = nodes.map((li) => li.querySelector(".text")).filter((p) => p && p.scrollHeight > p.clientHeight + 1);
    for (const p of cut) {
      const button = make("button", "more", say("more"));
      button.type = "button";
      button.setAttribute("aria-expanded", "false");
      p.after(button);
    }
  }

  #open(button) {
    const open = button.previousElementSibling.classList.toggle("open");
    button.setAttribute("aria-expanded", String(open));
    setText(button, say(open ? "less" : "more"));
    if (!this.#atEnd()) this.#hold(true); // it is being read
  }

  #note() {
    const old = performance.now() - this.#leftOutAt > FORGET_MS;
    if (old) this.#leftOut = 0;
    setText($("left-out"), this.#leftOut ? say("left_out", { n: this.#leftOut }) : "");
  }

  // Whoever scrolls up is reading, however little it was; at the end the list goes on.
  #onScroll() {
    const up = this.#list.scrollTop < this.#top - 1;
    this.#top = this.#list.scrollTop;
    if (this.#atEnd()) this.#hold(this.#selected());
    else if (up) this.#hold(true);
  }

  #onSelection() {
    if (this.#selected()) this.#hold(true);
    else if (this.#atEnd()) this.#hold(false);
  }

  #selected() {
    const s = getSelection();
    return Boolean(s && !s.isCollapsed && this.#list.contains(s.anchorNode));
  }

  #atEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.#list;
    return scrollHeight - scrollTop - clientHeight <= AT_END_PX;
  }

  #hold(on) {
    if (on === this.#held) return;
    this.#held = on;
    if (!on) this.#schedule();
    this.#showNewer();
  }

  #showNewer() {
    this.#newer.hidden = !this.#held;
    const n = this.#waiting.length;
    setText(this.#newer, n ? say("newer", { n: n >= KEPT ? `${number(KEPT)}+` : n }) : say("newest"));
  }

  #catchUp() {
    getSelection()?.removeAllRanges();
    this.#held = false;
    this.#newer.hidden = true;
    this.follow();
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

// linesOf is about how many lines a text takes.
function linesOf(text) {
  const width = (l) => [...l].reduce((w, c) => w + (c.codePointAt(0) < 0x300 ? 1 : 2), 0);
  return text.split("\n").reduce((n, l) => n + Math.max(1, Math.ceil(width(l) / LINE_WIDTH)), 0);
}

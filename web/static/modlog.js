// What moderators have done: the log of moderation, with Undo on each entry.

import { $, config, has, make, say, setText } from "./page.js";

const LOG_PAGE = 50;
const LOG_KEPT = 500; // entries in the list
const LOG_TEXT = 60; // characters of a text in a line

const days = new Intl.DateTimeFormat(config.lang, { dateStyle: "short", timeStyle: "short" });

export const moment = (at) => days.format(at);

/** failed is what is said of something that was not done. */
export const failed = (err) => say("act_failed", { why: say(has(`err_${err.code}`) ? `err_${err.code}` : "err_other") });

const whose = (u) => u?.name || u?.id || say("somebody");
const short = (text) => (text.length > LOG_TEXT ? `${text.slice(0, LOG_TEXT)}…` : text);

// what says what was done, without whom it concerns.
function what(e) {
  const words = say(has(`log_${e.type}`) ? `log_${e.type}` : "log_other", { n: e.comments ?? 0, users: e.users ?? 0, type: e.type });
  return e.quiet ? say("log_quiet", { what: words }) : words;
}

/** entryLine is the line of an entry. It has a button that undoes it, if undo is given, and one that opens the user's card, if open is. */
export function entryLine(e, { undo, open }) {
  const li = make("li", e.undone ? "entry undone" : "entry");
  li.dataset.act = e.act;
  const first = make("p", "entry-what", what(e));
  if (e.user) {
    const name = make(open ? "button" : "bdi", "entry-whom", whose(e.user));
    if (open) {
      name.type = "button";
      name.dir = "auto";
      name.addEventListener("click", () => open(e.user.id));
    }
    first.append(" ", name);
  }
  li.append(first);
  const told = e.text ?? e.reason ?? e.sweep?.text;
  if (told) {
    const text = make("p", "entry-text", short(told));
    text.dir = "auto";
    li.append(text);
  }
  const facts = [say("log_by", { name: whose(e.by), time: moment(e.at) })];
  if (e.ends) facts.push(say("log_until", { time: moment(e.ends) }));
  if (e.until === "broadcast") facts.push(say("log_broadcast"));
  if (e.undone) facts.push(say("log_undone", { name: whose(e.undone.by), time: moment(e.undone.at) }));
  li.append(make("p", "entry-facts", facts.join(" · ")));
  if (undo && !e.undone && !e.from && e.type !== "unmute") {
    const button = make("button", "tool entry-undo", say("log_undo"));
    button.type = "button";
    button.addEventListener("click", () => undo(e, button));
    li.append(button);
  }
  return li;
}

/** ModLog keeps the log of the page up to date. */
export class ModLog {
  #room;
  #open;
  #may = false; // acts
  #entries = new Map(); // by act, in their order
  #cursor;

  constructor(room, open) {
    this.#room = room;
    this.#open = open;
    const show = (you) => {
      this.#may = you?.can?.includes("act") ?? false;
      $("log").hidden = !(this.#may || you?.role === "monitor");
    };
    room.on("welcome", (w) => {
      show(w.you);
      if (!$("log").hidden) this.#load();
    });
    room.on("you", show);
    room.on("gap", () => { if (!$("log").hidden) this.#load(); });
    room.on("moderation", (m) => { this.#take([m.entry], true); this.#draw(); });
    $("log-more").addEventListener("click", () => this.#load(this.#cursor));
  }

  /** undo undoes an entry, and says how that went. */
  async undo(e, button) {
    button.setAttribute("aria-disabled", "true");
    setText($("log-note"), say("act_doing"));
    try {
      await this.#room.act("undo", { act: e.act });
      setText($("log-note"), say("done_undo"));
      return true;
    } catch (err) {
      button.setAttribute("aria-disabled", "false");
      setText($("log-note"), failed(err));
      return false;
    }
  }

  // take takes entries in: new ones to the front, those of older pages behind.
  #take(entries, newest) {
    const known = entries.filter((e) => !newest && this.#entries.has(e.act)).map((e) => e.act);
    const fresh = entries.filter((e) => !known.includes(e.act)).map((e) => [e.act, e]);
    if (newest) for (const [act] of fresh) this.#entries.delete(act);
    this.#entries = new Map((newest ? [...fresh, ...this.#entries] : [...this.#entries, ...fresh]).slice(0, LOG_KEPT));
  }

  async #load(cursor) {
    try {
      const page = await this.#room.moderation({ limit: LOG_PAGE, cursor });
      this.#take(page.entries, cursor === undefined);
      if (cursor !== undefined || this.#cursor === undefined) this.#cursor = page.cursor;
      setText($("log-note"), "");
    } catch (err) {
      setText($("log-note"), say(err.code === "forbidden" ? "err_forbidden" : "log_failed"));
    }
    this.#draw();
  }

  #draw() {
    const options = { open: this.#open, undo: this.#may ? (e, button) => this.undo(e, button) : undefined };
    const at = document.activeElement?.closest?.("#log-list .entry")?.dataset.act;
    $("log-list").replaceChildren(...[...this.#entries.values()].map((e) => entryLine(e, options)));
    $("log-empty").hidden = this.#entries.size > 0;
    $("log-more").hidden = this.#cursor === undefined || this.#entries.size >= LOG_KEPT;
    if (at) ($("log-list").querySelector(`[data-act="${CSS.escape(at)}"] button`) ?? $("log-list")).focus({ preventScroll: true });
  }
}

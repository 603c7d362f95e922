// Who is here: a list with a search, read again while it can be seen.

import { $, config, make, number, say, setText } from "./page.js";

const PAGE = 1000;
const SHOWN = 500; // lines; a search finds the others
const RANKS = ["broadcaster", "moderator", "monitor"];

const arrivals = new Intl.DateTimeFormat(config.lang, { hour: "2-digit", minute: "2-digit" });

/** People keeps the list of the page up to date from start to stop: most users of it, read again after some milliseconds. */
export class People {
  #room;
  #most;
  #pause;
  #timer = 0;
  #running = false;
  #users = [];
  #more = false;
  #open; // what shows the card of a user; there may be none

  constructor(room, { most, again, open }) {
    [this.#most, this.#pause, this.#open] = [most, again, open];
    this.#room = room;
    $("people-search").addEventListener("input", () => this.#draw());
    document.addEventListener("visibilitychange", () => { if (this.#running && !document.hidden) this.#again(0); });
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    this.#again(0);
  }

  stop() {
    this.#running = false;
    clearTimeout(this.#timer);
  }

  #again(after) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#load(), after);
  }

  #loading = false;
  async #load() {
    if (this.#loading || !this.#running || document.hidden) return;
    this.#loading = true;
    try {
      setText($("people-note"), await this.#read());
    } catch (err) {
      setText($("people-note"), say(err.code === "forbidden" || err.code === "unauthorized" ? "people_forbidden" : "people_failed"));
    }
    this.#loading = false;
    this.#draw();
    if (this.#running) this.#again(this.#pause);
  }

  // read reads all pages, and returns what is to be said about it.
  async #read() {
    const users = [];
    let page = { cursor: undefined };
    do {
      page = await this.#room.members({ limit: PAGE, cursor: page.cursor });
      users.push(...page.users);
    } while (page.cursor && users.length < this.#most);
    const rank = (u) => (RANKS.includes(u.role) ? RANKS.indexOf(u.role) : RANKS.length);
    this.#users = users.sort((a, b) => rank(a) - rank(b) || nameOf(a).localeCompare(nameOf(b), config.lang));
    this.#more = page.cursor !== undefined;
    return page.stale ? say("people_stale", { n: Math.round(page.ageMs / 1000) }) : "";
  }

  #draw() {
    const wanted = fold($("people-search").value.trim());
    const found = this.#users.filter((u) => fold(nameOf(u)).includes(wanted) || fold(u.id).includes(wanted));
    const at = document.activeElement?.closest?.("button.person-name")?.dataset.user;
    $("people-list").replaceChildren(...found.slice(0, SHOWN).map((u) => personLine(u, this.#open)));
    if (at) ($("people-list").querySelector(`button[data-user="${CSS.escape(at)}"]`) ?? $("people-list")).focus({ preventScroll: true });
    setText($("people-n"), number(this.#users.length) + (this.#more ? "+" : ""));
    const more = found.length - SHOWN;
    setText($("people-more"), found.length === 0 ? say(wanted ? "people_none" : "people_empty") : more > 0 ? say("people_more", { n: more }) : "");
  }
}

const nameOf = (u) => u.name || u.id;
const fold = (s) => s.normalize("NFKC").toLocaleLowerCase();

function personLine(u, open) {
  const e = make("li", "person");
  const name = make(open ? "button" : "span", "person-name", nameOf(u));
  if (open) {
    name.type = "button";
    name.dataset.user = u.id;
    name.addEventListener("click", () => open(u.id));
  }
  name.dir = "auto";
  name.title = u.id;
  e.append(name);
  if (RANKS.includes(u.role)) e.append(make("span", "badge", say(`role_${u.role}`)));
  const facts = [];
  if (u.since > 0) facts.push(say("people_since", { time: arrivals.format(u.since) }));
  if (u.devices > 1) facts.push(say("people_devices", { n: u.devices }));
  e.append(make("span", "person-facts", facts.join(" · ")));
  return e;
}

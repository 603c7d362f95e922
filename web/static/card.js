// The card of a user: since when they are known, what they have said, what was done about them, and notes.

import { $, disable, has, isDisabled, make, number, say, setText } from "./page.js";
import { entryLine, failed, moment } from "./modlog.js";

/** Card shows one user at a time, in a dialog. */
export class Card {
  #room;
  #user; // the id of whom it shows
  #may = false; // acts
  #undo;

  constructor(room) {
    this.#room = room;
    const show = (you) => { this.#may = you?.can?.includes("act") ?? false; };
    room.on("welcome", (w) => show(w.you));
    room.on("you", show);
    room.on("moderation", (m) => { if ($("card").open && m.entry.user?.id === this.#user) this.#load(); });
    $("card-close").addEventListener("click", () => $("card").close());
    $("card-form").addEventListener("submit", (e) => {
      e.preventDefault();
      this.#note();
    });
  }

  /** undoing is what undoes an entry, as of ModLog. */
  undoing(undo) { this.#undo = undo; }

  /** open shows a user. */
  async open(id) {
    this.#user = id;
    setText($("card-name"), id);
    setText($("card-note"), "");
    $("card-facts").replaceChildren();
    $("card-comments").replaceChildren();
    $("card-acts").replaceChildren();
    $("card-form").hidden = !this.#may;
    $("card-text").value = "";
    if (!$("card").open) $("card").showModal();
    await this.#load();
  }

  async #load() {
    const id = this.#user;
    try {
      const p = await this.#room.person(id);
      if (id === this.#user) this.#draw(p);
    } catch (err) {
      if (id === this.#user) setText($("card-note"), say(err.code === "forbidden" ? "err_forbidden" : "card_failed"));
    }
  }

  #draw(p) {
    const u = p.user ?? {};
    setText($("card-name"), u.name || u.id);
    const facts = [["card_id", u.id]];
    if (has(`role_${u.role}`)) facts.push(["card_role", say(`role_${u.role}`)]);
    facts.push(["card_first", p.first_seen ? moment(p.first_seen) : say("card_unknown")]);
    facts.push(["card_here", p.devices > 0 ? say("card_devices", { n: p.devices, time: moment(p.since) }) : say("card_away")]);
    $("card-facts").replaceChildren(...facts.map(([key, value]) => {
      const div = make("div");
      const dd = make("dd", "", value);
      dd.dir = "auto";
      div.append(make("dt", "", say(key)), dd);
      return div;
    }));
    $("card-comments").replaceChildren(...p.comments.map((c) => {
      const li = make("li", c.removed ? "said removed" : "said");
      const text = make(c.removed ? "s" : "span", "", c.event ? say("card_event", { name: c.event }) : c.text);
      text.dir = "auto";
      li.append(make("time", "", moment(c.at)), " ", text);
      return li;
    }));
    $("card-acts").replaceChildren(...p.acts.map((e) => entryLine(e, {
      undo: this.#may && this.#undo ? async (entry, button) => { if (await this.#undo(entry, button)) this.#load(); } : undefined,
    })));
    $("card-none").hidden = p.comments.length > 0;
    $("card-clean").hidden = p.acts.length > 0;
    setText($("card-said"), number(p.comments.length));
  }

  async #note() {
    const text = $("card-text").value.trim();
    if (text === "" || isDisabled($("card-keep"))) return;
    disable($("card-keep"), true);
    setText($("card-note"), say("act_doing"));
    try {
      await this.#room.act("note", { user: this.#user, text });
      $("card-text").value = "";
      setText($("card-note"), say("card_kept"));
      await this.#load();
    } catch (err) {
      setText($("card-note"), failed(err));
    }
    disable($("card-keep"), false);
  }
}

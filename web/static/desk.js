// Moderation: what is done about the chosen comment, with one tap or key, and how the room is run.

import { $, disable, isDisabled, say, setText } from "./page.js";
import { failed } from "./modlog.js";

const MUTE_MS = 600_000;
const UNDOABLE = 50; // acts that may be undone one after the other
const KEYS = { r: "remove", m: "mute", b: "ban", p: "pin", c: "card", u: "undo" };

/** Desk does acts while the server lets its bearer. */
export class Desk {
  #room;
  #list;
  #done = []; // ids of acts, the latest last
  #state = {};
  #typing = false; // the notice is being edited
  #open; // the card of a user

  /** chosen is told of the comment that is chosen; open shows the card of a user. */
  constructor(room, list, { chosen, open }) {
    this.#room = room;
    this.#list = list;
    this.#open = open;
    const show = (you) => {
      const may = you?.can?.includes("act") ?? false;
      $("moderation").hidden = !may;
      $("acts").hidden = !may;
      $("shield").hidden = !may;
    };
    room.on("welcome", (w) => show(w.you));
    room.on("you", show);
    room.on("state", (s) => this.#load(s));
    list.pick((comment) => { this.#choose(comment); chosen(comment); });
    this.#choose(undefined);
    for (const name of Object.values(KEYS)) $(`act-${name}`).addEventListener("click", () => this.#act(name));
    addEventListener("keydown", (e) => {
      const name = KEYS[e.key.toLowerCase()];
      if (!name || $("acts").hidden || e.ctrlKey || e.metaKey || e.altKey || e.repeat || e.isComposing) return;
      if (e.target.closest?.("input, textarea, select, button, a, [contenteditable]")) return; // it is theirs
      e.preventDefault();
      this.#act(name);
    });
    $("go-live").addEventListener("click", () => this.#set({ status: "live" }));
    $("go-end").addEventListener("click", () => this.#set({ status: "ended" }));
    $("shield").addEventListener("click", () => this.#set({ shield: !this.#state.shield }));
    $("lock").addEventListener("click", () => this.#set({ mode: this.#below.mode === "locked" ? null : "locked" }));
    $("mode-select").addEventListener("change", (e) => this.#set({ mode: e.target.value }));
    $("slow-select").addEventListener("change", (e) => this.#set({ slow_ms: Number(e.target.value) }));
    $("notice-text").addEventListener("input", () => { this.#typing = true; });
    $("notice-set").addEventListener("click", async () => {
      if (await this.#set({ notice: $("notice-text").value.trim() || null })) this.#typing = false;
    });
    $("unpin").addEventListener("click", () => this.#set({ pin: null }));
    $("moderation-form").addEventListener("submit", (e) => e.preventDefault());
  }

  // What the fields are that a shield may lie over.
  get #below() { return this.#state.under ?? this.#state; }

  #load(s) {
    this.#state = s;
    const { mode, slow_ms } = this.#below;
    $("mode-select").value = mode ?? "open";
    const slow = String(slow_ms ?? 0);
    const select = $("slow-select");
    if (![...select.options].some((o) => o.value === slow)) select.add(new Option(`${slow_ms / 1000} s`, slow));
    select.value = slow;
    $("lock").setAttribute("aria-pressed", String(mode === "locked"));
    setText($("lock"), say(mode === "locked" ? "unlock" : "lock"));
    $("shield").setAttribute("aria-pressed", String(s.shield === true));
    setText($("shield"), say(s.shield ? "shield_on" : "shield"));
    disable($("go-live"), s.status === "live" && s.rev > 0);
    disable($("go-end"), s.status === "ended");
    disable($("unpin"), !s.pin);
    if (!this.#typing) $("notice-text").value = s.notice ?? "";
  }

  #choose(chosen) {
    setText($("acts-who"), chosen ? chosen.name : "");
    for (const name of ["remove", "mute", "ban", "pin", "card"]) disable($(`act-${name}`), !chosen);
    disable($("act-undo"), this.#done.length === 0);
    setText($("acts-note"), chosen ? "" : say("acts_all"));
  }

  async #act(name) {
    if (isDisabled($(`act-${name}`))) return;
    const chosen = this.#list.selected;
    const reason = $("act-reason").value.trim() || undefined;
    const undone = this.#done.at(-1);
    if (name === "card") return this.#open(chosen.user);
    const note = (text) => setText($("acts-note"), text);
    note(say("act_doing"));
    try {
      let act;
      switch (name) {
        case "remove": ({ act } = await this.#room.act("remove", { ids: [chosen.id], reason })); break;
        case "mute": ({ act } = await this.#room.act("mute", { user: chosen.user, for_ms: MUTE_MS, reason })); break;
        case "ban": ({ act } = await this.#room.act("ban", { user: chosen.user, clear: true, reason })); break;
        case "pin": await this.#room.set({ pin: { id: chosen.id } }); break;
        case "undo":
          await this.#room.act("undo", { act: undone });
          this.#done = this.#done.filter((id) => id !== undone);
      }
      if (act) this.#done = [...this.#done, act].slice(-UNDOABLE);
      if (name !== "pin" && name !== "undo") $("act-reason").value = "";
      this.#choose(this.#list.selected);
      note(say(`done_${name}`, { name: chosen?.name ?? "" }));
    } catch (err) {
      if (name === "undo" && err.code === "no_act") this.#done.pop();
      this.#choose(this.#list.selected);
      note(failed(err));
    }
  }

  // set changes the room; it reports whether that was done.
  async #set(patch) {
    setText($("moderation-note"), say("act_doing"));
    try {
      await this.#room.set(patch);
      setText($("moderation-note"), say("set_done"));
      return true;
    } catch (err) {
      this.#load(this.#state);
      setText($("moderation-note"), failed(err));
      return false;
    }
  }
}

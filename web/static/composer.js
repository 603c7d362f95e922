// The box to comment: counts as the server does and sends what it counted, with Enter except
// while an input method composes, and says in words why something was refused.

import { MAX_LINE_FEEDS, measure } from "../sdk/text.js";
import { $, config, disable, has, isDisabled, say, setText } from "./page.js";

const SENT_MS = 2_500; // how long "Sent" stands
const SHOW_COUNTER = 0.6; // from this part of the limit on

export class Composer {
  #room;
  #box = $("say");
  #send = $("send");
  #note = $("say-note");
  #limit = 200; // until the welcome says
  #may = true;
  #staff = false;
  #ended = false; // the broadcast: then nobody but the staff may comment
  #busy = false;
  #fits = true;
  #empty = true;
  #blockedUntil = 0;
  #timer;

  constructor(room) {
    this.#room = room;
    $("composer").addEventListener("submit", (e) => {
      e.preventDefault();
      this.#submit();
    });
    this.#box.addEventListener("keydown", (e) => {
      // 229 is what browsers without isComposing report while an input method has the key.
      if (e.key !== "Enter" || e.shiftKey || e.isComposing || e.keyCode === 229) return;
      e.preventDefault();
      this.#submit();
    });
    this.#box.addEventListener("input", () => this.#measure());
    // The picker is a small pop-up: it goes when one looks elsewhere.
    const picker = $("style-picker");
    document.addEventListener("pointerdown", (e) => { if (!picker.contains(e.target)) picker.open = false; });
    picker.addEventListener("keydown", (e) => {
      if (e.key !== "Escape") return;
      picker.open = false;
      picker.querySelector("summary").focus();
    });
    picker.addEventListener("focusout", (e) => { if (e.relatedTarget && !picker.contains(e.relatedTarget)) picker.open = false; });
    room.on("welcome", (w) => {
      this.#limit = w.limits?.text ?? this.#limit;
      this.#may = w.you?.can?.includes("comment") ?? true;
      this.#staff = (w.you?.role ?? "viewer") !== "viewer";
      if (!this.#may) setText(this.#note, say(config.guests === "watch" && w.you?.role === "viewer" ? "watch_only" : "not_allowed"));
      this.#measure();
    });
    room.on("state", (s) => {
      const ended = s.status === "ended";
      if (ended === this.#ended) return;
      this.#ended = ended;
      if (this.#may && !this.#staff) this.#say(ended ? say("say_ended") : "");
      this.#update();
    });
    room.on("status", (s) => {
      if (this.#busy && s.state !== "live") setText(this.#note, say("sending_waits"));
      this.#update();
    });
    this.#measure();
  }

  #measure() {
    const { length, lineFeeds, empty } = measure(this.#box.value);
    const over = length - this.#limit;
    const lines = lineFeeds - MAX_LINE_FEEDS;
    const counter = $("counter");
    this.#fits = over <= 0 && lines <= 0;
    this.#empty = empty;
    counter.classList.toggle("over", !this.#fits);
    if (over > 0) setText(counter, say("counter_over", { n: over, max: this.#limit }));
    else if (lines > 0) setText(counter, say("counter_lines", { n: lines, max: MAX_LINE_FEEDS + 1 }));
    else setText(counter, length >= this.#limit * SHOW_COUNTER ? say("counter", { n: length, max: this.#limit }) : "");
    this.#box.setAttribute("aria-invalid", String(!this.#fits));
    // As high as what was typed, up to a few lines.
    this.#box.rows = Math.min(5, this.#box.value.split("\n").length);
    this.#update();
  }

  #update() {
    const closed = this.#room.status.state === "closed" || (this.#ended && !this.#staff);
    disable(this.#box, !this.#may || closed || this.#busy);
    this.#box.setAttribute("aria-disabled", String(!this.#may || closed)); // while it is sent it is only not to be changed
    disable(this.#send, !this.#may || closed || this.#busy || this.#waiting() > 0 || !this.#fits);
  }

  #waiting() { return Math.ceil((this.#blockedUntil - Date.now()) / 1000); }

  async #submit() {
    const text = this.#box.value;
    if (isDisabled(this.#send) || this.#empty) return;
    this.#busy = true;
    this.#say("");
    this.#timer = setTimeout(() => setText(this.#note, say(this.#room.status.state === "live" ? "sending" : "sending_waits")), 400);
    this.#update();
    try {
      const { held } = await this.#room.comment(text, { style: this.#style() });
      this.#box.value = "";
      this.#say(say(held ? "sent_held" : "sent"), SENT_MS);
    } catch (err) {
      this.#say(say(has(`err_${err.code}`) ? `err_${err.code}` : "err_other"));
      if (err.retryMs > 0) this.#block(err.retryMs);
    }
    this.#busy = false;
    this.#measure();
  }

  #say(text, forMs) {
    clearTimeout(this.#timer);
    setText(this.#note, text);
    if (forMs) this.#timer = setTimeout(() => setText(this.#note, ""), forMs);
  }

  // block counts down to when the server takes a comment again; the seconds are
  // for the eye, the end of them for everybody.
  #block(ms) {
    this.#blockedUntil = Date.now() + ms;
    const tick = () => {
      const left = this.#waiting();
      setText($("say-wait"), left > 0 ? say("in_seconds", { n: left }) : "");
      if (left > 0) return setTimeout(tick, 250);
      this.#say(say("send_again"), SENT_MS);
      this.#update();
    };
    tick();
    this.#update();
  }

  #style() {
    const chosen = new FormData($("composer"));
    const style = {};
    for (const [name, plain] of [["position", "scroll"], ["size", "medium"], ["color", ""]]) {
      const value = chosen.get(name);
      if (value && value !== plain) style[name] = value;
    }
    return Object.keys(style).length ? style : undefined;
  }
}

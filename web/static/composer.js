// The box to comment: counts as the server does and sends what it counted, with Enter except
// while an input method composes, and says in words why something was refused.

import { MAX_LINE_FEEDS, measure } from "../sdk/text.js";
import { $, config, disable, has, isDisabled, say, setText } from "./page.js";

const SENT_MS = 2_500; // how long "Sent" stands
const SHOW_COUNTER = 0.6; // from this part of the limit on

// What ends by itself soon enough for the button to wait for it.
const TIMED = new Set(["rate_limited", "slow_mode", "unavailable", "unknown_outcome"]);

// explain is why something was refused, or may not be, in words, with the reason that a moderator has given.
function explain({ code, reason }) {
  const words = say(has(`err_${code}`) ? `err_${code}` : "err_other");
  return reason ? say("because", { what: words, reason }) : words;
}

// until is how long something still lasts.
function until(seconds) {
  if (seconds >= 7200) return say("in_hours", { n: Math.round(seconds / 3600) });
  return seconds >= 120 ? say("in_minutes", { n: Math.round(seconds / 60) }) : say("in_seconds", { n: seconds });
}

export class Composer {
  #room;
  #box = $("say");
  #send = $("send");
  #note = $("say-note");
  #limit = 200; // until the welcome says
  #may = true;
  #staff = false;
  #blocked; // why one may not comment now, as the server says
  #busy = false;
  #fits = true;
  #empty = true;
  #blockedUntil = 0;
  #lift; // the timer of the end of what bars one
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
    const become = (you, limits) => {
      this.#limit = limits?.text ?? this.#limit;
      this.#may = you?.can?.includes("comment") ?? true;
      this.#staff = (you?.role ?? "viewer") !== "viewer";
      if (!this.#may) setText(this.#note, say(config.guests === "watch" && you?.role === "viewer" ? "watch_only" : "not_allowed"));
      else this.#bar(this.#staff ? undefined : you?.blocked);
      this.#measure();
    };
    room.on("welcome", (w) => become(w.you, w.limits));
    room.on("you", (m) => become(m, m.limits));
    // Until the server says who is concerned: a broadcast that has ended concerns all.
    room.on("state", (s) => {
      const ended = s.status === "ended";
      if (this.#staff || !this.#may || ended === (this.#blocked?.ended ?? false)) return;
      if (ended) this.#bar({ code: "locked", ended: true });
      else if (this.#blocked?.ended) this.#bar(undefined);
      this.#update();
    });
    $("blocked-ack").addEventListener("click", () => this.#acknowledge());
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
    const closed = this.#room.status.state === "closed" || Boolean(this.#blocked && this.#blocked.code !== "slow_mode");
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
      this.#say(explain(err));
      if (err.retryMs > 0 && TIMED.has(err.code)) this.#block(err.retryMs);
    }
    this.#busy = false;
    this.#measure();
  }

  // bar shows why one may not comment, and until when.
  #bar(blocked) {
    const had = this.#blocked;
    this.#blocked = blocked;
    $("blocked-ack").hidden = blocked?.code !== "warned";
    const appeal = $("blocked-appeal");
    appeal.hidden = !/^https?:\/\//.test(blocked?.appeal_url ?? "");
    if (appeal.hidden) appeal.removeAttribute("href");
    else appeal.href = blocked.appeal_url;
    clearTimeout(this.#lift);
    if (!blocked) {
      if (had) this.#say("");
      return;
    }
    this.#say(blocked.ended ? say("say_ended") : explain(blocked));
    if (!(blocked.retry_ms > 0)) return;
    this.#block(blocked.retry_ms);
    // A timer takes 24 days at most.
    this.#lift = setTimeout(() => { this.#bar(undefined); this.#measure(); }, Math.min(blocked.retry_ms, 2 ** 31 - 1));
  }

  async #acknowledge() {
    const { act } = this.#blocked ?? {};
    if (!act) return;
    try {
      await this.#room.act("ack", { act });
      this.#bar(undefined);
      this.#measure();
      this.#box.focus();
    } catch {
      this.#say(say("err_other"));
    }
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
      setText($("say-wait"), left > 0 ? until(left) : "");
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

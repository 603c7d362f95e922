// Who watched: the curve of a broadcast, who of the first minute stayed, and the list for a spreadsheet. For broadcasters.

import { $, config, disable, isDisabled, make, number, root, say, setText } from "./page.js";
import { moment } from "./modlog.js";

const AUDIENCE_AGAIN_MS = 15_000; // while a broadcast runs
const CURVE_WIDTH = 100; // of the picture, whatever its size on the page
const CURVE_HEIGHT = 40;

const duration = (ms) => {
  const minutes = Math.floor(ms / 60_000);
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}`;
};
const percent = new Intl.NumberFormat(config.lang, { style: "percent", maximumFractionDigits: 0 });

/** Audience keeps the card of who watched up to date. */
export class Audience {
  #room;
  #token;
  #timer;
  #chosen = ""; // the broadcast that is shown; empty: the last one
  #shown; // what is shown of it

  constructor(room, token) {
    this.#room = room;
    this.#token = token;
    const show = (you) => {
      const may = you?.role === "broadcaster";
      const before = $("audience").hidden;
      $("audience").hidden = !may;
      if (may && before) this.#load();
    };
    room.on("welcome", (w) => show(w.you));
    room.on("you", show);
    room.on("status", (s) => { if (s.state === "closed") clearTimeout(this.#timer); });
    let broadcast;
    room.on("state", (s) => {
      const now = `${s.broadcast ?? 0} ${s.status}`;
      if (broadcast !== undefined && broadcast !== now && !$("audience").hidden) this.#load();
      broadcast = now;
    });
    $("audience-broadcast").addEventListener("change", () => {
      this.#chosen = $("audience-broadcast").value;
      this.#load();
    });
    $("audience-csv").addEventListener("click", () => this.#download());
    document.addEventListener("visibilitychange", () => { if (!document.hidden && !$("audience").hidden) this.#load(); });
  }

  async #load() {
    clearTimeout(this.#timer);
    const chosen = this.#chosen;
    try {
      const all = await this.#room.broadcasts();
      // To ask for what is not there would be an error of the page's.
      const log = all.length > 0 ? await this.#room.watchLog({ broadcast: chosen || all[0].broadcast, users: false }) : undefined;
      if (chosen !== this.#chosen) return;
      if (log) this.#list(all, log);
      this.#draw(log);
      setText($("audience-note"), log ? "" : say("audience_none"));
      if (!log?.final) this.#later();
    } catch (err) {
      if (chosen !== this.#chosen) return;
      this.#draw(undefined);
      setText($("audience-note"), err.code === "no_room" ? say("audience_none") : say("audience_failed"));
      this.#later();
    }
  }

  // later looks again, unless nobody can see it: then when somebody can.
  #later() {
    this.#timer = setTimeout(() => { if (!document.hidden) this.#load(); }, AUDIENCE_AGAIN_MS);
  }

  // list offers the broadcasts of the room.
  #list(all, log) {
    const select = $("audience-broadcast");
    select.replaceChildren(...all.map((b) => {
      const option = make("option", "", say(b.ended_at ? "audience_past" : "audience_now", { time: moment(b.began_at), name: b.broadcast }));
      option.value = b.broadcast;
      return option;
    }));
    select.value = log.broadcast;
  }

  #draw(log) {
    this.#shown = log;
    $("audience-shown").hidden = !log;
    disable($("audience-csv"), !log);
    if (!log) return;
    const s = log.summary;
    const minutes = s.minutes ?? [];
    const began = minutes[0]?.stayed ?? 0;
    const stayed = minutes.at(-1)?.stayed ?? 0;
    const facts = [
      ["audience_users", number(s.users)],
      ["audience_peak", s.peak_at ? say("audience_peak_at", { peak: s.peak_users, time: moment(s.peak_at) }) : number(s.peak_users)],
      ["audience_mean", number(Math.round(s.mean_users))],
      ["audience_stayed", began > 0 ? percent.format(stayed / began) : "–"],
      ["audience_length", duration(s.duration_ms)],
    ];
    $("audience-facts").replaceChildren(...facts.map(([key, value]) => {
      const div = document.createElement("div");
      div.append(make("dt", "", say(key)), make("dd", "", value));
      return div;
    }));
    const most = Math.max(1, ...minutes.map((m) => m.users));
    const line = (of) => {
      const at = (i, v) => `${((i * CURVE_WIDTH) / Math.max(1, minutes.length - 1)).toFixed(2)},${(CURVE_HEIGHT - 1 - ((CURVE_HEIGHT - 2) * v) / most).toFixed(2)}`;
      return [...minutes.map((m, i) => at(i, of(m))), ...(minutes.length === 1 ? [at(1, of(minutes[0])).replace(/^[^,]*/, String(CURVE_WIDTH))] : [])].join(" ");
    };
    $("audience-line").setAttribute("points", line((m) => m.users));
    $("audience-area").setAttribute("points", `0,${CURVE_HEIGHT} ${line((m) => m.users)} ${CURVE_WIDTH},${CURVE_HEIGHT}`);
    $("audience-stayed").setAttribute("points", line((m) => m.stayed));
    $("audience-curve").setAttribute("aria-label", say("audience_curve", { n: s.users, peak: s.peak_users, stayed: began > 0 ? percent.format(stayed / began) : "–" }));
    setText($("audience-state"), say(log.final ? "audience_final" : s.ended_at ? "audience_soon" : "audience_live"));
  }

  // download has the browser keep the list of users as a file.
  async #download() {
    if (!this.#shown || isDisabled($("audience-csv"))) return;
    disable($("audience-csv"), true);
    setText($("audience-note"), say("audience_loading"));
    const { broadcast } = this.#shown;
    try {
      const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
      const url = `${root}v1/rooms/${encodeURIComponent(config.room)}/watchlog?${new URLSearchParams({ broadcast, tz: zone })}`;
      const res = await fetch(url, { headers: { Accept: "text/csv", ...(this.#token ? { Authorization: `Bearer ${this.#token}` } : {}) }, cache: "no-store" });
      if (!res.ok) throw new Error(String(res.status));
      const file = URL.createObjectURL(await res.blob());
      const a = document.createElement("a");
      a.href = file;
      a.download = `${config.room}-${broadcast}.csv`;
      a.click();
      setTimeout(() => URL.revokeObjectURL(file), 60_000);
      setText($("audience-note"), "");
    } catch {
      setText($("audience-note"), say("audience_failed"));
    }
    disable($("audience-csv"), false);
  }
}

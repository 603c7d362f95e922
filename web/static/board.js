// What stands above the comments: the notice, what is pinned, and who may comment now.

import { $, config, has, say, setText } from "./page.js";

const beginnings = new Intl.DateTimeFormat(config.lang, { dateStyle: "medium", timeStyle: "short" });

/** showBoard keeps it up to date with the state of the room. */
export function showBoard(room) {
  room.on("state", (s) => {
    const set = (id, text) => {
      $(id).hidden = !text;
      return text;
    };
    setText($("notice"), set("notice", s.notice ?? "") ?? "");
    const pinned = s.pin?.comment;
    set("pin", s.pin ? "pin" : "");
    setText($("pin-who"), pinned ? pinned.user?.name || say("somebody") : "");
    setText($("pin-text"), pinned?.text ?? s.pin?.text ?? "");
    const words = [];
    if (s.status === "scheduled" && s.starts_at > 0) words.push(say("starts_at", { time: beginnings.format(new Date(s.starts_at)) }));
    if (s.status === "scheduled" && s.early_chat === false) words.push(say("early_chat"));
    if (has(`mode_${s.mode}`)) words.push(say(`mode_${s.mode}`));
    if (s.slow_ms > 0) words.push(say("slow_now", { n: Math.ceil(s.slow_ms / 1000) }));
    setText($("mode"), set("mode", words.join(" ")));
    $("board").hidden = $("notice").hidden && $("pin").hidden && $("mode").hidden;
  });
}

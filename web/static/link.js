// The state of the connection, said as it is: to screen readers only when it
// changes, to the eye with the seconds that are left.

import { $, has, say, setText } from "./page.js";

export function showLink(room) {
  const box = $("link");
  let status = room.status;
  let degraded = false;
  let ticker;

  const words = () => {
    switch (status.state) {
      case "live":
        return say(degraded ? "status_degraded" : "status_live");
      case "connecting":
        return say(status.attempt > 1 ? "status_reconnecting" : "status_connecting");
      case "offline":
        return say("status_offline");
      case "reconnecting":
        if (status.reason === "overloaded" || status.reason === "too_many") return say("status_overloaded");
        return say(status.reason === "restart" ? "status_restart" : "status_reconnecting");
      default:
        return say(has(`status_${status.reason}`) ? `status_${status.reason}` : "status_closed");
    }
  };

  const show = () => {
    box.dataset.state = status.state === "live" && degraded ? "degraded" : status.state;
    setText($("link-text"), words());
    const left = Math.ceil(((status.retryAt ?? 0) - Date.now()) / 1000);
    setText($("link-wait"), left > 0 ? say("in_seconds", { n: left }) : "");
    clearInterval(ticker);
    if (left > 0) ticker = setInterval(show, 1000);
  };

  room.on("status", (s) => {
    status = s;
    show();
  });
  room.on("state", (s) => {
    degraded = s.degraded === true;
    show();
  });
  show();
}

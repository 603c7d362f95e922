// Links for the crew: whoever opens one is a moderator, say, until it ends.

import { $, config, disable, isDisabled, root, say, setText } from "./page.js";

const MARGIN = 4; // squares around a QR code, as its readers expect

/** Crew makes links with a token, while the server lets its bearer. */
export class Crew {
  #token;

  constructor(room, token) {
    this.#token = token;
    if (!token) return;
    const show = (you) => { $("crew").hidden = you?.role !== "broadcaster"; };
    room.on("welcome", (w) => show(w.you));
    room.on("you", show);
    $("crew-form").addEventListener("submit", (e) => {
      e.preventDefault();
      this.#make();
    });
    $("crew-copy").addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText($("crew-url").value);
        setText($("crew-note"), say("copied"));
      } catch {
        $("crew-url").select();
        setText($("crew-note"), say("copy_failed"));
      }
    });
  }

  async #make() {
    if (isDisabled($("crew-make"))) return;
    disable($("crew-make"), true);
    setText($("crew-note"), say("crew_making"));
    try {
      setText($("crew-note"), await this.#ask());
    } catch {
      setText($("crew-note"), say("crew_failed"));
    }
    disable($("crew-make"), false);
  }

  // ask makes a link and shows it; it returns what to say about it.
  async #ask() {
    const room = encodeURIComponent(config.room);
    const role = $("crew-role").value;
    const name = $("crew-name").value.trim();
    const res = await fetch(`${root}v1/rooms/${room}/links`, {
      method: "POST",
      headers: { Authorization: `Bearer ${this.#token}`, "Content-Type": "application/json" },
      body: JSON.stringify({ role, name: name || undefined, for_ms: Number($("crew-hours").value) * 3_600_000, page: `${root}studio/${room}` }),
      signal: AbortSignal.timeout(15_000),
    });
    if (!res.ok) return say(res.status === 401 || res.status === 403 ? "crew_forbidden" : "crew_failed");
    const link = await res.json();
    const until = new Date(link.ends).toLocaleString(config.lang, { dateStyle: "medium", timeStyle: "short" });
    setText($("crew-who"), say("crew_for", { name: name || say(`role_${role}`), until }));
    $("crew-url").value = link.url;
    const size = link.qr.size + 2 * MARGIN;
    $("crew-qr").setAttribute("viewBox", `${-MARGIN} ${-MARGIN} ${size} ${size}`);
    $("crew-qr").querySelector("rect").setAttribute("x", -MARGIN);
    $("crew-qr").querySelector("rect").setAttribute("y", -MARGIN);
    $("crew-qr").querySelector("path").setAttribute("d", link.qr.path);
    $("crew-link").hidden = false;
    return say("crew_made");
  }
}

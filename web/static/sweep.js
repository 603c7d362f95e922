// Against raids: what a sweep would find, with samples, and then the sweep.

import { $, disable, isDisabled, make, number, say, setText } from "./page.js";
import { failed } from "./modlog.js";

/** Sweeper finds and sweeps. */
export class Sweeper {
  #room;
  #list;
  #found; // by the last dry run, until something is changed

  constructor(room, list) {
    this.#room = room;
    this.#list = list;
    const show = (you) => { $("sweep").hidden = !(you?.can?.includes("act") ?? false); };
    room.on("welcome", (w) => show(w.you));
    room.on("you", show);
    $("sweep-form").addEventListener("input", (e) => { if (e.target.closest("#sweep-what")) this.#forget(); });
    $("sweep-sure").addEventListener("change", () => this.#ready());
    $("sweep-form").addEventListener("submit", (e) => {
      e.preventDefault();
      this.#look();
    });
    $("sweep-do").addEventListener("click", () => this.#sweep());
    this.chosen(undefined);
  }

  /** chosen is told of the comment that is chosen in the list: a sweep may look for who comes from the same address. */
  chosen(comment) {
    const box = $("sweep-address");
    if (!comment && !box.checked) box.dataset.user = "";
    if (comment && !box.checked) box.dataset.user = comment.user;
    if (!box.checked) setText($("sweep-address-who"), comment ? say("sweep_address", { name: comment.name }) : say("sweep_address_choose"));
    disable(box, !box.dataset.user);
    box.disabled = !box.dataset.user;
  }

  #forget() {
    this.#found = undefined;
    $("sweep-found").hidden = true;
    setText($("sweep-note"), "");
  }

  async #look() {
    if (isDisabled($("sweep-look"))) return;
    const wanted = {
      last_ms: Number($("sweep-last").value), guests: $("sweep-guests").checked || undefined,
      newcomers_ms: Number($("sweep-new").value) || undefined, text: $("sweep-text").value.trim() || undefined,
      links: $("sweep-links").checked || undefined,
      same_address_as: $("sweep-address").checked ? $("sweep-address").dataset.user : undefined,
    };
    this.#forget();
    disable($("sweep-look"), true);
    setText($("sweep-note"), say("act_doing"));
    try {
      this.#found = await this.#room.sweep(wanted);
      this.#show(this.#found);
    } catch (err) {
      setText($("sweep-note"), err.code === "bad_message" ? say("sweep_nothing_asked") : failed(err));
    }
    disable($("sweep-look"), false);
  }

  #show(found) {
    setText($("sweep-note"), say(found.comments > 0 ? "sweep_found" : "sweep_none", { n: found.comments, users: found.users, of: found.of }));
    $("sweep-samples").replaceChildren(...found.samples.map((c) => {
      const li = make("li", "said");
      const name = make("bdi", "name", c.user?.name || c.user?.id);
      const text = make("span", "", c.text);
      text.dir = "auto";
      li.append(name, " ", text);
      return li;
    }));
    $("sweep-partial").hidden = !found.partial;
    $("sweep-sure").checked = false;
    $("sweep-sure-row").hidden = !found.sure;
    setText($("sweep-do"), say("sweep_do", { n: found.comments }));
    $("sweep-found").hidden = found.comments === 0;
    this.#ready();
  }

  #ready() { disable($("sweep-do"), !this.#found || (this.#found.sure === true && !$("sweep-sure").checked)); }

  async #sweep() {
    if (isDisabled($("sweep-do"))) return;
    const found = this.#found;
    const length = $("sweep-for").value;
    disable($("sweep-do"), true);
    setText($("sweep-note"), say("act_doing"));
    try {
      await this.#room.act("sweep", {
        sweep: found.sweep, sure: found.sure || undefined, reason: $("sweep-reason").value.trim() || undefined,
        spare: length === "spare" || undefined, until: length === "broadcast" ? "broadcast" : undefined, for_ms: Number(length) || undefined,
      });
      this.#forget();
      setText($("sweep-note"), say("sweep_done", { n: found.comments, users: number(found.users) }));
    } catch (err) {
      if (err.code === "no_act") this.#forget();
      this.#ready();
      setText($("sweep-note"), err.code === "no_act" ? say("sweep_old") : failed(err));
    }
  }
}

// The viewer page: a stage, a list beside it, a box to comment.

import { Stage, connect } from "../sdk/stage.js";
import { showBoard } from "./board.js";
import { Composer } from "./composer.js";
import { showLink } from "./link.js";
import { List } from "./list.js";
import { People } from "./people.js";
import { $, config, disable, isDisabled, keepToken, lastSession, number, rememberSession, root, say, setText, showState, takeToken } from "./page.js";

const token = takeToken();
const room = connect({ url: root, room: config.room, token, session: lastSession() });
const phone = matchMedia("(max-width: 640px)").matches;
const stage = new Stage($("stage"), { maxNodes: phone ? 48 : 110 });
const list = new List();

list.headers = token ? { Authorization: `Bearer ${token}` } : {};

keepToken(room);
rememberSession(room);
showState(room);
showBoard(room);
showLink(room);
new Composer(room);

room.on("welcome", (w) => { stage.self = list.self = w.you?.id ?? ""; });
room.on("comments", (m) => {
  stage.show(m);
  list.add(m);
});
room.on("removed", (m) => {
  stage.remove(m);
  list.remove(m);
});
room.on("restored", (m) => list.restore(m));
room.on("gap", (g) => list.gap(g.missed));
room.on("state", (s) => { if (s.count === false) $("count").hidden = true; });
room.on("viewers", (v) => {
  $("count").hidden = false;
  setText($("count-n"), number(v.users));
});

// --- the buttons under the stage

function toggle(id, initial, change) {
  const button = $(id);
  button.setAttribute("aria-pressed", String(initial));
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    change(on);
  });
}

const pauses = () => { stage.paused = $("stage-panel").hidden || $("pause").getAttribute("aria-pressed") === "true"; };
toggle("pause", false, pauses);
toggle("show-stage", true, (on) => {
  $("stage-panel").hidden = !on;
  $("room").classList.toggle("no-stage", !on);
  stage.clear();
  pauses(); // nothing is laid on a stage that is not there, even before its size is noticed
  list.follow();
});
toggle("show-list", true, (on) => {
  $("list-panel").hidden = !on;
  $("room").classList.toggle("no-list", !on);
  list.follow();
});
toggle("read-aloud", false, (on) => { list.readAloud = on; });

// --- who is here, where the room says that its audience may know. A whole audience may look.

const people = new People(room, { most: 1000, again: 30_000 });
room.on("state", (s) => {
  $("people-open").hidden = s.members !== true;
  if (s.members !== true) $("people").close();
});
$("people-open").addEventListener("click", () => {
  $("people").showModal();
  people.start();
});
$("people-close").addEventListener("click", () => $("people").close());
$("people").addEventListener("close", () => people.stop());

// --- the five lines

$("embed-code").textContent = [
  `<div id="kansei" style="position: relative; aspect-ratio: 16/9; background: #15121f"></div>`,
  `<script type="module">`,
  `  import { Stage, connect } from "${root}sdk/stage.js";`,
  `  new Stage(document.getElementById("kansei")).follow(connect({ room: "${config.room}" }));`,
  `</script>`,
].join("\n");
$("embed-open").addEventListener("click", () => $("embed").showModal());
$("embed-close").addEventListener("click", () => $("embed").close());
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("embed-code").textContent);
    setText($("copy-note"), say("copied"));
  } catch { // not permitted, or the page came over plain HTTP
    getSelection().selectAllChildren($("embed-code"));
    setText($("copy-note"), say("copy_failed"));
  }
});

// --- the demo crowd

$("stop-demo")?.addEventListener("click", async (e) => {
  const button = e.currentTarget;
  if (isDisabled(button)) return;
  disable(button, true);
  try {
    const res = await fetch(config.demoStopURL, { method: "POST", signal: AbortSignal.timeout(10_000) });
    if (!res.ok) throw new Error(`status ${res.status}`);
    button.hidden = true;
    setText($("tool-note"), say("demo_stopped"));
  } catch {
    disable(button, false);
    setText($("tool-note"), say("demo_failed"));
  }
});

// The studio page: runs a room with a token. The numbers, the room's settings, and
// what is being said.

import { connect } from "../sdk/kansei.js";
import { Audience } from "./audience.js";
import { showBoard } from "./board.js";
import { Card } from "./card.js";
import { Composer } from "./composer.js";
import { Crew } from "./crew.js";
import { Desk } from "./desk.js";
import { showLink } from "./link.js";
import { List } from "./list.js";
import { ModLog } from "./modlog.js";
import { People } from "./people.js";
import { Sweeper } from "./sweep.js";
import { $, config, disable, isDisabled, keepToken, lastSession, number, remembered, rememberSession, root, say, setText, showState, takeToken } from "./page.js";

const SECONDS = 60; // of the line of comments per second

const token = takeToken();
const room = connect({ url: root, room: config.room, token, count: false, session: lastSession() });
const list = new List();

keepToken(room);
rememberSession(room);
showState(room);
showLink(room);
showBoard(room);
new Composer(room);
new Crew(room, token);
new Audience(room, token);
const card = new Card(room);
const open = (user) => card.open(user);
const log = new ModLog(room, open);
card.undoing((e, button) => log.undo(e, button));
const sweeper = new Sweeper(room, list);
new Desk(room, list, { chosen: (comment) => sweeper.chosen(comment), open });
list.headers = token ? { Authorization: `Bearer ${token}` } : {};

room.on("welcome", (w) => { list.self = w.you?.id ?? ""; });
room.on("comments", (m) => list.add(m));
room.on("removed", (m) => list.remove(m));
room.on("restored", (m) => list.restore(m));
room.on("gap", (g) => list.gap(g.missed));

// --- the token

room.on("status", (s) => {
  if (s.state === "closed" && (s.reason === "unauthorized" || s.reason === "token")) $("token-card").hidden = false;
});
// A guest who may comment is let in without a token, but runs nothing.
if (!token) $("token-card").hidden = false;

$("token-form").addEventListener("submit", (e) => {
  e.preventDefault();
  const value = $("token").value.trim().replace(/^.*#token=/, ""); // the link will do as well
  if (!/^[\w-]+\.[\w-]+\.[\w-]*$/.test(value)) {
    setText($("token-note"), say("token_bad"));
    return;
  }
  remembered.set(`token.${config.room}`, value);
  remembered.set(`session.${config.room}`, undefined);
  location.reload();
});

// --- who is here

const people = new People(room, { most: 5000, again: 10_000, open });
room.on("welcome", () => people.start());
room.on("status", (s) => { if (s.state === "closed") people.stop(); });

// --- the numbers

room.on("viewers", (v) => {
  setText($("users"), number(v.users));
  setText($("connections"), number(v.connections));
  setText($("peak"), number(v.peak_users));
});

let second = 0; // comments of this second
const seconds = Array(SECONDS).fill(0);
room.on("comments", (m) => { if (!m.history) second += m.items.length + Math.max(0, (m.of ?? 0) - (m.shown ?? 0)); });
room.on("gap", (g) => { second += g.missed ?? 0; });
let countedAt = performance.now();
setInterval(() => {
  // In a hidden tab the interval is longer than a second.
  const passed = Math.max(1, Math.round((performance.now() - countedAt) / 1000));
  countedAt = performance.now();
  for (let i = 0; i < Math.min(passed, SECONDS); i++) seconds.push(second / passed);
  seconds.splice(0, seconds.length - SECONDS);
  second = 0;
  drawRate();
}, 1000);

let described = 0;
function drawRate() {
  const now = Math.round(seconds.at(-1));
  const most = Math.max(...seconds);
  setText($("rate"), number(now));
  const y = (v) => (19 - (18 * v) / Math.max(5, most)).toFixed(2);
  const points = seconds.map((v, i) => `${((i * 60) / (SECONDS - 1)).toFixed(2)},${y(v)}`).join(" ");
  $("spark-line").setAttribute("points", points);
  $("spark-area").setAttribute("points", `0,20 ${points} 60,20`);
  // Its description is for whoever asks; it need not change each second.
  if (++described % 5 === 1) $("spark").setAttribute("aria-label", say("rate_now", { n: now, max: Math.round(most) }));
}
drawRate();

// --- the room

let rev = 0; // of the state that the form is based on
let edits = 0; // of the form since it was loaded
const statusOf = () => new FormData($("settings")).get("status");

function load(state) {
  rev = state.rev ?? 0;
  $("room-title").value = state.title ?? "";
  $("members").checked = state.members === true;
  const choice = $("settings").querySelector(`input[name=status][value=${CSS.escape(state.status)}]`);
  if (choice) choice.checked = true;
}

$("settings").addEventListener("input", () => { edits++; });
// What somebody else has set comes into the form unless it is being edited.
room.on("state", (s) => { if (!edits) load(s); });

$("settings").addEventListener("submit", async (e) => {
  e.preventDefault();
  const note = $("settings-note");
  if (isDisabled($("save"))) return;
  disable($("save"), true);
  setText(note, say("saving"));
  try {
    setText(note, await save());
  } catch {
    setText(note, say("save_failed"));
  }
  disable($("save"), false);
});

const address = `${root}v1/rooms/${encodeURIComponent(config.room)}`;
const authorization = token ? { Authorization: `Bearer ${token}` } : {};

function request(init) {
  return fetch(address, { cache: "no-store", signal: AbortSignal.timeout(15_000), ...init });
}

// save puts the form's state in place of the one it is based on, and returns what
// to say about it.
async function save() {
  const state = { rev, status: statusOf(), title: $("room-title").value.trim(), members: $("members").checked || undefined };
  const saved = edits;
  const res = await request({ method: "PUT", headers: { ...authorization, "Content-Type": "application/json" }, body: JSON.stringify(state) });
  if (res.ok) {
    const now = await res.json().catch(() => ({}));
    const current = { ...state, ...(now.state ?? now) };
    if (edits === saved) {
      edits = 0;
      load(current);
    } else {
      rev = current.rev ?? 0; // what was typed meanwhile stays, to be saved next
    }
    return say("saved");
  }
  if (res.status === 409) {
    // The draft stays; saving again replaces what is there now, knowingly.
    const got = await request({ headers: authorization });
    if (!got.ok) return say("err_conflict");
    const { state: now } = await got.json();
    rev = now.rev ?? 0;
    return say("conflict", { title: now.title || config.room, status: say(`room_${now.status}`) });
  }
  return say(res.status === 401 || res.status === 403 ? "save_unauthorized" : "save_failed");
}

// What a page written in TypeScript may say, and what the compiler must refuse.
import { connect, KanseiError, measure, type Comment, type Connection, type Platform } from "../sdk/kansei.js";
import { Stage } from "../sdk/stage.js";

const room = connect({ room: "r", url: new URL("https://kansei.example"), getToken: async () => "t" });

const off: () => void = room.on("comments", ({ items }) => {
  for (const c of items) {
    const text: string = c.text;
    const history: boolean = c.history;
    // @ts-expect-error a viewer has no role
    const role: string = c.user.role;
    void [text, history, role];
  }
});
off();

room.on("status", (s) => {
  if (s.state === "reconnecting") console.log(s.retryInMs, s.reason);
  // @ts-expect-error only a wait has an end
  s.retryAt;
});
room.on("error", (err: KanseiError) => console.log(err.code, err.retryMs));
// @ts-expect-error no such event
room.on("comment", () => {});
// @ts-expect-error a style has a fixed set of positions
room.comment("x", { style: { position: "left" } });
connect({ room: "r", urls: ["https://a.example", new URL("https://b.example")] as const }).close();
// @ts-expect-error a list
connect({ room: "r", urls: "https://a.example" });
// @ts-expect-error the room is required
connect({ url: "https://kansei.example" });

const id: Promise<{ id: string }> = room.comment("x", { mediaMs: 1, style: { size: "big" } });
void id;

const platform = {} as Platform;
connect({ room: "r", host: "localhost:1", token: "t", since: "c", session: "s" }, platform).close();

const stage = new Stage(document.body, { maxNodes: 20 });
room.on("comments", stage.show);
stage.add({} as Comment);
stage.follow(room).remove({ type: "removed", user: "u" });
const act: Promise<{ act?: string }> = room.act("mute", { user: "u", for_ms: 1000, reason: "r" });
void act;
// @ts-expect-error a mute is of somebody
room.act("mute", {});
// @ts-expect-error no act
room.act("explode", {});
const rev: Promise<{ rev: number }> = room.set({ slow_ms: 5000, notice: null, pin: { id: "x" }, mode: "open" }, { rev: 3 });
void rev;
// @ts-expect-error no mode
room.set({ mode: "shut" });
const event: Promise<{ id: string }> = room.event("gift", { data: { amount: 5 }, audience: "user:ken", lasting: false });
void event;
// @ts-expect-error no audience
room.event("gift", { audience: "mods" });
room.on("moderation", ({ entry }) => entry.undone?.by.id ?? entry.sweep?.text);
const swept: Promise<string> = room.sweep({ last_ms: 60_000, guests: true }).then((s) => s.sweep);
void swept;
// @ts-expect-error it looks at some time
room.sweep({ guests: true });
room.act("sweep", { sweep: "id", until: "broadcast", sure: true });
room.act("note", { user: "u", text: "first time" });
const log: Promise<string | undefined> = room.moderation({ limit: 10 }).then((p) => p.entries[0]?.user?.id ?? p.cursor);
void log;
const most: Promise<number> = room.watchLog({ minShare: 0.85 }).then((l) => Math.max(l.summary.peak_users, ...l.users.map((u) => u.share)));
const ended: Promise<number | undefined> = room.broadcasts().then((all) => all[0]?.ended_at);
const seen: Promise<number | undefined> = room.person("u").then((p) => p.first_seen);
void seen;
room.on("event", (e) => e.past || e.data?.amount);
room.on("removed", (m) => m.ids?.length);
room.on("restored", (m) => m.items.length);
stage.paused = true;

// A connection is what connect returns; there is no such value.
const kept: Connection = room;
// @ts-expect-error no class
new Connection();
void kept;
const n: number = measure("うぽつ").length;
void n;
room.comment("x", null);

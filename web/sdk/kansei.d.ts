// Types of kansei.js. Times are Unix milliseconds; fields with nothing to say are absent.

/** Where and as whom to join. */
export interface Options {
  /** The room: [A-Za-z0-9][A-Za-z0-9_-]{0,63}. */
  room: string;
  /** Address of the server, with its path prefix if it has one: "https://kansei.example". */
  url?: string | URL;
  /**
   * Instead of `url`: the addresses of several nodes. The connection begins with the first, and goes on to the next
   * after each loss, after each attempt that failed, and when its node is leaving. Give each viewer another order:
   * with the same one, all of them are at one node.
   */
  urls?: readonly (string | URL)[];
  /**
   * Instead of `url`: host and port. TLS, except on loopback. Without both: the server this file came from; in a
   * bundle one of them is needed.
   */
  host?: string;
  /** A JWT. Without `token` and `getToken` one joins as a guest, if the server lets guests in. */
  token?: string | null;
  /**
   * Called for the first token, for a fresh one before it ends, which goes over the open connection, and for a new one
   * whenever the server refuses the last. What it throws, or returns that is no JWT, is an `error` event with the code `token`, and it is called again later.
   */
  getToken?: () => string | Promise<string>;
  /** Where to resume: the `cursor` of an earlier connection. */
  since?: string;
  /** Which identity to keep: the `session` of an earlier connection with the same token. */
  session?: string;
  /** false: this connection is in no count, if its user may be in none: the staff, and whose token says so. */
  count?: boolean;
  /** Position in the programme, milliseconds, sent with each beat. */
  mediaMs?: () => number | undefined;
}

export type Role = "viewer" | "monitor" | "moderator" | "broadcaster";

export interface User {
  id: string;
  name?: string;
  /** Absent for viewers. */
  role?: Role;
  /** https address of a picture, on a host that the operator allows. */
  avatar?: string;
  /** The name looks like that of one of the staff; part of the id stands behind it. */
  confusable?: true;
}

/** How a comment wants to be drawn over the programme. */
export interface Style {
  /** Absent: scroll. */
  position?: "scroll" | "top" | "bottom";
  /** Absent: medium. */
  size?: "small" | "medium" | "big";
  /** #rrggbb */
  color?: string;
}

export interface Comment {
  id: string;
  at: number;
  user: User;
  text: string;
  media_ms?: number;
  style?: Style;
  /** The application's own. */
  data?: Record<string, unknown>;
  /** It was said before this connection came. */
  history: boolean;
}

export interface Welcome {
  type: "welcome";
  v: number;
  room: string;
  session: string;
  you: You;
  now: number;
  /** Nothing was missed since the cursor that was offered. */
  recovered: boolean;
  beat_ms: number;
  /** `text`: code points after NFC; `per_s` and `burst`: comments. */
  limits: Limits;
  /** What is kept of who watches; absent: the server does not know yet. */
  watch?: Watch;
}

/** Who watched a broadcast. Times are Unix milliseconds, durations milliseconds. */
export interface WatchLog {
  broadcast: string;
  /** Left out: it was not archived yet. */
  revision?: number;
  /** No more can come. */
  final: boolean;
  summary: WatchSummary;
  users: WatchUser[];
}

/** A broadcast as a whole. */
export interface WatchSummary {
  room: string;
  broadcast: string;
  waiting_at?: number;
  began_at: number;
  /** Left out: it runs. */
  ended_at?: number;
  /** The denominator of the users' shares. */
  duration_ms: number;
  /** Distinct; `guests` are those of them without a token, `waited` those who were there before it began. */
  users: number;
  guests: number;
  waited: number;
  peak_users: number;
  peak_at?: number;
  mean_users: number;
  connected_ms: number;
  visible_ms: number;
  played_ms: number;
  comments: number;
  /** Connections; the ends of `estimated` of them are estimated. */
  intervals: number;
  estimated: number;
  devices: Record<string, number>;
  /** `stayed`: of the users of the first minute. */
  minutes: { at: number; users: number; stayed: number; comments: number }[];
  /** Users who are not listed, because the room kept no more than totals of them. */
  totals_only?: number;
}

/** A user during a broadcast, over all devices and connections. */
export interface WatchUser {
  id: string;
  name?: string;
  guest?: true;
  from: number;
  to: number;
  connected_ms: number;
  visible_ms: number;
  played_ms: number;
  /** Before the broadcast began. */
  waited_ms?: number;
  /** Connected, of the duration: 0 to 1. */
  share: number;
  connections: number;
  estimated?: true;
}

/** A broadcast of a room. */
export interface BroadcastEntry {
  broadcast: string;
  began_at: number;
  ended_at?: number;
  revision?: number;
  final?: true;
}

/** What is kept of who watches: nothing, how many and for how long, or who. */
export type Watch = "off" | "totals" | "users";

/** Who the server takes one for. */
export interface You {
  /** The id that others in the room see, and that one's own comments bear. */
  id: string;
  /** One's own id, where the room sees another one. */
  user?: string;
  name: string;
  role: Role;
  /** What one may do: comment, set, act, uncounted. */
  can: string[];
  /** As others get it. */
  avatar?: string;
  /** When the token ends; absent for guests. */
  ends?: number;
  /** Why one may not comment now; absent when nothing of the room's keeps one from it. */
  blocked?: Blocked;
}

/** What one is told of an act of a moderator. */
export interface Sanction {
  act?: string;
  reason?: string;
  /** When it ends; absent: not known, or never. */
  ends?: number;
  /** Where to object. */
  appeal_url?: string;
}

export interface Blocked extends Sanction {
  code: ErrorCode;
  message: string;
  /** How long it lasts, if that is known. */
  retry_ms?: number;
}

export interface Limits {
  text: number;
  per_s: number;
  burst: number;
}

/** What one is, may do, or is limited to has changed, or the token has been renewed. */
export interface YouNow extends You {
  type: "you";
  limits: Limits;
}

/** Comments in the room's order; each comes once over all reconnects. */
export interface Comments {
  type: "comments";
  cursor: string;
  history: boolean;
  items: Comment[];
  /** The server shows `shown` of `of` comments of this stretch; both absent when it shows all. */
  shown?: number;
  of?: number;
}

export interface Viewers {
  type: "viewers";
  connections: number;
  /** Distinct. */
  users: number;
  peak_users: number;
  at: number;
}

export interface State {
  type: "state";
  /** 0: never set. */
  rev: number;
  status: "scheduled" | "live" | "ended";
  title?: string;
  broadcast?: number;
  /** When the broadcast `timed` began and ended, Unix milliseconds; it is the last one, unless an older server has begun that. */
  began_at?: number;
  ended_at?: number;
  timed?: number;
  members?: true;
  starts_at?: number;
  media_url?: string;
  media_offset_ms?: number;
  notice?: string;
  pin?: { comment?: Omit<Comment, "history">; text?: undefined } | { text: string; comment?: undefined };
  /** Who may comment; absent: everybody. */
  mode?: "users" | "members" | "known" | "locked";
  known_ms?: number;
  slow_ms?: number;
  delay_ms?: number;
  links?: "none";
  early_chat?: false;
  text?: number;
  count?: false;
  keep_ms?: number;
  /** What is kept of who watches; absent: what the server says. */
  watch?: Watch;
  /** A shield is on: `mode`, `slow_ms`, `links` and `delay_ms` are what counts under it. */
  shield?: true;
  /** To the staff: what the shield lays over the state, where that is the room's own. */
  shield_preset?: Layer;
  /** To the staff, while a shield is on: what these four are without it. */
  under?: Layer;
  /** The owner's own. */
  data?: unknown;
  /** The server cannot follow the room at the moment: comments may be late. */
  degraded?: boolean;
}

/** The fields of a state that a shield lays something over. */
export type Layer = Pick<State, "mode" | "slow_ms" | "links" | "delay_ms">;

/** Changes of a state: null removes a field. A comment is pinned by its id. */
export type Patch = {
  [K in Exclude<keyof State, "type" | "rev" | "broadcast" | "degraded" | "pin" | "mode" | "members" | "early_chat" | "count" | "shield" | "under">]?: State[K] | null;
} & {
  pin?: { id: string } | { text: string } | null;
  mode?: "open" | NonNullable<State["mode"]> | null;
  members?: boolean | null;
  early_chat?: boolean | null;
  count?: boolean | null;
  shield?: boolean | null;
};

/** Comments to take off the screen and out of lists: those with `ids`, all so far of `user`, or `all` so far. */
export interface Removed {
  type: "removed";
  ids?: string[];
  user?: string;
  all?: true;
  /** Too many to be told: load the list again. */
  reload?: true;
}

/** Comments that are back: for lists, by `at`. They do not fly again. */
export interface Restored {
  type: "restored";
  items: Omit<Comment, "history">[];
  events?: Omit<AppEvent, "type" | "past" | "cursor">[];
}

/** What the log of moderation has of an act; one of the same `act` replaces it. */
export interface Entry {
  /** Its id, to undo it by. */
  act: string;
  type: Exclude<keyof Acts, "undo" | "ack">;
  by: User;
  at: number;
  /** Whom it concerns. */
  user?: { id: string; name?: string };
  reason?: string;
  /** Of a note. */
  text?: string;
  /** The comments that it hides: the first 100 of `comments`. */
  ids?: string[];
  comments?: number;
  /** What a sweep was to find, and how many users it mutes. */
  sweep?: Sweeping;
  users?: number;
  /** Until when it holds; neither: for good. */
  ends?: number;
  until?: "broadcast";
  quiet?: true;
  clear?: true;
  all_rooms?: true;
  /** The act for all rooms that it carries out here. */
  from?: string;
  undone?: { act: string; by: User; at: number };
}

export interface Moderation {
  type: "moderation";
  entry: Entry;
}

/**
 * What a sweep is to find: of the last `last_ms`, what is by any of those named (by anybody, if nobody is named) and has all
 * that is asked of it.
 */
export interface Sweeping {
  /** At most an hour. */
  last_ms: number;
  guests?: boolean;
  /** First seen in the room less than so long ago. */
  newcomers_ms?: number;
  /** Whoever comes from where this user does. */
  same_address_as?: string;
  /** Whatever case, width, accents, spaces and signs it is written with. */
  text?: string;
  links?: boolean;
}

/** What a sweep would hide, and whom it would mute. */
export interface Sweep {
  /** For `room.act("sweep", …)`, until `ends`. */
  sweep: string;
  ends: number;
  comments: number;
  users: number;
  /** How many have said something in that time, the staff aside. */
  of: number;
  /** More than a fifth of them are concerned: the act takes `sure`. */
  sure?: true;
  /** The latest 20. */
  samples: Omit<Comment, "history">[];
  /** There is more: sweep again behind it. */
  partial?: true;
  /** Of whom nobody knows whether they are new: they were left. */
  unknown?: number;
}

/** What the staff may know of somebody. */
export interface Person {
  user: User;
  first_seen?: number;
  since?: number;
  /** Connections; 0: they are not there. */
  devices: number;
  /** The latest first. */
  comments: (Omit<Comment, "history" | "text"> & { text: string; event?: string; removed?: true })[];
  acts: Entry[];
  /** More was said in the room lately than was looked through. */
  partial?: true;
}

/** An event of the application. */
export interface AppEvent {
  type: "event";
  id: string;
  at: number;
  /** Who has published it. */
  user: User;
  name: string;
  data?: Record<string, unknown>;
  /** `staff`, or `user:` and the id of the one user who gets it; absent: everybody. */
  audience?: string;
  /** It holds until a newer one of its name comes, or it is removed. */
  lasting?: true;
  cursor?: string;
  /** It lasts and was published before this connection came: take it for what holds now, without a fanfare. */
  past: boolean;
}

export interface EventOptions extends RequestOptions {
  /** At most 4 KiB as JSON. */
  data?: object | null;
  /** `all` if absent. */
  audience?: "all" | "staff" | `user:${string}` | null;
  /** Who comes later is told the latest one of the name. */
  lasting?: boolean | null;
}

/** How long an act lasts: for some time, until the broadcast has ended, or, with neither, for good. */
export interface Lasting {
  for_ms?: number;
  until?: "broadcast";
}

/** What the acts take. */
export interface Acts {
  remove: { ids: string[] };
  clear: { user?: string };
  mute: { user: string; clear?: boolean; quiet?: boolean; all_rooms?: boolean } & Lasting;
  unmute: { user: string; all_rooms?: boolean };
  ban: { user: string; clear?: boolean; all_rooms?: boolean } & Lasting;
  unban: { user: string; all_rooms?: boolean };
  warn: { user: string } & Lasting;
  trust: { user: string } & Lasting;
  /** Hides what a dry run has found (`room.sweep`), and mutes who has said it, unless they are spared. */
  sweep: { sweep: string; sure?: boolean; spare?: boolean } & Lasting;
  /** About a user, for the staff. */
  note: { user: string; text: string };
  undo: { act: string };
  ack: { act: string };
}

export interface RequestOptions {
  /** One's own name for the request, 1 to 64 characters; made up if absent. */
  ref?: string | null;
  /** How long to try, in milliseconds; 30000 if absent, 100000 at most. */
  timeoutMs?: number | null;
}

/** Comments that this viewer does not get. */
export interface Gap {
  type: "gap";
  /** Absent when the number is not known. */
  missed?: number;
  cursor?: string;
}

/**
 * The node is leaving, or one's role has changed; after `after_ms` the connection moves by itself: it comes in elsewhere first, stays
 * `live`, and says `welcome` again.
 */
export interface Reconnect {
  type: "reconnect";
  after_ms: number;
}

export type Status =
  /** An attempt is under way. */
  | { state: "connecting"; attempt: number }
  /** The server has said welcome. */
  | { state: "live"; attempt: number }
  /** Waiting for the next attempt, or (offline) also for the device's network. */
  | {
      state: "reconnecting" | "offline";
      attempt: number;
      retryInMs: number;
      retryAt: number;
      /**
       * `offline`: the device says so; `origin`: the server does not let pages of this origin in; `not_kansei`: what
       * answers at the address is something else; `lost`: for a reason that a browser does not tell. The console says
       * once what to do about `origin`, `not_kansei` and `token`.
       */
      reason:
        | "lost" | "offline" | "origin" | "not_kansei" | "silent" | "timeout" | "token" | "unauthorized" | "restart"
        | "too_slow" | "too_many" | "overloaded" | "banned";
      /** The close code, if the server gave one. */
      code?: number;
    }
  /** For good. */
  | {
      state: "closed";
      attempt: number;
      /** `token`: `token` is no JWT; `url`: this page may not connect to that address. */
      reason: "closed" | "ended" | "unauthorized" | "banned" | "no_room" | "malformed" | "protocol" | "token" | "url";
      code?: number;
      message?: string;
    };

export type ErrorCode =
  | "bad_message" | "unsupported" | "too_long" | "empty" | "rate_limited" | "slow_mode" | "muted" | "forbidden"
  | "banned" | "warned" | "no_links" | "no_act" | "locked" | "conflict" | "unavailable" | "unknown_outcome"
  /** A fresh token was refused. */
  | "unauthorized"
  /** Of this SDK: the connection is closed; getToken failed. */
  | "closed" | "token";

export class KanseiError extends Error {
  constructor(code: ErrorCode, message?: string, retryMs?: number);
  code: ErrorCode;
  /** When the same may succeed, if the server said so. */
  retryMs?: number;
  /** Of what a moderator has done. */
  act?: string;
  reason?: string;
  ends?: number;
  appealUrl?: string;
  /** Of a conflict: the state as it is. */
  state?: State;
}

export interface Events {
  welcome: Welcome;
  comments: Comments;
  viewers: Viewers;
  state: State;
  gap: Gap;
  removed: Removed;
  restored: Restored;
  /** To the staff: an act was done or undone. */
  moderation: Moderation;
  event: AppEvent;
  status: Status;
  /** What went wrong without being the answer to a comment. */
  error: KanseiError;
  reconnect: Reconnect;
  you: YouNow;
}

export interface CommentOptions extends RequestOptions {
  mediaMs?: number;
  style?: Style | null;
  /** The application's own: an object of at most 1 KiB as JSON. */
  data?: object | null;
}

/** What `connect` returns. */
export interface Connection {
  readonly status: Status;
  readonly session: string | undefined;
  readonly cursor: string | undefined;
  /** Returns the function that takes the listener away again. */
  on<K extends keyof Events>(type: K, listener: (event: Events[K]) => void): () => void;
  off<K extends keyof Events>(type: K, listener: (event: Events[K]) => void): void;
  /**
   * Resolves when the comment is in the room's log. Tries again, under the same ref, after a lost
   * connection and when the server could not say whether it was done; rejects with a KanseiError
   * when it is refused or the time is over (then `unavailable`: not said, or `unknown_outcome`: perhaps). What no
   * server would take is refused at once, by the code that the server has for it.
   */
  comment(text: string, options?: CommentOptions | null): Promise<{ id: string; ref: string; held: boolean }>;
  /**
   * Does an act of a moderator, takes back a comment of one's own (`remove`), or acknowledges a warning (`ack`). Resolves when it is
   * in force, with its id, by which it is undone. It is tried again as a comment is.
   */
  act<K extends keyof Acts>(type: K, options: Acts[K] & { reason?: string } & RequestOptions): Promise<{ ref: string; act?: string; cursor?: string }>;
  /**
   * Publishes an event of the application. The staff may publish all names, viewers those that the operator lists. Resolves with
   * its id when it is in the room's log. It is tried again as a comment is.
   */
  event(name: string, options?: EventOptions | null): Promise<{ ref: string; id: string }>;
  /** Changes the room's state; `rev`: the revision that it must have. Of a `conflict` the error has the state as it is. */
  set(patch: Patch, options?: ({ rev?: number } & RequestOptions) | null): Promise<{ ref: string; rev: number }>;
  /**
   * Reads a page of who is in the room, for those who may know; rejects with a KanseiError otherwise (`forbidden`), or when it
   * cannot be read. Go on with `cursor` until there is none. Who stays meanwhile is in exactly one page.
   */
  members(options?: MembersOptions | null): Promise<MembersPage>;
  /** Reads a page of the log of moderation, the latest first, for the staff. Go on with `cursor` until there is none. */
  moderation(options?: { limit?: number; cursor?: string; allRooms?: boolean; signal?: AbortSignal } | null): Promise<{ entries: Entry[]; cursor: string | undefined }>;
  /** Reads what the staff may know of a user. */
  person(user: string, options?: { signal?: AbortSignal } | null): Promise<Person>;
  /** Makes the dry run of a sweep, which changes nothing. `act("sweep", { sweep })` does it. */
  sweep(wanted: Sweeping, options?: { signal?: AbortSignal } | null): Promise<Sweep>;
  /**
   * Reads who watched a broadcast, for broadcasters: the current one, else the latest, if `broadcast` is left out. `minShare`: users who
   * were connected for that share of it at least, 0 to 1; `users: false`: the summary alone.
   */
  watchLog(options?: { broadcast?: string; minShare?: number; users?: boolean; signal?: AbortSignal } | null): Promise<WatchLog>;
  /** Lists the broadcasts of the room that are known of, the latest first, for broadcasters. */
  broadcasts(options?: { signal?: AbortSignal } | null): Promise<BroadcastEntry[]>;
  /** Leaves for good. */
  close(): void;
}

export interface MembersOptions {
  /** Users of a page, 1 to 1000; 100 if left out. */
  limit?: number;
  /** Of the page before. */
  cursor?: string;
  signal?: AbortSignal;
}

export interface MembersPage {
  users: Member[];
  /** Of the next page; undefined on the last one. */
  cursor: string | undefined;
  /** The list cannot be read now, and this one is `ageMs` old. */
  stale: boolean;
  ageMs: number;
}

/** Who is in a room. */
export interface Member {
  id: string;
  /** May be empty. Show it as text. */
  name: string;
  role: string;
  /** Unix milliseconds. */
  since: number;
  /** Connections. */
  devices: number;
  /** When the user was first here, Unix milliseconds; undefined: not known. */
  firstSeen: number | undefined;
}

/** What becomes of a comment: see `measure`. */
export interface Measure {
  /** As everybody gets it. */
  text: string;
  /** Code points, which count against `limits.text`. */
  length: number;
  /** At most 20 are allowed. */
  lineFeeds: number;
  /** There is nothing to see in it. */
  empty: boolean;
}

/** Cleans and counts a text as the server does. */
export function measure(text: string): Measure;

/** What the SDK needs of its surroundings, for tests and runtimes that are no browser. */
export interface Platform {
  WebSocket: new (url: string, protocols: string[]) => WebSocket;
  fetch(url: string, init: RequestInit): Promise<Response>;
  /** Unix milliseconds. */
  now(): number;
  /** Milliseconds of a clock that nobody sets. */
  monotonic?(): number | undefined;
  random(): number;
  setTimeout(f: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
  online(): boolean;
  visible(): boolean;
  window?: EventTarget;
  document?: EventTarget;
  report(err: unknown): void;
  /** Tells the developer what to mend. */
  warn?(text: string): void;
}

export function connect(options: Options, platform?: Platform): Connection;

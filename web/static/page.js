// What both pages share: their settings, their words, their elements.

/** The settings that the server put into the page; see pageConfig in pages.go. */
export const config = JSON.parse(document.body.dataset.config);

/**
 * root is the address of the server, with a slash at its end: this file lies at
 * assets/{tag}/static/ of it. A proxy may have it under a path.
 */
export const root = new URL("../../../", import.meta.url).href;

// under is what keeps apart what servers under several paths of one host have remembered.
const under = new URL(root).pathname.slice(1);

const plural = new Intl.PluralRules(config.lang);
const numbers = new Intl.NumberFormat(config.lang);

export const $ = (id) => document.getElementById(id);

export const number = (n) => numbers.format(n);

/** say returns the words for a key, with {names} filled in; n chooses the plural form. */
export function say(key, values = {}) {
  const form = values.n !== undefined && config.text[`${key}_${plural.select(values.n)}`];
  const text = form || config.text[key] || key;
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const v = values[name] ?? "";
    return typeof v === "number" ? number(v) : v;
  });
}

export const has = (key) => key in config.text;

/** make creates an element with text, never with markup. */
export function make(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

/** setText avoids announcing again what a live region says already. */
export function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

/** disable makes a control useless but leaves the focus on it, which would go nowhere otherwise. */
export function disable(e, on) {
  e.setAttribute("aria-disabled", String(on));
  if ("readOnly" in e) e.readOnly = on;
}

export const isDisabled = (e) => e.getAttribute("aria-disabled") === "true";

/** remembered keeps something for this tab alone; a browser may forbid even that. */
export const remembered = {
  get(key) {
    try {
      return sessionStorage.getItem(`kansei.${under}${key}`) ?? undefined;
    } catch {
      return undefined;
    }
  },
  set(key, value) {
    try {
      if (value === undefined) sessionStorage.removeItem(`kansei.${under}${key}`);
      else sessionStorage.setItem(`kansei.${under}${key}`, value);
    } catch {
      // Then it lasts as long as the page.
    }
  },
};

/**
 * takeToken returns the token out of the address (#token=…), which it removes
 * from there and from the history, or the one that this tab had for the room.
 */
export function takeToken() {
  const key = `token.${config.room}`;
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    history.replaceState(null, "", location.pathname + location.search);
    remembered.set(key, token);
    remembered.set(`session.${config.room}`, undefined); // it belongs to another identity
    return token;
  }
  return remembered.get(key);
}

const forgetToken = () => remembered.set(`token.${config.room}`, undefined);

/**
 * keepToken forgets a token that was refused, so that it does not block the room for this tab, and takes another one when
 * its link is opened in a page that is there already.
 */
export function keepToken(room) {
  room.on("status", (s) => { if (s.state === "closed" && (s.reason === "unauthorized" || s.reason === "token")) forgetToken(); });
  addEventListener("hashchange", () => {
    if (!new URLSearchParams(location.hash.slice(1)).get("token")) return;
    takeToken();
    location.reload();
  });
}

/** rememberSession keeps the identity of a guest when the page is loaded again. */
export function rememberSession(room) {
  room.on("welcome", (w) => remembered.set(`session.${config.room}`, w.session));
}

export const lastSession = () => remembered.get(`session.${config.room}`);

/** showState keeps the heading up to date with the state of the room. */
export function showState(room) {
  room.on("state", (s) => {
    setText($("title"), s.title || config.room);
    document.title = `${s.title || config.room} · Kansei`;
    const badge = $("room-status");
    badge.hidden = !has(`room_${s.status}`);
    badge.dataset.status = s.status;
    setText(badge, say(`room_${s.status}`));
  });
}

// What the SDK needs of its surroundings; tests and other runtimes pass their own.

/** The surroundings that a browser gives. */
export function browser() {
  const g = globalThis;
  return {
    WebSocket: g.WebSocket,
    fetch: (url, init) => g.fetch(url, init),
    now: () => Date.now(),
    monotonic: () => g.performance?.now(),
    random: () => Math.random(),
    setTimeout: (f, ms) => g.setTimeout(f, ms),
    clearTimeout: (t) => g.clearTimeout(t),
    online: () => g.navigator?.onLine !== false,
    visible: () => g.document?.visibilityState !== "hidden" || Boolean(g.document.pictureInPictureElement || g.documentPictureInPicture?.window),
    window: g.addEventListener ? g : undefined,
    document: g.document,
    warn: (text) => g.console?.warn(text),
    report: (err) => (g.reportError ?? console.error)(err),
  };
}

/**
 * steadyClock returns a function that tells the time since it was made, in milliseconds. It goes on while the device sleeps,
 * when some monotonic clocks stand still, and when the time of day is set back.
 */
export function steadyClock(platform) {
  let wall = platform.now();
  let monotonic = platform.monotonic?.() ?? 0;
  let at = 0;
  return () => {
    const w = platform.now();
    const m = platform.monotonic?.() ?? 0;
    at += Math.max(0, w - wall, m - monotonic);
    wall = w;
    monotonic = m;
    return at;
  };
}

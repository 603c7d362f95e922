// What the SDK needs of its surroundings; tests and other runtimes pass their own.

/** The surroundings that a browser gives. */
export function browser() {
  const g = globalThis;
  return {
    WebSocket: g.WebSocket,
    fetch: (url, init) => g.fetch(url, init),
    now: () => Date.now(),
    random: () => Math.random(),
    setTimeout: (f, ms) => g.setTimeout(f, ms),
    clearTimeout: (t) => g.clearTimeout(t),
    online: () => g.navigator?.onLine !== false,
    visible: () => g.document?.visibilityState !== "hidden",
    window: g.addEventListener ? g : undefined,
    document: g.document,
    report: (err) => (g.reportError ?? console.error)(err),
  };
}

// The comments that have come, so that none is shown twice.

const MAX = 2_048; // remembered

// With the time: servers of other versions may give an id again when a log was made anew.
const key = (c) => `${c.id} ${c.at}`;

export class Seen {
  #keys = new Set();

  /**
   * after returns those of items behind the last one that has come, and whether there is none: then some between may be
   * missing.
   */
  after(items) {
    const last = items.findLastIndex((c) => this.#keys.has(key(c)));
    return { items: items.slice(last + 1), gap: last < 0 && items.length > 0 };
  }

  /** fresh returns those of items that have not come yet, and remembers them. */
  fresh(items) {
    const fresh = items.filter((c) => !this.#keys.has(key(c)) && this.#keys.add(key(c)));
    for (const k of this.#keys) {
      if (this.#keys.size <= MAX) break;
      this.#keys.delete(k);
    }
    return fresh;
  }
}

// What a comment takes of the place that it is shown in.

// Lines with nothing to see in them: blanks of every width, and letters that are drawn as nothing.
const BLANK = /^[\s\u115f\u1160\u2800\u3164\uffa0\u{1d159}]*$/u;
// The same letters where they stand beside others. A line of Braille cells is a drawing, whose empty cells hold it together.
const FILLERS = /[\u115f\u1160\u3164\uffa0\u{1d159}]+/gu;

/**
 * compact returns a text without what takes place and shows nothing: empty lines at either end and more than one in a row
 * between others, fillers, and blanks behind a single line. Drawings keep their shape.
 */
export function compact(text) {
  const lines = text.replace(FILLERS, " ").split("\n");
  if (lines.length === 1) return lines[0].trimEnd();
  const kept = lines.filter((l, i) => !BLANK.test(l) || (i > 0 && !BLANK.test(lines[i - 1])));
  while (kept.length && BLANK.test(kept.at(-1))) kept.pop();
  return kept.join("\n");
}

/** Places bounds what the comments of one user take together at a time. */
export class Places {
  #limit;
  #taken = new Map(); // user → what its comments take

  constructor(limit) { this.#limit = limit; }

  /** take notes that a comment of a user takes n, and reports whether there was that much left; one may always be there. */
  take(user, n) {
    const taken = this.#taken.get(user) ?? 0;
    if (taken > 0 && taken + n > this.#limit) return false;
    this.#taken.set(user, taken + n);
    return true;
  }

  /** give undoes take. */
  give(user, n) {
    const left = (this.#taken.get(user) ?? 0) - n;
    if (left > 1e-9) this.#taken.set(user, left);
    else this.#taken.delete(user);
  }

  clear() { this.#taken.clear(); }
}

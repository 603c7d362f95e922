// Types of stage.js.
import type { Comment, Comments, Connection, Removed } from "./kansei.js";

export { connect, KanseiError, measure } from "./kansei.js";

/** Draws comments over an element, which must be positioned (position: relative, say). */
export class Stage {
  /** `maxNodes`: comments on the stage at once; 120 if absent. */
  constructor(element: Element, options?: { maxNodes?: number });
  /** Comments shown so far. */
  shown: number;
  /** Comments left out so far because there was no place, or nobody to see them. */
  leftOut: number;
  /** The id of the user whose comments are marked and wait for a place rather than be left out. */
  self: string;
  /** Halts what is on the stage; what comes meanwhile is left out. */
  paused: boolean;
  /** A listener for "comments"; bound to the stage. */
  show: (event: Comments) => void;
  /** A listener for "removed": takes comments off the stage; bound to it. */
  remove: (event: Removed) => void;
  /** Shows what a connection brings, and takes off what is removed. */
  follow(room: Connection): this;
  add(...comments: Comment[]): void;
  /** Takes everything off the stage. */
  clear(): void;
  /** Takes the stage away. */
  close(): void;
}

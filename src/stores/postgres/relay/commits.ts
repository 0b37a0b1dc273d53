import { systemClock } from '../../../core/util/clock.js';

/** After one writer reports a commit, the other writers are expected to report theirs within this many milliseconds. */
const LATELY = 100;
/** The largest number of message ids in `#expected`, and in `#found`. */
const REMEMBERED = 1_000;

/**
 * The commits that writers in this process have reported to one relay, and which of the committed messages the relay
 * has read.
 */
export class Commits {
  /** When a commit was last reported. */
  #toldAt = -Infinity;
  /** Messages that were reported since the last poll but not read. */
  readonly #expected = new Set<string>();
  /**
   * For each message that a writer may still report, the time when the relay read it. The server may answer a poll
   * before the writer learns that its own transaction has committed.
   */
  readonly #found = new Map<string, number>();

  /** Whether writers are reporting their commits. */
  get areTold(): boolean {
    return systemClock.now() - this.#toldAt < LATELY;
  }

  /** Whether a writer has reported messages that the relay has not read. */
  get areExpected(): boolean {
    return this.#expected.size > 0;
  }

  /**
   * Call this when a writer has committed messages with these ids. Returns whether the ids of all expected messages are
   * known. They are unknown if there are too many, or if `ids` is undefined.
   */
  told(ids: readonly string[] | undefined): boolean {
    const now = systemClock.now();
    this.#toldAt = now;
    if (ids === undefined || this.#expected.size > REMEMBERED) return false;
    for (const id of ids) {
      // If a message with this id was read long ago, it was a different message with the same id.
      const isFound = now - (this.#found.get(id) ?? -Infinity) < LATELY;
      this.#found.delete(id);
      if (!isFound) this.#expected.add(id);
    }
    return true;
  }

  /** Call this when messages have been read. */
  found(messages: readonly { readonly id: string }[]): void {
    if (!this.areTold) {
      this.#found.clear();
      return;
    }
    const now = systemClock.now();
    for (const { id } of messages) if (!this.#expected.delete(id)) this.#found.set(id, now);
    // Most messages were reported before the poll. Some will never be reported here, because their writers are in other
    // processes.
    for (const id of this.#found.keys()) {
      if (this.#found.size <= REMEMBERED) break;
      this.#found.delete(id);
    }
  }

  /** Call this after a poll. Either the poll found the reported messages, or they are not for this relay. */
  polled(): void {
    this.#expected.clear();
  }
}

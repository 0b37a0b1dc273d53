import { systemClock } from '../../../core/util/clock.js';

/**
 * After one writer reports a commit, the other writers are expected to report theirs within this time. Milliseconds.
 */
const LATELY = 100;
/**
 * How many ids are kept at most, both of messages that were reported but not read, and of messages that were read but
 * not reported.
 */
const REMEMBERED = 1_000;

/**
 * The commits that writers in this process have reported to one relay, and which of these messages the relay has read.
 */
export class Commits {
  /** When a commit was last reported. */
  #toldAt = -Infinity;
  /** Messages that were reported since the last poll but not read. */
  readonly #expected = new Set<string>();
  /**
   * When the relay read messages that a writer can still report. The server may answer a poll before the writer learns
   * of its own commit.
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
   * Call this when a writer has committed messages with these ids. Returns whether all expected messages are known.
   * They are not known if there are too many, or if the ids are missing.
   */
  told(ids: readonly string[] | undefined): boolean {
    const now = systemClock.now();
    this.#toldAt = now;
    if (ids === undefined || this.#expected.size > REMEMBERED) return false;
    for (const id of ids) {
      // If a message with this id was read long ago, that was another message, to which its writer gave the same id.
      const isFound = now - (this.#found.get(id) ?? -Infinity) < LATELY;
      this.#found.delete(id);
      if (!isFound) this.#expected.add(id);
    }
    return true;
  }

  /** Call this when messages were read. */
  found(messages: readonly { readonly id: string }[]): void {
    if (!this.areTold) {
      this.#found.clear();
      return;
    }
    const now = systemClock.now();
    for (const { id } of messages) if (!this.#expected.delete(id)) this.#found.set(id, now);
    // Most of these messages were reported before the poll. Others will never be reported here, because their writers
    // are in other processes.
    for (const id of this.#found.keys()) {
      if (this.#found.size <= REMEMBERED) break;
      this.#found.delete(id);
    }
  }

  /** Call this after a poll. The poll found the reported messages, or they are not for this relay. */
  polled(): void {
    this.#expected.clear();
  }
}

import { systemClock } from '../../../core/util/clock.js';

/** How long after a writer reported a commit the others are expected to report theirs too. Milliseconds. */
const LATELY = 100;
/**
 * How many ids are kept of messages that were reported and not read, and of messages that were read and not reported.
 */
const REMEMBERED = 1_000;

/** What the writers of its process have reported to one relay, and which of these messages the relay has read. */
export class Commits {
  /** When a commit was last reported. */
  #toldAt = -Infinity;
  /** Messages that were reported since the last poll, and have not been read. */
  readonly #expected = new Set<string>();
  /**
   * When the relay read messages that may still be reported: the server may answer a poll sooner than the writer hears
   * of its commit.
   */
  readonly #found = new Map<string, number>();

  /** Whether writers report their commits. */
  get areTold(): boolean {
    return systemClock.now() - this.#toldAt < LATELY;
  }

  /** Whether messages were reported that the relay has not read. */
  get areExpected(): boolean {
    return this.#expected.size > 0;
  }

  /**
   * Called when a writer has committed messages with these ids. Returns whether it is known which messages are
   * expected: not if they are too many, or if the ids are missing.
   */
  told(ids: readonly string[] | undefined): boolean {
    const now = systemClock.now();
    this.#toldAt = now;
    if (ids === undefined || this.#expected.size > REMEMBERED) return false;
    for (const id of ids) {
      // If the id was read long ago, that was another message, to which its writer gave the same id.
      const isFound = now - (this.#found.get(id) ?? -Infinity) < LATELY;
      this.#found.delete(id);
      if (!isFound) this.#expected.add(id);
    }
    return true;
  }

  /** Called when messages were read. */
  found(messages: readonly { readonly id: string }[]): void {
    if (!this.areTold) {
      this.#found.clear();
      return;
    }
    const now = systemClock.now();
    for (const { id } of messages) if (!this.#expected.delete(id)) this.#found.set(id, now);
    // Most of them were reported before the poll, or never will be, because their writers are elsewhere.
    for (const id of this.#found.keys()) {
      if (this.#found.size <= REMEMBERED) break;
      this.#found.delete(id);
    }
  }

  /** Called after a poll. It found the reported messages, or they are not for this relay. */
  polled(): void {
    this.#expected.clear();
  }
}

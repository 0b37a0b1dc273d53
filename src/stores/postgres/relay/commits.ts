import { systemClock } from '../../../core/util/clock.js';

/** For how long writers are believed to tell of their commits. Milliseconds. */
const LATELY = 100;
/** Of how many messages the ids are kept, of those that were told of and not read, and the other way round. */
const REMEMBERED = 1_000;

/** What one relay was told by the writers of its process, and what it has read of that. */
export class Commits {
  /** When one was last told. */
  #toldAt = -Infinity;
  /** Messages that it was told of since it last polled, and has not read. */
  readonly #expected = new Set<string>();
  /** When it read the messages that it may still be told of: the server answers a poll sooner than the writer hears of its commit. */
  readonly #found = new Map<string, number>();

  /** Whether writers tell of their commits. */
  get areTold(): boolean {
    return systemClock.now() - this.#toldAt < LATELY;
  }

  /** Whether messages were told of that it has not read. */
  get areExpected(): boolean {
    return this.#expected.size > 0;
  }

  /** A writer has committed messages with these ids. Whether it is known which: not where they are too many, or not said. */
  told(ids: readonly string[] | undefined): boolean {
    const now = systemClock.now();
    this.#toldAt = now;
    if (ids === undefined || this.#expected.size > REMEMBERED) return false;
    for (const id of ids) {
      // Read long before it is another one, which its writer gave the same id.
      const isFound = now - (this.#found.get(id) ?? -Infinity) < LATELY;
      this.#found.delete(id);
      if (!isFound) this.#expected.add(id);
    }
    return true;
  }

  /** Messages were read. */
  found(messages: readonly { readonly id: string }[]): void {
    if (!this.areTold) {
      this.#found.clear();
      return;
    }
    const now = systemClock.now();
    for (const { id } of messages) if (!this.#expected.delete(id)) this.#found.set(id, now);
    // Most of them were told of before the poll, or never are: their writers are elsewhere.
    for (const id of this.#found.keys()) {
      if (this.#found.size <= REMEMBERED) break;
      this.#found.delete(id);
    }
  }

  /** A poll finds what was told of, or it is not for this relay. */
  polled(): void {
    this.#expected.clear();
  }
}

import { isAlone, type ToPark } from './parked.js';
import type { StoredMessage } from './rows.js';

/**
 * Messages of the log whose time had not come when they were read, and those behind one that holds its
 * key: they are not handed out, and go to the side table with the page that they were read with.
 */
export class Delays {
  /** What was read since `take`, in order. */
  #taken: ToPark[] = [];
  /** How many messages of a key were kept back, of pages that are not settled: then the side table knows of it. */
  readonly #held = new Map<string, number>();

  /** The messages that can be published now. */
  sift(messages: readonly StoredMessage[]): readonly StoredMessage[] {
    if (this.#held.size === 0 && !messages.some(({ isDelayed }) => isDelayed)) return messages;
    return messages.filter((message) => {
      const { key, isDelayed } = message;
      if (!isDelayed && (key === undefined || !this.#held.has(key))) return true;
      const kept: ToPark = { message, attempts: 0, dead: false, delayed: isDelayed };
      if (key !== undefined && !isAlone(kept)) this.#held.set(key, (this.#held.get(key) ?? 0) + 1);
      this.#taken.push(kept);
      return false;
    });
  }

  /** What was kept back since the last call. */
  take(): readonly ToPark[] {
    const taken = this.#taken;
    this.#taken = [];
    return taken;
  }

  /** From here on the side table answers for their keys. */
  settled(delayed: readonly ToPark[]): void {
    for (const each of delayed) {
      const { key } = each.message;
      if (key === undefined || isAlone(each)) continue;
      const left = (this.#held.get(key) ?? 0) - 1;
      if (left > 0) this.#held.set(key, left);
      else this.#held.delete(key);
    }
  }
}

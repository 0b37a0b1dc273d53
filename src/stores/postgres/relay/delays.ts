import { isAlone, type ToParkOrDelay } from './parked.js';
import type { StoredMessage } from '../sql/stored-message.js';

/**
 * Messages of the log whose time had not come when they were read, and those behind one that holds its
 * key: they are not handed out, and go to the side table with the page that they were read with.
 */
export class Delays {
  /** How many messages of a key were kept back, of pages that are not settled: then the side table knows of it. */
  readonly #held = new Map<string, number>();

  /** What of these messages, read in this order, can be published now, and what is kept back. */
  sift(messages: readonly StoredMessage[]): { messages: readonly StoredMessage[]; delayed: readonly ToParkOrDelay[] } {
    const delayed: ToParkOrDelay[] = [];
    if (this.#held.size === 0 && !messages.some(({ isDelayed }) => isDelayed)) return { messages, delayed };
    const ready = messages.filter((message) => {
      const { key, isDelayed } = message;
      if (!isDelayed && (key === undefined || !this.#held.has(key))) return true;
      const kept: ToParkOrDelay = { message, attempts: 0, dead: false, delayed: isDelayed };
      if (key !== undefined && !isAlone(kept)) this.#held.set(key, (this.#held.get(key) ?? 0) + 1);
      delayed.push(kept);
      return false;
    });
    return { messages: ready, delayed };
  }

  /** From here on the side table answers for their keys. */
  settled(delayed: readonly ToParkOrDelay[]): void {
    for (const each of delayed) {
      const { key } = each.message;
      if (key === undefined || each.dead || isAlone(each)) continue;
      const left = (this.#held.get(key) ?? 0) - 1;
      if (left > 0) this.#held.set(key, left);
      else this.#held.delete(key);
    }
  }
}

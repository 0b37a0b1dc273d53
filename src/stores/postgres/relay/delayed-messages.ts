import { isAlone, type ToParkOrDelay } from './parked.js';
import type { StoredMessage } from '../sql/stored-message.js';

/**
 * Messages of the log that are not due when they are read, and the messages behind one that holds its key. They are not
 * handed out, and go to the side table with the page with which they were read.
 */
export class DelayedMessages {
  /**
   * How many messages of each key were kept back from pages that are not settled. After the settlement the side table
   * knows about them.
   */
  readonly #held = new Map<string, number>();

  /** Divides these messages, read in this order, into those that can be published now and those that are kept back. */
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

  /** From now on the side table knows about their keys. */
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

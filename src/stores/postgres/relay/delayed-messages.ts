import { isAlone, type ToParkOrDelay } from './parked.js';
import type { StoredMessage } from '../sql/stored-message.js';

/**
 * Messages from the log that are not due when they are read, and the messages behind such a message if it holds its
 * key. The feed does not hand them out. They move to the side table when the page in which they were read is settled.
 */
export class DelayedMessages {
  /**
   * For each key, how many messages were kept back from unsettled pages. After the settlement, they are in the side
   * table.
   */
  readonly #held = new Map<string, number>();

  /**
   * Divides these messages, in the order in which they were read, into messages that can be published now and messages
   * that are kept back.
   */
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

  /**
   * Call this when these messages are in the side table. From then on, the side table makes later messages with their
   * keys wait.
   */
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

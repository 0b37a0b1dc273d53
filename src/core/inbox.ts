import type { StoreCallOptions } from './call.js';
import type { Message } from './message.js';

/** Makes the effect of a message happen once, however often it comes. `createInbox` of `messenger-outbox/inbox` makes one. */
export interface Inbox<Tx> {
  /**
   * Runs `work` in a transaction that also keeps that this message was handled, or not at all where it was.
   *
   * @returns whether it ran.
   */
  once(message: Message, work: (transaction: Tx) => Promise<unknown>): Promise<boolean>;
}

/** A store that keeps what consumers have received. */
export interface InboxStore<Tx> {
  /**
   * Keeps, in a transaction of the consumer's, that it has received a message. A property, so that what it does not take
   * does not compile. Waits for another transaction that
   * just does the same, and then finds it there, or not, as that one ended.
   *
   * @returns whether it is the first time.
   */
  readonly receive: (transaction: Tx, consumer: string, id: string) => Promise<boolean>;
  /** Forgets what was received longer than `expiration` milliseconds ago, by every consumer. @returns how many. */
  forgetReceived(expiration: number, options?: StoreCallOptions): Promise<number>;
}

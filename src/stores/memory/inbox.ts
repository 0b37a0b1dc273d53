import { assertConsumer, assertReceivedId, LONGEST_RETENTION, type InboxStore } from '../../core/contracts/inbox.js';
import { numberOption } from '../../core/util/options.js';
import { assertOpen, type MemoryTransaction } from './transaction.js';

/** Records in memory which messages each consumer has received. */
export class MemoryInbox implements InboxStore<MemoryTransaction> {
  readonly #now: () => number;
  /** The time at which each message was received, keyed by consumer and message id. */
  readonly #received = new Map<string, number>();
  /** The open transaction that has received each message, keyed by consumer and message id. */
  readonly #receiving = new Map<string, MemoryTransaction>();

  constructor(now: () => number) {
    this.#now = now;
  }

  async receive(transaction: MemoryTransaction, consumer: string, id: string): Promise<boolean> {
    assertConsumer(consumer);
    assertReceivedId(id);
    const key = JSON.stringify([consumer, id]);
    for (;;) {
      assertOpen(transaction);
      if (this.#received.has(key)) return false;
      const holder = this.#receiving.get(key);
      if (holder === transaction) return false;
      if (holder === undefined) break;
      await holder.ended;
    }
    this.#receiving.set(key, transaction);
    transaction.received.add(key);
    return true;
  }

  async deleteReceived(consumer: string, expiration: number): Promise<number> {
    assertConsumer(consumer);
    numberOption('expiration', expiration, expiration, { min: 0, max: LONGEST_RETENTION });
    const expired = this.#now() - expiration;
    const old = [...this.#received].filter(
      ([key, receivedAt]) => receivedAt <= expired && (JSON.parse(key) as string[])[0] === consumer,
    );
    for (const [key] of old) this.#received.delete(key);
    return Promise.resolve(old.length);
  }

  /** Keeps the records of a transaction that has committed. */
  commit({ received }: MemoryTransaction): void {
    for (const key of received) this.#received.set(key, this.#now());
  }

  /**
   * Ends the claims of a transaction that has ended. If it did not commit, other transactions can now receive its
   * messages.
   */
  end({ received }: MemoryTransaction): void {
    for (const key of received) this.#receiving.delete(key);
  }
}

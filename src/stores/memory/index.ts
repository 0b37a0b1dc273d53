/**
 * The outbox in memory: the reference that says what a store does, and a store for tests.
 *
 * @module
 */
import { MessengerError } from '../../core/errors.js';
import type { OutboxAdmin } from '../../core/contracts/admin.js';
import { assertDestination } from '../../core/contracts/admin-options.js';
import { DEFAULT_DESTINATION, type Feed, type FeedOptions } from '../../core/contracts/feed.js';
import type { InboxStore } from '../../core/contracts/inbox.js';
import type { Message } from '../../core/contracts/message.js';
import { checkFunction, checkKeys, numberOption, type KeysOf } from '../../core/util/options.js';
import type { CleanReport, FeedStore } from '../../core/contracts/store.js';
import { checkedTransform, type MessageInput, type Transform } from '../../core/outbox/transform.js';
import { memoryAdmin } from './admin.js';
import { MemoryFeed } from './feed.js';
import { MemoryInbox } from './inbox.js';
import { MemoryLog } from './log.js';
import { assertOpen, copyOf, MemoryTransaction } from './transaction.js';

export { MemoryTransaction } from './transaction.js';

/** How a `MemoryStore` is set up. */
export interface MemoryStoreOptions<Input = MessageInput> {
  /** Makes a message of what is stored. @default bytes, strings, JSON objects and ready messages */
  transform?: Transform<Input>;
  /** The store's clock, in milliseconds since 1970: for tests of what is delayed, retried or cleaned. @default Date.now */
  now?: () => number;
}

/**
 * The contract of a store, in arrays. What is stored is gone with the process. One relay at a time works on a
 * destination, until it closes its feed.
 */
export class MemoryStore<Input = MessageInput> implements FeedStore, InboxStore<MemoryTransaction> {
  /** What an operator does: destinations, parked messages, dead letters. */
  readonly admin: OutboxAdmin;
  readonly #transform: Transform<Input>;
  readonly #log: MemoryLog;
  readonly #inbox: MemoryInbox;

  constructor(options: MemoryStoreOptions<Input> = {}) {
    checkKeys(options, { transform: true, now: true } satisfies KeysOf<MemoryStoreOptions>);
    const { transform, now = () => Date.now() } = options;
    checkFunction('transform', transform);
    checkFunction('now', now);
    this.#transform = checkedTransform(transform);
    this.#log = new MemoryLog(now);
    this.#inbox = new MemoryInbox(now);
    this.admin = memoryAdmin(this.#log);
  }

  /** Runs `work` with a transaction: what it adds is stored when `work` resolves, and not when it rejects. */
  async transaction<T>(work: (transaction: MemoryTransaction) => Promise<T> | T): Promise<T> {
    const transaction = new MemoryTransaction();
    try {
      const result = await work(transaction);
      this.#log.append(transaction.added);
      this.#inbox.commit(transaction);
      return result;
    } finally {
      transaction.over = true;
      this.#inbox.end(transaction);
      transaction.end();
    }
  }

  /**
   * Stores one message, or an array, with the transaction. A destination that a message is for is made where it is not
   * there yet, as `declareDestinations` does.
   *
   * @throws MessengerError `INVALID_TRANSACTION` for a handle that is missing, unknown or over; `INVALID_MESSAGE`;
   *   `UNKNOWN_DESTINATION` for a message whose destination was forgotten.
   */
  async add(transaction: MemoryTransaction, messages: Input | readonly Input[]): Promise<readonly Message[]> {
    assertOpen(transaction);
    const inputs = (Array.isArray(messages) ? messages : [messages]) as readonly Input[];
    const stored = inputs.map((input) => {
      const message = this.#transform(input);
      this.#log.assertTaken(message);
      return copyOf(message, false);
    });
    transaction.added.push(...stored);
    return Promise.resolve(stored);
  }

  /** What a transaction has stored so far, in order. @throws as `add` does. */
  async stored(transaction: MemoryTransaction): Promise<readonly Message[]> {
    await this.add(transaction, []);
    return transaction.added.map((message) => copyOf(message, false));
  }

  /** Makes the destinations that messages are for, where they are not there yet: each publishes what is for it alone. */
  async declareDestinations(names: readonly string[]): Promise<void> {
    for (const name of names) assertDestination(name);
    for (const name of names) this.#log.declare(name);
    return Promise.resolve();
  }

  /**
   * Takes a destination for a relay, or resolves to `null` while another one holds it.
   *
   * @throws MessengerError `INVALID_OPTION`; `DESTINATION_FORGOTTEN` where no relay worked on it for longer than its
   *   `forgetAfter`.
   */
  async openFeed(options: FeedOptions): Promise<Feed | null> {
    assertDestination(options.destination);
    const destination = this.#log.destination(options.destination);
    if (destination.forgottenAt !== null) {
      throw new MessengerError(
        'DESTINATION_FORGOTTEN',
        `destination ${JSON.stringify(destination.name)} was forgotten: no relay worked on it for longer than its forgetAfter, and messages that it had not published may be gone. Remove it, with { discard: true }, and add it again`,
      );
    }
    if (destination.holder !== undefined) {
      destination.standsBy(options.relay, this.#log.now());
      return Promise.resolve(null);
    }
    return Promise.resolve((destination.holder = new MemoryFeed(this.#log, destination, options)));
  }

  /**
   * Takes a destination away from the relay that holds it, as if its lease had run out: for tests of what the relay does
   * then.
   */
  revoke(destination: string = DEFAULT_DESTINATION): void {
    this.#log.destinations.get(destination)?.holder?.lose('the lease was taken away');
  }

  /**
   * Up to `batch` messages that the destination `default` has not published, in order. One that waits for its time, for
   * another attempt or behind such a message is not listed.
   */
  async messages(batch: number): Promise<readonly Message[]> {
    numberOption('batch', batch, batch, { min: 1, max: Number.MAX_SAFE_INTEGER, integer: true });
    return Promise.resolve(this.#log.destination(DEFAULT_DESTINATION).ready(this.#log.kept, this.#log.now(), batch));
  }

  /**
   * Marks messages as published at the destination `default`, all or none.
   *
   * @throws MessengerError `UNKNOWN_MESSAGE` for one that is not stored.
   */
  async published(...messages: readonly Message[]): Promise<void> {
    const kept = new Set(this.#log.kept.map(({ message }) => message.id));
    const missing = messages.find(({ id }) => !kept.has(id));
    if (missing) {
      throw new MessengerError(
        'UNKNOWN_MESSAGE',
        `message ${missing.id} is not stored: nothing was marked as published`,
      );
    }
    // By id, all of them: a message that was stored twice is one to whoever receives it.
    const ids = new Set(messages.map(({ id }) => id));
    const destination = this.#log.destination(DEFAULT_DESTINATION);
    for (const each of this.#log.kept) if (ids.has(each.message.id)) destination.published(each);
    return Promise.resolve();
  }

  /** Deletes what every destination has published, and was stored `expiration` milliseconds ago or before. */
  async deletePublishedByExpiration(expiration: number): Promise<CleanReport> {
    numberOption('expiration', expiration, expiration, { min: 0, max: Number.MAX_SAFE_INTEGER });
    const forgotten = this.#log.forgetAbandoned();
    const rows = this.#log.clean(this.#log.now() - expiration);
    return Promise.resolve({ emptied: 0, rows, moved: 0, kept: [], forgotten });
  }

  /**
   * Records that a consumer has had the message of this id, with the transaction. Waits for the end of another one
   * that has recorded the same.
   *
   * @returns whether it is the first time. @throws as `add` does for a handle, and as an `InboxStore` does.
   */
  receive(transaction: MemoryTransaction, consumer: string, id: string): Promise<boolean> {
    return this.#inbox.receive(transaction, consumer, id);
  }

  /** Forgets what a consumer has received longer ago than `expiration` milliseconds. @returns how many. */
  forgetReceived(consumer: string, expiration: number): Promise<number> {
    return this.#inbox.forgetReceived(consumer, expiration);
  }

  /** Every message that is kept, published or not, in the order of the commits. One is published once all its destinations have. */
  all(): readonly Message[] {
    return this.#log.kept.map((kept) => copyOf(kept.message, this.#log.isPublished(kept)));
  }
}

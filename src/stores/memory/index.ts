/**
 * An outbox in memory. It is a store for tests, and the reference for the behaviour of all stores.
 *
 * @module
 */
import { MessengerError } from '../../core/errors.js';
import type { OutboxAdmin } from '../../core/contracts/admin.js';
import { assertDestination, destinationForgotten } from '../../core/contracts/admin-options.js';
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

/** The options of a `MemoryStore`. */
export interface MemoryStoreOptions<Input = MessageInput> {
  /**
   * Turns the value that the application stores into a message.
   * @default accepts bytes, strings, objects (as JSON) and complete messages
   */
  transform?: Transform<Input>;
  /**
   * The store's clock, in milliseconds since 1970. Set it in tests of messages that are delayed, retried or cleaned.
   * @default Date.now
   */
  now?: () => number;
}

/**
 * A store that keeps everything in memory. Its messages are lost when the process ends. Only one relay at a time can
 * serve a destination. Other relays wait until it closes its feed.
 */
export class MemoryStore<Input = MessageInput> implements FeedStore, InboxStore<MemoryTransaction> {
  /** Shows destinations, parked messages and dead letters to an operator, and lets the operator control them. */
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

  /**
   * Runs `work` with a transaction. The messages that `work` adds to it are stored when `work` resolves, and dropped
   * when `work` rejects.
   */
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
   * Stores one message, or an array of messages, when the transaction commits. If a message is addressed to a
   * destination that does not exist yet, the commit adds the destination, as `declareDestinations` does.
   *
   * @throws MessengerError `INVALID_TRANSACTION` if the handle is missing or unknown, or its transaction is over;
   *   `INVALID_MESSAGE` or `EMPTY_MESSAGE_PAYLOAD` for a message that cannot be stored; `UNKNOWN_DESTINATION` for a
   *   message whose destination was forgotten.
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

  /** Returns the messages that a transaction has stored so far, in order. @throws as `add` does. */
  async stored(transaction: MemoryTransaction): Promise<readonly Message[]> {
    await this.add(transaction, []);
    return transaction.added.map((message) => copyOf(message, false));
  }

  /**
   * Adds the named destinations that do not exist yet, so that messages can be addressed to them. Each of them, except
   * `default`, publishes only messages that are addressed to it.
   *
   * @throws MessengerError `INVALID_OPTION` for a name that cannot be the name of a destination.
   */
  async declareDestinations(names: readonly string[]): Promise<void> {
    for (const name of names) assertDestination(name);
    for (const name of names) this.#log.declare(name);
    return Promise.resolve();
  }

  /**
   * Takes a destination for a relay. Resolves to `null` while another relay holds the destination.
   *
   * @throws MessengerError `INVALID_OPTION`; `DESTINATION_FORGOTTEN` if the destination was forgotten, because it had
   *   been without a relay for longer than its `forgetAfter`.
   */
  async openFeed(options: FeedOptions): Promise<Feed | null> {
    assertDestination(options.destination);
    const destination = this.#log.destination(options.destination);
    const { name, topics, forgottenAt } = destination;
    if (forgottenAt !== null) {
      throw destinationForgotten(
        name,
        new Date(forgottenAt).toISOString(),
        topics ? JSON.stringify(topics) : undefined,
      );
    }
    if (destination.holder !== undefined) {
      destination.standsBy(options.relay, this.#log.now());
      return Promise.resolve(null);
    }
    return Promise.resolve((destination.holder = new MemoryFeed(this.#log, destination, options)));
  }

  /**
   * Takes a destination away from the relay that holds it, as if the relay's lease had expired. Use it to test how a
   * relay handles the loss of its lease.
   */
  revoke(destination: string = DEFAULT_DESTINATION): void {
    this.#log.destinations.get(destination)?.holder?.lose('the lease was taken away');
  }

  /**
   * Returns up to `batch` messages that the `default` destination has not published, in order. Leaves out dead letters,
   * blocked messages, messages that are not due yet, and messages that have to wait behind another message.
   */
  async messages(batch: number): Promise<readonly Message[]> {
    numberOption('batch', batch, batch, { min: 1, max: Number.MAX_SAFE_INTEGER, integer: true });
    return Promise.resolve(this.#log.destination(DEFAULT_DESTINATION).ready(this.#log.kept, this.#log.now(), batch));
  }

  /**
   * Marks messages as published by the `default` destination. If one of them is not stored, none are marked.
   *
   * @throws MessengerError `UNKNOWN_MESSAGE` if one of them is not stored.
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
    // Mark every stored message with one of the ids. A message that was stored twice is one message to its consumer.
    const ids = new Set(messages.map(({ id }) => id));
    const destination = this.#log.destination(DEFAULT_DESTINATION);
    for (const each of this.#log.kept) if (ids.has(each.message.id)) destination.published(each);
    return Promise.resolve();
  }

  /**
   * Deletes messages that were stored at least `expiration` milliseconds ago and were published by all their
   * destinations.
   */
  async deletePublishedByExpiration(expiration: number): Promise<CleanReport> {
    numberOption('expiration', expiration, expiration, { min: 0, max: Number.MAX_SAFE_INTEGER });
    const forgotten = this.#log.forgetAbandoned();
    const rows = this.#log.clean(this.#log.now() - expiration);
    return Promise.resolve({ emptied: 0, rows, moved: 0, kept: [], forgotten });
  }

  /**
   * Records, as part of the transaction, that a consumer has received the message with this id. If another open
   * transaction has recorded the same message for this consumer, the call waits until that transaction ends.
   *
   * @returns whether this is the first time that the consumer has received this message.
   * @throws MessengerError `INVALID_TRANSACTION` as `add` does; `INVALID_OPTION` if the consumer is empty or no store
   *   can keep it; `INVALID_MESSAGE` if the id is empty or no store can keep it.
   */
  receive(transaction: MemoryTransaction, consumer: string, id: string): Promise<boolean> {
    return this.#inbox.receive(transaction, consumer, id);
  }

  /**
   * Deletes the records of messages that a consumer received at least `expiration` milliseconds ago.
   *
   * @returns how many records were deleted.
   */
  deleteReceived(consumer: string, expiration: number): Promise<number> {
    return this.#inbox.deleteReceived(consumer, expiration);
  }

  /**
   * Returns all messages in the store, in commit order. A message's `published` is true once all its destinations have
   * published it.
   */
  all(): readonly Message[] {
    return this.#log.kept.map((kept) => copyOf(kept.message, this.#log.isPublished(kept)));
  }
}

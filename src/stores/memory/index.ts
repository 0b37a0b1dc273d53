/**
 * The outbox in memory: the reference that says what a store does, and a store for tests.
 *
 * @module
 */
import { MessengerError } from '../../core/errors.js';
import { assertConsumer, assertReceivedId, LONGEST_KEEP, type InboxStore } from '../../core/contracts/inbox.js';
import { assertMessage, type Message } from '../../core/contracts/message.js';
import { describe } from '../../core/util/describe.js';
import { checkKeys, numberOption, type KeysOf } from '../../core/util/options.js';
import type { Store } from '../../core/contracts/store.js';
import { defaultTransform, type MessageInput, type Transform } from '../../core/outbox/transform.js';

/** How a `MemoryStore` is set up. */
export interface MemoryStoreOptions<Input = MessageInput> {
  /** Makes a message of what is stored. @default bytes, strings, JSON objects and ready messages */
  transform?: Transform<Input>;
}

/** What a transaction has stored and not yet committed. Made by `MemoryStore.transaction`. */
export class MemoryTransaction {
  /** @internal */
  readonly added: Message[] = [];
  /** What was received, as its keys. @internal */
  readonly received = new Set<string>();
  /** @internal */
  over = false;
  /** @internal */
  end!: () => void;
  /** Resolves when it is over. @internal */
  readonly ended = new Promise<void>((resolve) => (this.end = resolve));
}

interface Kept {
  readonly message: Message;
  readonly storedAt: number;
  published: boolean;
}

/** The contract of a store, in an array. What is stored is gone with the process. Its one destination publishes everything. */
export class MemoryStore<Input = MessageInput> implements Store, InboxStore<MemoryTransaction> {
  readonly #transform: Transform<Input>;
  #kept: Kept[] = [];
  /** By key, when it was received. */
  readonly #received = new Map<string, number>();
  /** By key, the open transaction that has received it. */
  readonly #receiving = new Map<string, MemoryTransaction>();

  constructor(options: MemoryStoreOptions<Input> = {}) {
    checkKeys(options, { transform: true } satisfies KeysOf<MemoryStoreOptions>);
    this.#transform = options.transform ?? (defaultTransform as unknown as Transform<Input>);
  }

  /** Runs `work` with a transaction: what it adds is stored when `work` resolves, and not when it rejects. */
  async transaction<T>(work: (transaction: MemoryTransaction) => Promise<T> | T): Promise<T> {
    const transaction = new MemoryTransaction();
    try {
      const result = await work(transaction);
      const storedAt = performance.now();
      this.#kept.push(...transaction.added.map((message) => ({ message, storedAt, published: false })));
      for (const key of transaction.received) this.#received.set(key, storedAt);
      return result;
    } finally {
      transaction.over = true;
      for (const key of transaction.received) this.#receiving.delete(key);
      transaction.end();
    }
  }

  /**
   * Stores one message, or an array, with the transaction.
   *
   * @throws MessengerError `INVALID_TRANSACTION` for a handle that is missing, unknown or over.
   */
  async add(transaction: MemoryTransaction, messages: Input | readonly Input[]): Promise<readonly Message[]> {
    assertOpen(transaction);
    const inputs = (Array.isArray(messages) ? messages : [messages]) as readonly Input[];
    const stored = inputs.map((input) => {
      const message = this.#transform(input);
      assertMessage(message);
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

  /** Whatever a message is for, it is published by whoever relays. */
  async declareDestinations(_names: readonly string[]): Promise<void> {
    return Promise.resolve();
  }

  /** As a `Store` does. A message with `deliverAt` is not listed before that time of this process's clock. */
  async messages(batch: number): Promise<readonly Message[]> {
    numberOption('batch', batch, batch, { min: 1, max: Number.MAX_SAFE_INTEGER, integer: true });
    const now = Date.now();
    const held = new Set<string>();
    const unpublished = this.#kept.filter(({ message: { key, deliverAt, holdKey }, published }) => {
      if (published || (key !== undefined && held.has(key))) return false;
      if (deliverAt === undefined || deliverAt.getTime() <= now) return true;
      if (holdKey === true && key !== undefined) held.add(key);
      return false;
    });
    return Promise.resolve(unpublished.slice(0, batch).map(({ message }) => message));
  }

  async published(...messages: readonly Message[]): Promise<void> {
    const kept = new Set(this.#kept.map(({ message }) => message.id));
    const missing = messages.find(({ id }) => !kept.has(id));
    if (missing) {
      throw new MessengerError(
        'UNKNOWN_MESSAGE',
        `message ${missing.id} is not stored: nothing was marked as published`,
      );
    }
    // By id, all of them: a message that was stored twice is one to whoever receives it.
    const ids = new Set(messages.map(({ id }) => id));
    for (const each of this.#kept) if (ids.has(each.message.id)) each.published = true;
    return Promise.resolve();
  }

  async deletePublishedByExpiration(expiration: number): Promise<void> {
    numberOption('expiration', expiration, expiration, { min: 0, max: Number.MAX_SAFE_INTEGER });
    const expired = performance.now() - expiration;
    this.#kept = this.#kept.filter(({ published, storedAt }) => !published || storedAt > expired);
    return Promise.resolve();
  }

  /**
   * Records that a consumer has had the message of this id, with the transaction. Waits for the end of another one
   * that has recorded the same.
   *
   * @returns whether it is the first time. @throws as `add` does for a handle, and as an `InboxStore` does.
   */
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

  /** Forgets what a consumer has received longer ago than `expiration` milliseconds. @returns how many. */
  async forgetReceived(consumer: string, expiration: number): Promise<number> {
    assertConsumer(consumer);
    numberOption('expiration', expiration, expiration, { min: 0, max: LONGEST_KEEP });
    const expired = performance.now() - expiration;
    const old = [...this.#received].filter(
      ([key, receivedAt]) => receivedAt <= expired && (JSON.parse(key) as string[])[0] === consumer,
    );
    for (const [key] of old) this.#received.delete(key);
    return Promise.resolve(old.length);
  }

  /** Every message that is kept, published or not, in the order of the commits. */
  all(): readonly Message[] {
    return this.#kept.map(({ message, published }) => copyOf(message, published));
  }
}

function assertOpen(transaction: unknown): void {
  if (!(transaction instanceof MemoryTransaction)) {
    throw new MessengerError(
      'INVALID_TRANSACTION',
      `unknown transaction handle ${describe(transaction)}: pass what MemoryStore.transaction gives`,
    );
  }
  if (transaction.over) throw new MessengerError('INVALID_TRANSACTION', 'this transaction is over');
}

function copyOf(message: Message, published: boolean): Message {
  const { id, metadata, payload, at, topic, key, deliverAt, holdKey, destination } = message;
  return {
    id,
    metadata: { ...metadata },
    payload: payload.slice(),
    at: new Date(at),
    published,
    topic,
    key,
    deliverAt: deliverAt && new Date(deliverAt),
    holdKey,
    destination,
  };
}

/**
 * The outbox in memory: the reference that says what a store does, and a store for tests.
 *
 * @module
 */
import { MessengerError } from '../../core/errors.js';
import { assertMessage, describe, type Message } from '../../core/message.js';
import { checkKeys, numberOption } from '../../core/options.js';
import type { InboxStore } from '../../core/inbox.js';
import type { Store } from '../../core/store.js';
import { defaultTransform, type MessageInput, type Transform } from '../../core/transform.js';

/** How a `MemoryStore` is set up. */
export interface MemoryStoreOptions<Input = MessageInput> {
  /** Makes a message of what is stored. @default bytes, strings, JSON objects and ready messages */
  transform?: Transform<Input>;
}

/** What a transaction has stored and not yet committed. Made by `MemoryStore.transaction`. */
export class MemoryTransaction {
  /** @internal */
  readonly added: Message[] = [];
  /** What it has received, by consumer and id. @internal */
  readonly received = new Set<string>();
  /** @internal */
  over = false;
  /** Called at its end. @internal */
  end!: () => void;
  /** @internal */
  readonly ended = new Promise<void>((resolve) => {
    this.end = resolve;
  });
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
  /** When what was received was, by consumer and id. */
  readonly #received = new Map<string, number>();
  /** The transactions that are open and have received it, and their ends. */
  readonly #receiving = new Map<string, Promise<void>>();

  constructor(options: MemoryStoreOptions<Input> = {}) {
    checkKeys(options, ['transform'] satisfies (keyof MemoryStoreOptions)[]);
    this.#transform = options.transform ?? (defaultTransform as unknown as Transform<Input>);
  }

  /** Runs `work` with a transaction: what it adds is stored when `work` resolves, and not when it rejects. */
  async transaction<T>(work: (transaction: MemoryTransaction) => Promise<T> | T): Promise<T> {
    const transaction = new MemoryTransaction();
    try {
      const result = await work(transaction);
      const storedAt = performance.now();
      this.#kept.push(...transaction.added.map((message) => ({ message, storedAt, published: false })));
      for (const each of transaction.received) this.#received.set(each, storedAt);
      return result;
    } finally {
      transaction.over = true;
      for (const each of transaction.received) this.#receiving.delete(each);
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

  /** As an `InboxStore` does. */
  async receive(transaction: MemoryTransaction, consumer: string, id: string): Promise<boolean> {
    assertOpen(transaction);
    const received = JSON.stringify([consumer, id]);
    if (transaction.received.has(received)) return false;
    for (let other; (other = this.#receiving.get(received)) !== undefined;) await other;
    if (this.#received.has(received)) return false;
    this.#receiving.set(received, transaction.ended);
    transaction.received.add(received);
    return true;
  }

  async forgetReceived(expiration: number): Promise<number> {
    numberOption('expiration', expiration, expiration, { min: 0, max: Number.MAX_SAFE_INTEGER });
    const expired = performance.now() - expiration;
    const old = [...this.#received].filter(([, receivedAt]) => receivedAt <= expired);
    for (const [received] of old) this.#received.delete(received);
    return Promise.resolve(old.length);
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

import type { StoreCallOptions } from '../contracts/call-options.js';
import { drained, type DrainOptions } from '../relay/drain.js';
import { MessengerError } from '../errors.js';
import type { Message } from '../contracts/message.js';
import { describe } from '../util/describe.js';
import { DEFAULT_DESTINATION } from '../contracts/feed.js';
import type { TopicOptions } from '../relay/options.js';
import { relaySettings, type RelaySettings } from '../relay/settings.js';
import { checkKeys, DAY, hasMethods, numberOption, type KeysOf } from '../util/options.js';
import { reaching, started, type OutboxRelayOptions, type Relay } from '../relay/handle.js';
import type { Store } from '../contracts/store.js';
import {
  addressedBy,
  defineTopics,
  destinationsOf,
  messageOf,
  type PayloadOf,
  type Schemas,
  type SendOptions,
  type Topics,
} from './topics.js';

/** A store that applications write to: the handle of a transaction first. */
export interface WritableStore<Tx> extends Store {
  add(transaction: Tx, messages: Message | readonly Message[]): Promise<readonly Message[]>;
  /** Makes its tables, where it has some. */
  migrate?(options?: StoreCallOptions): Promise<unknown>;
  /** For transactions that are sent as one batch, where the store has such. */
  statement?(messages: Message | readonly Message[]): { text: string; values: string[] };
  /** What a transaction has stored so far, in order, where the store can tell. */
  stored?(transaction: Tx): Promise<readonly Message[]>;
  /** Has relays of this process look for what is new, where it keeps any. */
  wake?(): void;
  /** Makes the destinations that messages are for, where they are not there yet. Absent where it has no destinations. */
  declareDestinations?(names: readonly string[], options?: StoreCallOptions): Promise<void>;
}

/** What an outbox is made of. */
export interface OutboxOptions<Tx, S extends Schemas> {
  readonly store: WritableStore<Tx>;
  readonly topics: Topics<S>;
}

/** What an application stores its messages with. Made by `defineOutbox`. */
export interface Outbox<Tx, S extends Schemas> {
  readonly topics: Topics<S>;
  /**
   * Makes the tables of the store, or brings them to this version, and the destinations of its topics. Safe when
   * several processes do. @throws as the store's `migrate`.
   */
  migrate(options?: StoreCallOptions): Promise<void>;
  /**
   * Stores a message in a transaction of the application: it exists exactly when that commits.
   *
   * @throws MessengerError `INVALID_MESSAGE` where the payload is not what the topic's schema says: nothing was
   *   written then; `INVALID_TRANSACTION` for what is no transaction; `UNKNOWN_DESTINATION` where that of the topic is
   *   missing, `SCHEMA_MISMATCH` where the tables are; and what the database library throws.
   */
  send<Name extends keyof S & string>(
    transaction: Tx,
    topic: Name,
    payload: PayloadOf<S, Name>,
    options?: SendOptions,
  ): Promise<Message>;
  /** The same for many messages of a topic, in one statement, in their order. */
  sendAll<Name extends keyof S & string>(
    transaction: Tx,
    topic: Name,
    payloads: readonly PayloadOf<S, Name>[],
    options?: Omit<SendOptions, 'id'>,
  ): Promise<readonly Message[]>;
  /**
   * The statement that `send` would run, for transactions that are sent as one batch.
   *
   * @throws as `send` does; `UNSUPPORTED` where the store has no statements.
   */
  statement<Name extends keyof S & string>(
    topic: Name,
    payload: PayloadOf<S, Name>,
    options?: SendOptions,
  ): Promise<{ text: string; values: string[] }>;
  /**
   * What a transaction has stored so far, in order: for tests, see `messenger-outbox/testing`.
   *
   * @throws MessengerError `UNSUPPORTED` where the store cannot tell; else as `send` does for what is no transaction.
   */
  stored(transaction: Tx): Promise<readonly Message[]>;
  /**
   * Runs a transaction of the application's, and wakes the relays of this process once it has committed: for
   * libraries that do not tell of a commit. Without it a relay is notified, or looks by its interval.
   */
  transaction<T>(run: () => Promise<T>): Promise<T>;
  /**
   * Starts a relay beside the application, for one destination. Resolves when it has reached the store. It cleans:
   * published messages are deleted after seven days, or after the retention of the store's tables where that is shorter,
   * unless `cleanUp` says otherwise.
   *
   * @throws FatalError when the store cannot be reached, or its tables are not what this library works on;
   *   MessengerError `INVALID_OPTION` without a destination where every topic has one, `UNKNOWN_DESTINATION` where those
   *   of the topics are missing, and may not be made by this role.
   */
  relay(options: OutboxRelayOptions): Promise<Relay>;
  /**
   * Publishes what there is, until nothing new is left or the time is over: for a cron job or a serverless function.
   * What fails is parked, for a later one, and does not hold up the rest. Cleans at the end, with `cleanUp`, and
   * gives the lease back.
   *
   * @returns how many messages the broker acknowledged.
   * @throws PublishError at the end, where some were not; at once where the broker as a whole fails. Otherwise as
   *   `relay` does, and what the store throws.
   */
  drain(options: DrainOptions): Promise<number>;
}

/**
 * The outbox of an application: where its messages are stored, and what they are.
 *
 * @throws MessengerError `INVALID_OPTION` naming what is wrong.
 *
 * @example
 * ```ts
 * const outbox = defineOutbox({
 *   store: new PostgresStore(pool, { bridge: drizzleBridge(sql) }),
 *   topics: { 'order.created': { schema: Order, key: (order) => order.id } },
 * });
 * await db.transaction(async (tx) => {
 *   await outbox.send(tx, 'order.created', order);
 * });
 * ```
 */
export function defineOutbox<Tx, S extends Schemas>(options: OutboxOptions<Tx, S>): Outbox<Tx, S> {
  checkKeys(options, { store: true, topics: true } satisfies KeysOf<OutboxOptions<Tx, S>>);
  const { store } = options;
  if (!hasMethods(store, 'add', 'messages', 'published')) {
    throw new MessengerError('INVALID_OPTION', 'store must be a store that is written to, such as a PostgresStore');
  }
  const topics = defineTopics<S>(options.topics);
  const addressed = addressedBy(topics);
  const declare = store.declareDestinations?.bind(store);
  if (addressed.length > 0 && declare === undefined) {
    throw new MessengerError('INVALID_OPTION', 'topics have a destination, and this store has none: leave it out');
  }
  /** Has the destination of a relay made, if it is that of a topic. */
  const ready = async ({ destination }: RelaySettings): Promise<void> => {
    if (!addressed.includes(destination)) return;
    await reaching(declare?.([destination]));
  };
  const policies = policiesOf(topics);
  const settingsOf = ({ publisher, ...rest }: Omit<OutboxRelayOptions, 'signal'>): RelaySettings =>
    relaySettings(store, publisher, { ...rest, topics: policies });
  return {
    topics,
    async migrate(callOptions) {
      await store.migrate?.(callOptions);
      if (addressed.length > 0) await declare?.(addressed, callOptions);
    },
    async send(transaction, topic, payload, sendOptions) {
      const message = await messageOf(topics, topic, payload, sendOptions);
      await store.add(transaction, message);
      return message;
    },
    async sendAll(transaction, topic, payloads, sendOptions) {
      if (!Array.isArray(payloads)) {
        throw new MessengerError('INVALID_MESSAGE', `sendAll takes an array of payloads, got ${describe(payloads)}`);
      }
      if (sendOptions !== undefined && 'id' in sendOptions) {
        throw new MessengerError('INVALID_OPTION', 'sendAll takes no id: each of the messages has one of its own');
      }
      const messages: Message[] = [];
      for (const payload of payloads) messages.push(await messageOf(topics, topic, payload, sendOptions));
      return store.add(transaction, messages);
    },
    async statement(topic, payload, sendOptions) {
      if (store.statement === undefined) {
        throw new MessengerError('UNSUPPORTED', 'this store has no statements: use send with a transaction');
      }
      return store.statement(await messageOf(topics, topic, payload, sendOptions));
    },
    async stored(transaction) {
      if (store.stored === undefined) {
        throw new MessengerError('UNSUPPORTED', 'this store cannot tell what a transaction has stored');
      }
      return store.stored(transaction);
    },
    async transaction(run) {
      const result = await run();
      store.wake?.();
      return result;
    },
    async relay(options) {
      assertOptions('relay', options, topics);
      const { signal, ...rest } = options;
      const settings = settingsOf(rest);
      await ready(settings);
      return started(options.cleanUp === undefined ? { ...settings, cleanUp: 'by retention' } : settings, signal);
    },
    async drain(options) {
      assertOptions('drain', options, topics);
      const { budget: limit, signal, ...rest } = options;
      const budget = numberOption('budget', limit, 10_000, { min: 1, max: DAY });
      const settings = settingsOf(rest);
      await ready(settings);
      return drained(settings, budget, signal);
    },
  };
}

/** An application without types finds out what is missing. */
function assertOptions(call: string, options: unknown, topics: Topics): void {
  if (typeof options === 'object' && options !== null && !('topics' in options)) {
    const isTold = (options as { destination?: unknown }).destination !== undefined;
    const destinations = destinationsOf(topics);
    if (isTold || destinations.includes(DEFAULT_DESTINATION)) return;
    const names = destinations.map((name) => JSON.stringify(name)).join(', ');
    throw new MessengerError('INVALID_OPTION', `${call} needs a destination, since every topic has one: ${names}`);
  }
  const why =
    typeof options === 'object' && options !== null ? 'topics are those of the outbox' : 'a publisher is needed';
  throw new MessengerError('INVALID_OPTION', `${call} takes the options of a Messenger, with a publisher: ${why}`);
}

function policiesOf(topics: Topics): Record<string, TopicOptions> {
  return Object.fromEntries(
    Object.entries(topics).map(([name, { retry, maxParked }]) => [
      name,
      { ...(retry && { retry }), ...(maxParked !== undefined && { maxParked }) },
    ]),
  );
}

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

/** A store that applications write to. `add` and `stored` take the transaction's handle as their first argument. */
export interface WritableStore<Tx> extends Store {
  add(transaction: Tx, messages: Message | readonly Message[]): Promise<readonly Message[]>;
  /** Creates or updates the store's tables. Absent if the store has no tables. */
  migrate?(options?: StoreCallOptions): Promise<unknown>;
  /**
   * Returns the statement that `add` would run, for applications that send a transaction as one batch of statements.
   * Absent if the store does not use statements.
   */
  statement?(messages: Message | readonly Message[]): { text: string; values: string[] };
  /** Returns the messages that a transaction has stored so far, in order. Absent if the store cannot list them. */
  stored?(transaction: Tx): Promise<readonly Message[]>;
  /** Makes the store's relays in this process look for new messages. Absent if the store cannot wake its relays. */
  wake?(): void;
  /**
   * Adds the named destinations that do not exist yet, so that messages can be addressed to them. Absent if the store
   * has no destinations.
   */
  declareDestinations?(names: readonly string[], options?: StoreCallOptions): Promise<void>;
}

/** The options of `defineOutbox`. */
export interface OutboxOptions<Tx, S extends Schemas> {
  readonly store: WritableStore<Tx>;
  readonly topics: Topics<S>;
}

/** Stores an application's messages, and starts its relays. Create one with `defineOutbox`. */
export interface Outbox<Tx, S extends Schemas> {
  readonly topics: Topics<S>;
  /**
   * Creates the store's tables, or updates them to this version, and adds the topics' destinations. Several processes
   * can call this method at the same time.
   *
   * @throws as the store's `migrate` and `declareDestinations` do.
   */
  migrate(options?: StoreCallOptions): Promise<void>;
  /**
   * Stores a message in the application's transaction. The message exists only if that transaction commits.
   *
   * @throws MessengerError `INVALID_MESSAGE` if the payload does not fit the topic's schema, in which case nothing was
   *   written; `INVALID_TRANSACTION` if the handle is not an open transaction; `UNKNOWN_DESTINATION` if the topic's
   *   destination is missing; `SCHEMA_MISMATCH` if the tables are missing. Also throws the database library's own
   *   errors.
   */
  send<Name extends keyof S & string>(
    transaction: Tx,
    topic: Name,
    payload: PayloadOf<S, Name>,
    options?: SendOptions,
  ): Promise<Message>;
  /**
   * Like `send`, but for several payloads with the same topic. Stores the messages with one statement, in the order of
   * `payloads`.
   */
  sendAll<Name extends keyof S & string>(
    transaction: Tx,
    topic: Name,
    payloads: readonly PayloadOf<S, Name>[],
    options?: Omit<SendOptions, 'id'>,
  ): Promise<readonly Message[]>;
  /**
   * Returns the statement that `send` would run, for applications that send a transaction as one batch of statements.
   *
   * @throws as `send` does; MessengerError `UNSUPPORTED` if the store does not use statements.
   */
  statement<Name extends keyof S & string>(
    topic: Name,
    payload: PayloadOf<S, Name>,
    options?: SendOptions,
  ): Promise<{ text: string; values: string[] }>;
  /**
   * Returns the messages that a transaction has stored so far, in order. Use it in tests: see
   * `messenger-outbox/testing`.
   *
   * @throws MessengerError `UNSUPPORTED` if the store cannot list them; `INVALID_TRANSACTION` as `send` does.
   */
  stored(transaction: Tx): Promise<readonly Message[]>;
  /**
   * Runs the application's transaction, and wakes the relays in this process once it has committed. Use it if your
   * database library does not report commits. Otherwise, a relay notices new messages only through a notification, or
   * at its next interval.
   */
  transaction<T>(run: () => Promise<T>): Promise<T>;
  /**
   * Starts a relay for one destination, in the application's process. Resolves when the relay has reached the store.
   * The relay also cleans. Unless you set `cleanUp`, it deletes published messages after seven days, or after the
   * retention of the store's tables if that is shorter.
   *
   * @throws FatalError if the relay cannot reach the store, or cannot use its tables.
   * @throws MessengerError `INVALID_OPTION` if the relay needs a `destination`, because every topic names one;
   *   `UNKNOWN_DESTINATION` if the relay's destination is named by a topic but does not exist, and the database role is
   *   not allowed to add it.
   */
  relay(options: OutboxRelayOptions): Promise<Relay>;
  /**
   * Publishes messages until there are no new ones, or until the `budget` is used up. Use it in a cron job or a
   * serverless function. A message that fails is parked for a later drain, and does not delay the rest. During a broker
   * outage, the drain stops publishing. At the end, the drain releases its lease. If `cleanUp` is set, it then cleans.
   *
   * @returns how many messages the broker acknowledged.
   * @throws PublishError if some messages were not acknowledged. It is thrown at the end, after any cleaning. If the
   *   cleaning fails, its error is thrown instead. Also throws as `relay` does, and the store's own errors.
   */
  drain(options: DrainOptions): Promise<number>;
}

/**
 * Defines an application's outbox: the store for its messages, and their topics.
 *
 * @throws MessengerError `INVALID_OPTION` that names what is wrong.
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
    throw new MessengerError(
      'INVALID_OPTION',
      `store must be a store that messages are written to, such as a PostgresStore, got ${describe(store)}`,
    );
  }
  const topics = defineTopics<S>(options.topics);
  const addressed = addressedBy(topics);
  const declare = store.declareDestinations?.bind(store);
  if (addressed.length > 0 && declare === undefined) {
    throw new MessengerError(
      'INVALID_OPTION',
      'topics have a destination, but this store has no destinations: leave destination out of the topics',
    );
  }
  /** Adds a relay's destination, if a topic names it and it does not exist yet. */
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
        throw new MessengerError(
          'INVALID_OPTION',
          'sendAll takes no id, because each message gets its own: leave id out',
        );
      }
      const messages: Message[] = [];
      for (const payload of payloads) messages.push(await messageOf(topics, topic, payload, sendOptions));
      return store.add(transaction, messages);
    },
    async statement(topic, payload, sendOptions) {
      if (store.statement === undefined) {
        throw new MessengerError(
          'UNSUPPORTED',
          'this store cannot give a statement: call send with a transaction instead',
        );
      }
      return store.statement(await messageOf(topics, topic, payload, sendOptions));
    },
    async stored(transaction) {
      if (store.stored === undefined) {
        throw new MessengerError('UNSUPPORTED', 'this store cannot list the messages that a transaction has stored');
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

/**
 * Checks the options for a relay or a drain, so that an error tells an untyped application which options are missing.
 */
function assertOptions(call: string, options: unknown, topics: Topics): void {
  if (typeof options === 'object' && options !== null && !('topics' in options)) {
    const isTold = (options as { destination?: unknown }).destination !== undefined;
    const destinations = destinationsOf(topics);
    if (isTold || destinations.includes(DEFAULT_DESTINATION)) return;
    const names = destinations.map((name) => JSON.stringify(name)).join(', ');
    throw new MessengerError(
      'INVALID_OPTION',
      `${call} needs the destination option, because every topic has a destination: pass one of ${names}`,
    );
  }
  const why =
    typeof options === 'object' && options !== null
      ? 'leave out topics, which the outbox has'
      : `got ${describe(options)}`;
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

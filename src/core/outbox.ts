/// <reference lib="esnext.disposable" preserve="true" />
import type { StoreCallOptions } from './call.js';
import type { CircuitStatus } from './circuit.js';
import { MessengerError, PublishError, toError } from './errors.js';
import { consoleErrorLogger, safeLogger, type ErrorLogger } from './logger.js';
import type { Message, NewMessageOptions } from './message.js';
import { Messenger } from './messenger.js';
import type { MessengerOptions, TopicOptions } from './messenger-options.js';
import { checkKeys, numberOption } from './options.js';
import type { Publisher } from './publisher.js';
import { hasMethods } from './shape.js';
import type { Store } from './store.js';
import { defineTopics, messageOf, type PayloadOf, type Schemas, type Topics } from './topics.js';

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
}

/** What an outbox is made of. */
export interface OutboxOptions<Tx, S extends Schemas> {
  readonly store: WritableStore<Tx>;
  readonly topics: Topics<S>;
}

/** What can be said of one message beside its payload. */
export type SendOptions = Omit<NewMessageOptions, 'topic'>;

/** How a relay is started: as a `Messenger`, its topics as they are defined. */
export interface OutboxRelayOptions extends Omit<MessengerOptions, 'topics'> {
  readonly publisher: Publisher;
  /** Ends the relay, as `stop` does. */
  readonly signal?: AbortSignal | undefined;
}

/** How a drain is limited. */
export interface DrainOptions extends Omit<OutboxRelayOptions, 'interval'> {
  /** Begins nothing more after so many milliseconds. @default 10_000 */
  readonly budget?: number;
}

/** A relay that runs beside the application. With `await using` it ends where its scope does. */
export interface Relay extends AsyncDisposable {
  /** Settles when the relay has ended: rejects with the `FatalError` for which it could not go on, which is logged too. */
  readonly ended: Promise<void>;
  /** How publishing does, at this moment. */
  readonly circuit: CircuitStatus;
  /** Finishes what is in flight, and resolves then. @throws the `FatalError` that ended it before. */
  stop(): Promise<void>;
}

/** What an application stores its messages with. Made by `defineOutbox`. */
export interface Outbox<Tx, S extends Schemas> {
  readonly topics: Topics<S>;
  /** Makes the tables of the store, or brings them to this version. Safe when several processes do. @throws as the store's `migrate`. */
  migrate(options?: StoreCallOptions): Promise<void>;
  /**
   * Stores a message in a transaction of the application: it exists exactly when that commits.
   *
   * @throws MessengerError `INVALID_MESSAGE` where the payload is not what the topic's schema says: nothing was
   *   written then; `INVALID_TRANSACTION` for what is no transaction; and what the database library throws.
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
   * @throws MessengerError `UNSUPPORTED` where the store can not tell; else as `send` does for what is no transaction.
   */
  stored(transaction: Tx): Promise<readonly Message[]>;
  /**
   * Runs a transaction of the application's, and wakes the relays of this process once it has committed: for
   * libraries that do not tell of a commit. Without it a relay is notified, or looks by its interval.
   */
  transaction<T>(run: () => Promise<T>): Promise<T>;
  /**
   * Starts a relay beside the application. Resolves when it has reached the store.
   *
   * @throws FatalError when the store can not be reached, or its tables are not what this library works on.
   */
  relay(options: OutboxRelayOptions): Promise<Relay>;
  /**
   * Publishes what there is, until nothing new is left or the time is over: for a cron job or a serverless function.
   * What fails is set aside, for a later one, and does not hold up the rest. Cleans at the end, with `cleanUp`, and
   * gives the lease back.
   *
   * @returns how many messages the broker acknowledged.
   * @throws PublishError at the end, where some were not; at once where the broker as a whole fails.
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
  checkKeys(options, ['store', 'topics'] satisfies (keyof OutboxOptions<Tx, S>)[]);
  const { store } = options;
  if (!hasMethods(store, 'add', 'messages', 'published')) {
    throw new MessengerError('INVALID_OPTION', 'store must be a store that is written to, such as a PostgresStore');
  }
  const topics = defineTopics<S>(options.topics);
  const messengerOf = ({ publisher, ...rest }: MessengerOptions & { publisher: Publisher }) =>
    new Messenger(store, publisher, { ...rest, topics: policiesOf(topics) });
  return {
    topics,
    async migrate(callOptions) {
      await store.migrate?.(callOptions);
    },
    async send(transaction, topic, payload, sendOptions) {
      const message = await messageOf(topics, topic, payload, sendOptions);
      await store.add(transaction, message);
      return message;
    },
    async sendAll(transaction, topic, payloads, sendOptions) {
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
        throw new MessengerError('UNSUPPORTED', 'this store can not tell what a transaction has stored');
      }
      return store.stored(transaction);
    },
    async transaction(run) {
      const result = await run();
      store.wake?.();
      return result;
    },
    async relay(relayOptions) {
      assertOptions('relay', relayOptions);
      const { signal, ...rest } = relayOptions;
      const logger = safeLogger(rest.errorLogger ?? consoleErrorLogger);
      return started(messengerOf(rest), signal, logger);
    },
    async drain(drainOptions) {
      assertOptions('drain', drainOptions);
      const { budget: limit, ...rest } = drainOptions;
      const budget = numberOption('budget', limit, 10_000, { min: 1, max: 86_400_000 });
      return drained(messengerOf, rest, performance.now() + budget);
    },
  };
}

/** An application without types finds out what is missing. */
function assertOptions(call: string, options: unknown): void {
  if (typeof options === 'object' && options !== null && !('topics' in options)) return;
  const why =
    typeof options === 'object' && options !== null ? 'topics are those of the outbox' : 'a publisher is needed';
  throw new MessengerError('INVALID_OPTION', `${call} takes the options of a Messenger, with a publisher: ${why}`);
}

/** Publishes until there is nothing new, the broker as a whole fails, or the time is over; then cleans, if it is to. */
async function drained(
  messengerOf: (options: Omit<OutboxRelayOptions, 'signal'>) => Messenger,
  { signal, ...options }: OutboxRelayOptions,
  over: number,
): Promise<number> {
  const call = signal ? { signal } : {};
  const failures: PublishError[] = [];
  /** What was set aside: a store without a side table lists it again. */
  const setAside = new Set<string>();
  const seen = { total: 0, isNew: false };
  const messenger = messengerOf({
    ...options,
    onEvent: (event) => {
      if (event.type === 'claimed' && !event.retries) seen.isNew = event.messages.some(({ id }) => !setAside.has(id));
      if (event.type === 'published') seen.total += event.messages.length;
      if (event.type === 'parked' || event.type === 'dead' || event.type === 'blocked') setAside.add(event.message.id);
      options.onEvent?.(event);
    },
  });
  const wasNew = async (): Promise<boolean> => {
    seen.isNew = false;
    try {
      await messenger.publish(call);
    } catch (error) {
      if (!(error instanceof PublishError)) throw error;
      failures.push(error);
      if (error.kind === 'connection') return false;
    }
    return seen.isNew;
  };
  while ((await wasNew()) && performance.now() < over && signal?.aborted !== true);
  if (options.cleanUp !== undefined) await messenger.clean(call);
  const [first] = failures;
  if (first === undefined) return seen.total;
  throw new PublishError(`${String(seen.total)} messages were published, and some were not: ${first.message}`, {
    kind: first.kind,
    cause: new AggregateError(failures),
  });
}

function policiesOf(topics: Topics): Record<string, TopicOptions> {
  return Object.fromEntries(
    Object.entries(topics).map(([name, { retry, maxParked }]) => [
      name,
      { ...(retry && { retry }), ...(maxParked !== undefined && { maxParked }) },
    ]),
  );
}

async function started(messenger: Messenger, signal: AbortSignal | undefined, logger: ErrorLogger): Promise<Relay> {
  const controller = new AbortController();
  const onAbort = () => {
    controller.abort(signal?.reason);
  };
  if (signal?.aborted === true) onAbort();
  else signal?.addEventListener('abort', onAbort, { once: true });
  let ended!: Promise<void>;
  const reached = new Promise<void>((resolve) => {
    ended = messenger.start({ signal: controller.signal, onStarted: resolve }).finally(() => {
      signal?.removeEventListener('abort', onAbort);
    });
  });
  await Promise.race([reached, ended]);
  // Maybe nobody waits for it: that must not end the process, and somebody must know.
  ended.catch((error: unknown) => {
    logger.error(toError(error));
  });
  const stop = () => {
    controller.abort();
    return ended;
  };
  return {
    ended,
    get circuit() {
      return messenger.circuit;
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

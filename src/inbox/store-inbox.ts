import type { StoreCallOptions } from '../core/contracts/call-options.js';
import type { Clock } from '../core/util/clock.js';
import { MessengerError, toError } from '../core/errors.js';
import type { Inbox } from '../core/outbox/subscribe.js';
import { assertConsumer, assertReceivedId, LONGEST_RETENTION, type InboxStore } from '../core/contracts/inbox.js';
import { consoleErrorLogger, safeLogger, type ErrorLogger } from '../core/contracts/logger.js';
import { describe } from '../core/util/describe.js';
import { checkKeys, type KeysOf, numberOption, hasMethods } from '../core/util/options.js';

const HOUR = 3_600_000;
const WEEK = 7 * 24 * HOUR;

/** An inbox cleans automatically at most once in this many milliseconds. */
const CLEANING_PAUSE = HOUR;

/** The value that the callback of `transaction` resolves to. Pass it on, because it carries the type of the handle. */
export interface Handled<Tx> {
  readonly handle: Tx;
}

/** The options of an inbox. Durations are in milliseconds. */
export interface InboxOptions<Tx, Handle = Tx> {
  /**
   * The store that records received messages: a `PostgresStore` in the database that the handlers change, or a
   * `MemoryStore`.
   */
  readonly store: InboxStore<Handle>;
  /** The name of the consumer, such as `'billing'`. Each consumer handles a message independently of the others. */
  readonly consumer: string;
  /**
   * Runs the callback in one of the application's transactions, and resolves to the callback's result. An example is
   * `(fn) => db.transaction(fn)`. It must commit when the callback resolves, and must roll back and reject when the
   * callback rejects. A library may call the callback again. Then the last call counts. The callback must really run in
   * a transaction. If every statement commits by itself, a message counts as handled even if its handler fails.
   *
   * Even if you already have such a function, write an arrow function such as `(fn) => inTransaction(fn)`. The compiler
   * infers the type of the handle from the arrow function.
   */
  readonly transaction: (work: <T>(transaction: T) => Promise<Handled<T>>) => Promise<Handled<Tx> | undefined>;
  /**
   * How long the inbox remembers a handled message: an hour or more. The message must not be delivered again after this
   * time. So the retention must be longer than the time for which the broker and its dead-letter queues keep a message
   * (at most 14 days in SQS).
   *
   * @default 604_800_000, seven days
   */
  readonly retention?: number | undefined;
  /** Receives errors from cleaning in the background. @default the console */
  readonly errorLogger?: ErrorLogger | undefined;
}

/** An inbox that records handled messages in a store. `createInbox` creates one. */
export interface StoreInbox<Tx> extends Inbox<Tx> {
  /**
   * Deletes the records of messages that were handled longer ago than `retention`. The inbox also does this
   * automatically after a message, in the background, at most once an hour.
   *
   * @returns the number of deleted records.
   * @throws the store's errors, or the signal's reason.
   */
  clean(options?: StoreCallOptions): Promise<number>;
}

const KEYS = {
  store: true,
  consumer: true,
  transaction: true,
  retention: true,
  errorLogger: true,
} satisfies KeysOf<InboxOptions<unknown>>;

/** Creates the same inbox as `createInbox`, with a given clock. */
export function storeInbox<Tx extends Handle, Handle>(options: InboxOptions<Tx, Handle>, clock: Clock): StoreInbox<Tx> {
  const { store, consumer, transaction, retention, errorLogger } = checked(options);
  const clean: StoreInbox<Tx>['clean'] = async (callOptions) => store.deleteReceived(consumer, retention, callOptions);
  const cleanNowAndThen = atMostEvery(CLEANING_PAUSE, clock, () =>
    clean().catch((error: unknown) => {
      errorLogger.error(toError(error));
    }),
  );
  /** Handles a message in a transaction, unless it was handled before. @returns whether the handler ran. */
  async function handle(tx: unknown, id: string, work: (tx: Tx) => Promise<unknown>): Promise<boolean> {
    const isFirst = await store.receive(tx as Handle, consumer, id);
    if (!isFirst) return false;
    await work(tx as Tx);
    // If the handler caught the error of a failed statement, or rolled back itself, COMMIT rolls back, and most
    // libraries do not report this. So check again whether the record is still there.
    if (await store.receive(tx as Handle, consumer, id)) throw rolledBack();
    return true;
  }

  return {
    async once(message, work) {
      assertReceivedId((message as Partial<typeof message> | null | undefined)?.id);
      /** The outcome of the last call of the callback. */
      let last: Outcome | undefined;
      await transaction((tx) => {
        const call: Outcome = (last = {});
        const handled = handle(tx, message.id, work).then(
          (ran) => {
            call.ran = ran;
            return { handle: tx };
          },
          (error: unknown) => {
            call.failure = { error };
            throw error;
          },
        );
        // If `transaction` does not wait for this promise, `outcomeOf` reports the error. Without this line, a
        // rejection would end the process.
        handled.catch(() => undefined);
        return handled;
      });
      const ran = outcomeOf(last);
      cleanNowAndThen();
      return ran;
    },
    clean,
  };
}

/** The outcome of one call of a transaction's callback. Neither property is set while the callback runs. */
interface Outcome {
  ran?: boolean;
  failure?: { readonly error: unknown };
}

/**
 * Returns whether the work ran. @throws if the transaction resolved but the work did not, because the message must not
 * be acknowledged then.
 */
function outcomeOf(last: Outcome | undefined): boolean {
  if (last === undefined) throw notRun('resolved without calling its callback');
  if (last.failure) throw last.failure.error;
  if (last.ran === undefined) throw notRun('resolved before its callback did: it must wait for the callback');
  return last.ran;
}

function rolledBack(): MessengerError {
  return new MessengerError(
    'INVALID_TRANSACTION',
    'the inbox transaction was rolled back while the handler was running, and none of its changes were kept: let the handler reject instead',
  );
}

function notRun(what: string): MessengerError {
  return new MessengerError(
    'INVALID_TRANSACTION',
    `the inbox's transaction function ${what}. Give the inbox a function such as (fn) => db.transaction(fn)`,
  );
}

/** Returns a function that calls `run`, unless it is still running or was called less than `pause` milliseconds ago. */
function atMostEvery(pause: number, clock: Clock, run: () => Promise<unknown>): () => void {
  let next = -Infinity;
  let running = false;
  return () => {
    const now = clock.now();
    if (running || now < next) return;
    next = now + pause;
    running = true;
    void run().finally(() => {
      running = false;
    });
  };
}

function checked<Tx, Handle>(options: InboxOptions<Tx, Handle>) {
  checkKeys(options, KEYS);
  const { store, consumer, transaction, errorLogger = consoleErrorLogger } = options;
  if (!hasMethods(store, 'receive', 'deleteReceived')) {
    throw wrong('store', 'a store with receive and deleteReceived methods, such as a PostgresStore', store);
  }
  assertConsumer(consumer);
  if (typeof transaction !== 'function') {
    throw wrong('transaction', 'a function such as (fn) => db.transaction(fn)', transaction);
  }
  if (!hasMethods(errorLogger, 'error')) throw wrong('errorLogger', 'an object with an error method', errorLogger);
  const retention = numberOption('retention', options.retention, WEEK, { min: HOUR, max: LONGEST_RETENTION });
  return { store, consumer, transaction, retention, errorLogger: safeLogger(errorLogger) };
}

function wrong(option: string, wanted: string, value: unknown): MessengerError {
  return new MessengerError('INVALID_OPTION', `${option} must be ${wanted}, got ${describe(value)}`);
}

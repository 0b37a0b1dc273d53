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

/** An inbox cleans by itself at most once in this time. Milliseconds. */
const CLEANING_PAUSE = HOUR;

/** What the callback of a transaction resolves to. Pass it on: it carries the type of the handle. */
export interface Handled<Tx> {
  readonly handle: Tx;
}

/** The options of an inbox. Durations are in milliseconds. */
export interface InboxOptions<Tx, Handle = Tx> {
  /** Where received messages are recorded: a `PostgresStore` in the database of the effects, or a `MemoryStore`. */
  readonly store: InboxStore<Handle>;
  /** Whose inbox it is, such as `'billing'`. Each consumer handles the same message for itself. */
  readonly consumer: string;
  /**
   * Runs the callback in a transaction of the application, and resolves to what the callback resolved to: `(fn) =>
   * db.transaction(fn)`. It commits when the callback resolves, and rolls back and rejects when the callback rejects. A
   * library may call the callback again; the last call counts. It must be a transaction: if every statement commits by
   * itself, a message whose handler fails counts as handled.
   *
   * Write it as an arrow function even if you already have such a function, `(fn) => inTransaction(fn)`: the compiler
   * infers the type of the handle from it.
   */
  readonly transaction: (work: <T>(transaction: T) => Promise<Handled<T>>) => Promise<Handled<Tx> | undefined>;
  /**
   * How long a handled message is remembered, an hour or more. It must be longer than anything can deliver the message
   * again, which is as long as the broker keeps a message, including its dead-letter queues (at most 14 days in SQS).
   *
   * @default 604_800_000, seven days
   */
  readonly retention?: number | undefined;
  /** Gets the errors of cleaning in the background. @default the console */
  readonly errorLogger?: ErrorLogger | undefined;
}

/** An inbox that records handled messages in a store. `createInbox` makes one. */
export interface StoreInbox<Tx> extends Inbox<Tx> {
  /**
   * Forgets messages that were handled longer ago than `retention`. The inbox does this by itself in the background after a
   * message, at most once an hour.
   *
   * @returns how many were forgotten.
   * @throws what the store throws; the reason of the signal.
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

/** What `createInbox` makes, with a given clock. */
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
    // If a statement failed and was caught, or the handler rolled back, COMMIT rolls back, and most libraries do not
    // report it. So ask again whether the record is still there.
    if (await store.receive(tx as Handle, consumer, id)) throw rolledBack();
    return true;
  }

  return {
    async once(message, work) {
      assertReceivedId((message as Partial<typeof message> | null | undefined)?.id);
      /** What happened in the last call of the callback. */
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
        // Whoever does not wait for it learns of it from `outcomeOf`. Without this, a rejection would end the process.
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

/** What happened in one call of a transaction's callback. Neither property is set while it runs. */
interface Outcome {
  ran?: boolean;
  failure?: { readonly error: unknown };
}

/**
 * Whether the work ran. @throws if the transaction resolved and the work did not, because the message must not be
 * acknowledged then.
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
    'the transaction of the inbox was rolled back while the handler ran, and nothing of it is kept: let the handler reject instead',
  );
}

function notRun(what: string): MessengerError {
  return new MessengerError(
    'INVALID_TRANSACTION',
    `the function transaction of the inbox ${what}. Give the inbox a function such as (fn) => db.transaction(fn)`,
  );
}

/** Runs something when called, but only one run at a time, and not again before so many milliseconds have passed. */
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
    throw wrong('store', 'a store with the methods receive and deleteReceived, such as a PostgresStore', store);
  }
  assertConsumer(consumer);
  if (typeof transaction !== 'function') {
    throw wrong('transaction', 'a function such as (fn) => db.transaction(fn)', transaction);
  }
  if (!hasMethods(errorLogger, 'error')) throw wrong('errorLogger', 'an object with the method error', errorLogger);
  const retention = numberOption('retention', options.retention, WEEK, { min: HOUR, max: LONGEST_RETENTION });
  return { store, consumer, transaction, retention, errorLogger: safeLogger(errorLogger) };
}

function wrong(option: string, wanted: string, value: unknown): MessengerError {
  return new MessengerError('INVALID_OPTION', `${option} must be ${wanted}, got ${describe(value)}`);
}

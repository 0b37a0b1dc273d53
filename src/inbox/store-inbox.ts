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

/** How often an inbox cleans by itself, in milliseconds, at most. */
const CLEANING_PAUSE = HOUR;

/** What the callback of a transaction resolves to: to be handed on, since it has the type of the handle. */
export interface Handled<Tx> {
  readonly handle: Tx;
}

/** What an inbox is made of. Durations in milliseconds. */
export interface InboxOptions<Tx, Handle = Tx> {
  /** Where it is kept what was received: a `PostgresStore`, in the database of the effects, or a `MemoryStore`. */
  readonly store: InboxStore<Handle>;
  /** Whose inbox it is, such as `'billing'`: another consumer has the same message for itself. */
  readonly consumer: string;
  /**
   * Runs the callback in a transaction of the application, and resolves to what it resolved to: `(fn) =>
   * db.transaction(fn)`. It commits when the callback resolves, and rolls back and rejects when that rejects. A
   * library may call it again: the last call counts. It must be a transaction: through what commits every statement by
   * itself, a message whose handler fails counts as handled.
   *
   * Write it as an arrow function also where there is a function like it, `(fn) => inTransaction(fn)`: from that the
   * compiler knows the type of the handle.
   */
  readonly transaction: (work: <T>(transaction: T) => Promise<Handled<T>>) => Promise<Handled<Tx> | undefined>;
  /**
   * How long a message that was handled is remembered, an hour or more: longer than anything can deliver it again. That
   * is as long as the broker keeps a message, in its dead-letter queues too (14 days in SQS at most).
   *
   * @default 604_800_000, seven days
   */
  readonly retention?: number | undefined;
  /** Gets the errors of cleaning in the background. @default the console */
  readonly errorLogger?: ErrorLogger | undefined;
}

/** An inbox that keeps what it has handled in a store. Made by `createInbox`. */
export interface StoreInbox<Tx> extends Inbox<Tx> {
  /**
   * Forgets what was handled longer ago than `retention`. The inbox does it by itself,
   * after a message, in the background, once an hour at most.
   *
   * @returns how many. @throws what the store throws; the reason of the signal.
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

/** What `createInbox` makes, by a clock. */
export function storeInbox<Tx extends Handle, Handle>(options: InboxOptions<Tx, Handle>, clock: Clock): StoreInbox<Tx> {
  const { store, consumer, transaction, retention, errorLogger } = checked(options);
  const clean: StoreInbox<Tx>['clean'] = async (callOptions) => store.forgetReceived(consumer, retention, callOptions);
  const cleanNowAndThen = atMostEvery(CLEANING_PAUSE, clock, () =>
    clean().catch((error: unknown) => {
      errorLogger.error(toError(error));
    }),
  );
  /** Handles a message in a transaction, unless it was handled before. @returns whether it was not. */
  async function handle(tx: unknown, id: string, work: (tx: Tx) => Promise<unknown>): Promise<boolean> {
    const isFirst = await store.receive(tx as Handle, consumer, id);
    if (!isFirst) return false;
    await work(tx as Tx);
    // A statement that failed and was caught, or a rollback by the handler: COMMIT then rolls back, and most libraries
    // say nothing of it. So it is asked for again whether it is kept.
    if (await store.receive(tx as Handle, consumer, id)) throw rolledBack();
    return true;
  }

  return {
    async once(message, work) {
      assertReceivedId((message as Partial<typeof message> | null | undefined)?.id);
      /** What became of the last call of the callback. */
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
        // Whoever does not wait for it is told by `outcomeOf`, and not by the end of the process.
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

/** Of one call of a transaction's callback: neither while it runs. */
interface Outcome {
  ran?: boolean;
  failure?: { readonly error: unknown };
}

/** Whether the work ran. @throws where the transaction resolved and the work did not: nothing may be acknowledged. */
function outcomeOf(last: Outcome | undefined): boolean {
  if (last === undefined) throw notRun('resolved without having called its callback');
  if (last.failure) throw last.failure.error;
  if (last.ran === undefined) throw notRun('resolved before its callback had: it must wait for it');
  return last.ran;
}

function rolledBack(): MessengerError {
  return new MessengerError(
    'INVALID_TRANSACTION',
    'the transaction of the inbox was rolled back while the handler ran, and nothing of it is kept: have the handler reject',
  );
}

function notRun(what: string): MessengerError {
  return new MessengerError(
    'INVALID_TRANSACTION',
    `the function transaction of the inbox ${what}. Give it one such as (fn) => db.transaction(fn)`,
  );
}

/** Starts something when it is called: one at a time, and not again before so many milliseconds have passed. */
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
  if (!hasMethods(store, 'receive', 'forgetReceived')) {
    throw wrong('store', 'a store with the methods receive and forgetReceived, such as a PostgresStore', store);
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

/**
 * The consumer's side: the effect of a message happens once, however often the broker delivers it.
 *
 * @module
 */
import type { StoreCallOptions } from '../core/call.js';
import { MessengerError, toError } from '../core/errors.js';
import type { Inbox, InboxStore } from '../core/inbox.js';
import { consoleErrorLogger, safeLogger, type ErrorLogger } from '../core/logger.js';
import { describe } from '../core/message.js';
import { checkKeys, numberOption } from '../core/options.js';
import { hasMethods } from '../core/shape.js';

/** What a function that runs another one in a transaction calls that with; `never` for what is no such function. */
export type TransactionOf<Run> = Run extends (work: (transaction: infer Tx) => never) => unknown ? Tx : never;

/** How an inbox is made. Durations in milliseconds. */
export interface InboxOptions<Run> {
  /** Where it is kept what was received: a `PostgresStore` on the database that handlers write to. */
  readonly store: InboxStore<TransactionOf<Run>>;
  /** Who receives: each consumer has every message once. Not to be changed while messages are on their way. */
  readonly consumer: string;
  /**
   * Runs a function in a transaction of the database library: `db.transaction.bind(db)`, or one that says what it
   * calls it with, `(work: (tx: MyTransaction) => Promise<void>) => db.transaction().execute(work)`.
   */
  readonly transaction: Run;
  /**
   * For how long it is kept that a message was received: an hour or more, and longer than the broker keeps a message
   * and an operator may send one again. @default 30 days
   */
  readonly keep?: number;
  /** Gets the errors of forgetting; messages are handled all the same. @default standard error */
  readonly errorLogger?: ErrorLogger;
}

/** An inbox that forgets what is old. */
export interface CleanedInbox<Tx> extends Inbox<Tx> {
  /** Forgets what was received longer than `keep` ago. It does so by itself, once an hour. @returns how many. */
  clean(options?: StoreCallOptions): Promise<number>;
}

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const INBOX_KEYS = [
  'store',
  'consumer',
  'transaction',
  'keep',
  'errorLogger',
] satisfies (keyof InboxOptions<unknown>)[];

/**
 * An inbox, for the option `inbox` of `subscribe`: handlers are given its transaction, as `tx`, and what they write
 * through it is committed together with the fact that the message was received. What they do beside it, such as
 * sending a mail, can happen again.
 *
 * @throws MessengerError `INVALID_OPTION` naming what is wrong. `once` rejects with `INVALID_TRANSACTION` where
 *   `transaction` gives none, `SCHEMA_MISMATCH` where the tables are missing, and whatever the handler or the database
 *   library throws: the message is not received then.
 *
 * @example
 * ```ts
 * const inbox = createInbox({ store, consumer: 'billing', transaction: db.transaction.bind(db) });
 * await subscribe(subscriber, { name: 'billing', topics, inbox, signal, handlers: {
 *   'order.created': (order, { tx }) => tx.insert(invoices).values(invoiceFor(order)),
 * } });
 * ```
 */
export function createInbox<Run>(options: InboxOptions<Run>): CleanedInbox<TransactionOf<Run>> {
  type Tx = TransactionOf<Run>;
  checkKeys(options, INBOX_KEYS);
  const { store, consumer } = options;
  const transaction = options.transaction as Runner<Tx>;
  if (!hasMethods(store, 'receive', 'forgetReceived')) {
    throw new MessengerError(
      'INVALID_OPTION',
      `store must be one that keeps what was received, such as a PostgresStore, got ${describe(store)}`,
    );
  }
  if (typeof consumer !== 'string' || consumer === '' || consumer.includes('\u0000')) {
    throw new MessengerError('INVALID_OPTION', `consumer must be a non-empty string, got ${describe(consumer)}`);
  }
  if (typeof transaction !== 'function') {
    throw new MessengerError('INVALID_OPTION', `transaction must be a function, got ${describe(transaction)}`);
  }
  const keep = numberOption('keep', options.keep, 30 * DAY, { min: HOUR, max: 3_650 * DAY });
  const logger = safeLogger(options.errorLogger ?? consoleErrorLogger);
  const clean = (callOptions?: StoreCallOptions) => store.forgetReceived(keep, callOptions);
  let cleanedAt = -Infinity;

  function cleanIfDue(): void {
    const now = performance.now();
    if (now - cleanedAt < HOUR) return;
    cleanedAt = now;
    clean().catch((error: unknown) => {
      logger.error(toError(error));
    });
  }

  return {
    clean,
    async once({ id }, work) {
      const outcome = await outcomeOf(transaction, async (handle) => {
        const isFirst = await store.receive(handle, consumer, id);
        if (isFirst) await work(handle);
        return isFirst;
      });
      cleanIfDue();
      return outcome;
    },
  };
}

type Runner<Tx> = (work: (transaction: Tx) => Promise<void>) => PromiseLike<unknown>;

/** What `work` came to in a transaction that has committed: the last time, where a library tries it again. */
async function outcomeOf<Tx, T>(transaction: Runner<Tx>, work: (handle: Tx) => Promise<T>): Promise<T> {
  let outcome: { readonly value: T } | { readonly error: unknown } | undefined;
  await transaction(async (handle) => {
    outcome = undefined;
    try {
      outcome = { value: await work(handle) };
    } catch (error) {
      outcome = { error };
      throw error;
    }
  });
  const last = outcome as { readonly value: T } | { readonly error: unknown } | undefined;
  if (last === undefined) {
    throw new MessengerError(
      'INVALID_TRANSACTION',
      'transaction resolved before its work had ended: it must call the function that it is given, and wait for it',
    );
  }
  // It was rolled back, and the library keeps that to itself.
  if ('error' in last) throw last.error;
  return last.value;
}

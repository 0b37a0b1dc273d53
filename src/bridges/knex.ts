/**
 * Writes through the transactions of Knex: `new PostgresStore(pool, { bridge: knexBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** The part of `Knex.Transaction` that is used. A `Knex` has `raw` too, but not the rest. */
export interface KnexTransaction {
  raw(text: string): { options(options: { text: string; values: string[] }): PromiseLike<unknown> };
  isCompleted(): boolean;
  readonly executionPromise: PromiseLike<unknown>;
  readonly parentTransaction?: KnexTransaction | undefined;
}

/**
 * Accepts the `trx` of `knex.transaction`, also a nested one, and what a `transactionProvider` returns, of Knex's own
 * clients for PostgreSQL. A client of somebody else that does not pass on `options` rejects the statement; use a
 * function as the handle there. The commit of the outermost transaction wakes the relays of this process.
 */
export function knexBridge(): TransactionBridge<KnexTransaction> {
  return {
    handleName: 'the trx of Knex’s knex.transaction',
    isHandle: (handle) =>
      typeof handle === 'function' && hasMethods(handle, 'raw', 'transaction', 'transactionProvider'),
    refusalOf(transaction) {
      if (!hasMethods(transaction, 'isCompleted')) {
        return 'a knex instance commits every query by itself: pass the trx that knex.transaction gives you';
      }
      return transaction.isCompleted()
        ? 'this Knex transaction has ended: store before it commits or rolls back'
        : undefined;
    },
    // Through `options`, which Knex passes to `pg` unchanged. As bindings, a `?` in the text would have to be escaped,
    // which is impossible after a backslash, and the message of every error would contain the payloads.
    execute: (transaction, text, values) => transaction.raw(text).options({ text, values: [...values] }),
    onCommit(transaction, callback) {
      // A nested transaction is fulfilled once its savepoint is released, which is not a commit.
      let outermost = transaction;
      while (outermost.parentTransaction) outermost = outermost.parentTransaction;
      // It is also fulfilled after a rollback without a reason. The application sees a rejection too, and handles it.
      outermost.executionPromise.then(callback, () => undefined);
    },
  };
}

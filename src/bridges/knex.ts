/**
 * Writes through the transactions of Knex: `new PostgresStore(pool, { bridge: knexBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** The part of `Knex.Transaction` that the bridge uses. A `Knex` has `raw` too, but not the rest. */
export interface KnexTransaction {
  raw(text: string): { options(options: { text: string; values: string[] }): PromiseLike<unknown> };
  isCompleted(): boolean;
  readonly executionPromise: PromiseLike<unknown>;
  readonly parentTransaction?: KnexTransaction | undefined;
}

/**
 * Accepts the `trx` from `knex.transaction`, nested or not, and the transaction that a `transactionProvider` returns,
 * with Knex's own clients for PostgreSQL. A third-party client that does not pass on `options` rejects the statement.
 * With such a client, use a function as the handle. The commit of the outermost transaction wakes the relays in this
 * process.
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
    // Use `options`, which Knex passes to `pg` unchanged. With bindings, a `?` in the SQL would have to be escaped,
    // which is impossible after a backslash, and every error message would contain the payloads.
    execute: (transaction, text, values) => transaction.raw(text).options({ text, values: [...values] }),
    onCommit(transaction, callback) {
      // The promise of a nested transaction is fulfilled once its savepoint is released, which is not a commit.
      let outermost = transaction;
      while (outermost.parentTransaction) outermost = outermost.parentTransaction;
      // The promise is also fulfilled after a rollback without a reason. If it rejects, the application sees the
      // rejection too, and handles it.
      outermost.executionPromise.then(callback, () => undefined);
    },
  };
}

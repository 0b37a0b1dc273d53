/**
 * Writes through the transactions of Knex: `new PostgresStore(pool, { bridge: knexBridge() })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** The slice of `Knex.Transaction` that is used: what a `Knex` has not, but for `raw`. */
export interface KnexTransaction {
  raw(text: string): { options(options: { text: string; values: string[] }): PromiseLike<unknown> };
  isCompleted(): boolean;
  readonly executionPromise: PromiseLike<unknown>;
  readonly parentTransaction?: KnexTransaction | undefined;
}

/**
 * Takes the `trx` of `knex.transaction`, also a nested one, and what a `transactionProvider` gives, of Knex's own
 * clients for PostgreSQL. A client of someone else that does not pass `options` on rejects the statement: there, a
 * function is the handle. Relays of this process are woken by the commit of the outermost transaction.
 */
export function knexBridge(): TransactionBridge<KnexTransaction> {
  return {
    handleName: 'the trx of Knex’s knex.transaction',
    isHandle: (handle) =>
      typeof handle === 'function' && hasMethods(handle, 'raw', 'transaction', 'transactionProvider'),
    refusalOf(transaction) {
      if (!hasMethods(transaction, 'isCompleted')) {
        return 'a knex instance commits every query by itself: pass the trx that knex.transaction gives';
      }
      return transaction.isCompleted() ? 'this Knex transaction is over' : undefined;
    },
    // By `options`, which Knex hands to `pg` as they are. As bindings, a `?` in the text would have to be escaped,
    // which is not possible after a backslash, and the message of every error would have the payloads in it.
    execute: (transaction, text, values) => transaction.raw(text).options({ text, values: [...values] }),
    onCommit(transaction, callback) {
      // A nested one is fulfilled once its savepoint is released, which is no commit.
      let outermost = transaction;
      while (outermost.parentTransaction) outermost = outermost.parentTransaction;
      // Fulfilled after a rollback without a reason as well. A rejection is the application's, which has it too.
      outermost.executionPromise.then(callback, () => undefined);
    },
  };
}

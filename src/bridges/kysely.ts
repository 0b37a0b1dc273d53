/**
 * Writes through the transactions of Kysely: `new PostgresStore(pool, { bridge: kyselyBridge(CompiledQuery) })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** Kysely's `CompiledQuery`, as far as it is used. */
export interface KyselyCompiledQuery {
  raw(text: string, values: unknown[]): unknown;
}

/** The slice of Kysely's `Transaction` that is used. A `Kysely` has it too, but is none: `isTransaction` tells. */
export interface KyselyTransaction {
  readonly isTransaction: true;
  executeQuery(query: never): PromiseLike<unknown>;
}

/** What a transaction of `db.startTransaction` tells of itself, and one of `db.transaction` does not. */
interface Controlled {
  readonly isCommitted?: boolean;
  readonly isRolledBack?: boolean;
}

/**
 * Takes the `trx` of `db.transaction().execute`, or of `db.startTransaction().execute`, after its savepoints as well.
 *
 * Kysely does not tell of a commit: relays are woken by notifications, or look by their interval. That a
 * transaction is over is seen on a controlled one. On the other kind Kysely 0.28.18 refuses the query by itself, and the
 * server refuses what an older one sends outside of any transaction.
 *
 * @param compiled what `kysely` exports as `CompiledQuery`. Its queries are sent as they are: no plugin changes them.
 */
export function kyselyBridge(compiled: KyselyCompiledQuery): TransactionBridge<KyselyTransaction> {
  return {
    handleName: 'the trx of Kysely’s db.transaction().execute or db.startTransaction().execute',
    hasHandlePerTransaction: true,
    isHandle: (handle) => hasMethods(handle, 'executeQuery', 'selectFrom', 'withSchema'),
    refusalOf(transaction) {
      if (!(transaction as { isTransaction?: boolean }).isTransaction) {
        return 'a Kysely db commits every query by itself: pass the trx that db.transaction().execute gives';
      }
      const { isCommitted, isRolledBack } = transaction as Controlled;
      return isCommitted || isRolledBack ? 'this Kysely transaction is over' : undefined;
    },
    // A copy, because Kysely freezes the values that it is given.
    execute: (transaction, text, values) => transaction.executeQuery(compiled.raw(text, [...values]) as never),
  };
}

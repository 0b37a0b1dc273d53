/**
 * Writes through the transactions of Kysely: `new PostgresStore(pool, { bridge: kyselyBridge(CompiledQuery) })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** The part of Kysely's `CompiledQuery` that is used. */
export interface KyselyCompiledQuery {
  raw(text: string, values: unknown[]): unknown;
}

/** The part of Kysely's `Transaction` that is used. A `Kysely` has it too; `isTransaction` tells the two apart. */
export interface KyselyTransaction {
  readonly isTransaction: true;
  executeQuery(query: never): PromiseLike<unknown>;
}

/** What a transaction of `db.startTransaction` tells about itself, but one of `db.transaction` does not. */
interface Controlled {
  readonly isCommitted?: boolean;
  readonly isRolledBack?: boolean;
}

/**
 * Accepts the `trx` of `db.transaction().execute` or of `db.startTransaction().execute`, also after its savepoints.
 *
 * Kysely does not tell of a commit, so relays are woken by notifications, or look at their interval. The bridge
 * recognises that a controlled transaction has ended. For the other kind, Kysely 0.28.18 refuses the query itself, and
 * the server refuses what an older Kysely sends outside a transaction.
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
        return 'a Kysely db commits every query by itself: pass the trx that db.transaction().execute gives you';
      }
      const { isCommitted, isRolledBack } = transaction as Controlled;
      return isCommitted || isRolledBack
        ? 'this Kysely transaction has ended: store before it commits or rolls back'
        : undefined;
    },
    // A copy, because Kysely freezes the values that it is given.
    execute: (transaction, text, values) => transaction.executeQuery(compiled.raw(text, [...values]) as never),
  };
}

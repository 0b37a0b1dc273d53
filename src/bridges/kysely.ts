/**
 * Writes through the transactions of Kysely: `new PostgresStore(pool, { bridge: kyselyBridge(CompiledQuery) })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { hasMethods } from '../core/util/options.js';

/** The part of Kysely's `CompiledQuery` that the bridge uses. */
export interface KyselyCompiledQuery {
  raw(text: string, values: unknown[]): unknown;
}

/**
 * The part of Kysely's `Transaction` that the bridge uses. A `Kysely` has the same members, and `isTransaction`
 * distinguishes the two.
 */
export interface KyselyTransaction {
  readonly isTransaction: true;
  executeQuery(query: never): PromiseLike<unknown>;
}

/**
 * The state that a transaction from `db.startTransaction` reports, and a transaction from `db.transaction` does not.
 */
interface Controlled {
  readonly isCommitted?: boolean;
  readonly isRolledBack?: boolean;
}

/**
 * Accepts the `trx` from `db.transaction().execute` or `db.startTransaction().execute`, also after its savepoints.
 *
 * Kysely does not report commits, so notifications wake the relays, or the relays poll at their interval. The bridge
 * recognises that a transaction from `db.startTransaction` has ended. For a transaction from `db.transaction`, Kysely
 * 0.28.18 rejects the query itself. If an older Kysely sends the query outside a transaction, the server rejects it.
 *
 * @param compiled the `CompiledQuery` that `kysely` exports. No plugin changes its queries.
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
    // Pass a copy, because Kysely freezes the values that it is given.
    execute: (transaction, text, values) => transaction.executeQuery(compiled.raw(text, [...values]) as never),
  };
}

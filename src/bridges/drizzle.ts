/**
 * Writes through the transactions of Drizzle: `new PostgresStore(pool, { bridge: drizzleBridge(sql) })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { splitAtPlaces } from './_shared/placeholders.js';
import { hasMethods } from '../core/util/options.js';

/** Drizzle's `sql`, as far as it is used: as a template's tag. */
export type DrizzleSql = (strings: TemplateStringsArray, ...values: string[]) => unknown;

/** The slice of Drizzle's transaction that is used: what `db` has not, but for `rollback`. */
export interface DrizzleTransaction {
  execute(query: never): PromiseLike<unknown>;
  rollback(): never;
}

/** What drivers that keep a `pg` client hold it as. */
interface WithClient {
  readonly _?: { readonly session?: { readonly client?: { getTransactionStatus?(): string | null } } };
}

/**
 * Takes the `tx` of `db.transaction`, also a nested one, of any PostgreSQL driver of Drizzle 0.29 or newer.
 *
 * Drizzle does not tell of a commit: relays are woken by notifications, or look by their interval. A `tx` whose
 * transaction is over is refused by the server; but one that is used for the first time then, while its connection is
 * in another transaction, writes into that.
 *
 * @param sql what `drizzle-orm` exports under that name.
 */
export function drizzleBridge(sql: DrizzleSql): TransactionBridge<DrizzleTransaction> {
  return {
    handleName: 'the tx of Drizzle’s db.transaction',
    hasHandlePerTransaction: true,
    isHandle: (handle) => hasMethods(handle, 'execute', 'select', 'transaction'),
    refusalOf(transaction) {
      if (!hasMethods(transaction, 'rollback')) {
        return 'a Drizzle db commits every query by itself: pass the tx that db.transaction gives';
      }
      const client = (transaction as WithClient)._?.session?.client;
      return client?.getTransactionStatus?.() === 'I' ? 'this Drizzle transaction is over' : undefined;
    },
    execute: (transaction, text, values) => transaction.execute(tagged(sql, text, values) as never),
  };
}

/** A statement with `$1`, `$2` … as the template that has its values there. */
function tagged(sql: DrizzleSql, text: string, values: readonly string[]): unknown {
  const { strings, places } = splitAtPlaces(text, values);
  return sql(Object.assign(strings, { raw: strings }), ...places);
}

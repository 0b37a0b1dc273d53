/**
 * Writes through the transactions of Drizzle: `new PostgresStore(pool, { bridge: drizzleBridge(sql) })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { splitAtPlaces } from './_shared/placeholders.js';
import { hasMethods } from '../core/util/options.js';

/** The part of Drizzle's `sql` that is used: as a template tag. */
export type DrizzleSql = (strings: TemplateStringsArray, ...values: string[]) => unknown;

/** The part of Drizzle's transaction that is used. `db` has `execute` too, but not `rollback`. */
export interface DrizzleTransaction {
  execute(query: never): PromiseLike<unknown>;
  rollback(): never;
}

/** Where drivers with a `pg` client keep it. */
interface WithClient {
  readonly _?: { readonly session?: { readonly client?: { getTransactionStatus?(): string | null } } };
}

/**
 * Accepts the `tx` of `db.transaction`, also a nested one, of any PostgreSQL driver of Drizzle 0.29 or newer.
 *
 * Drizzle does not tell of a commit, so relays are woken by notifications, or look at their interval. The server
 * refuses a `tx` whose transaction has ended. But if such a `tx` is used for the first time then, and its connection is
 * already in another transaction, it writes into that one.
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
        return 'a Drizzle db commits every query by itself: pass the tx that db.transaction gives you';
      }
      const client = (transaction as WithClient)._?.session?.client;
      return client?.getTransactionStatus?.() === 'I'
        ? 'this Drizzle transaction has ended: store before the callback of db.transaction returns'
        : undefined;
    },
    execute: (transaction, text, values) => transaction.execute(tagged(sql, text, values) as never),
  };
}

/** A statement with `$1`, `$2` … as a template that has its values in their places. */
function tagged(sql: DrizzleSql, text: string, values: readonly string[]): unknown {
  const { strings, places } = splitAtPlaces(text, values);
  return sql(Object.assign(strings, { raw: strings }), ...places);
}

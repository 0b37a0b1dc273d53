/**
 * Writes through the transactions of Drizzle: `new PostgresStore(pool, { bridge: drizzleBridge(sql) })`.
 *
 * @module
 */
import type { TransactionBridge } from '../core/contracts/bridge.js';
import { splitAtPlaces } from './_shared/placeholders.js';
import { hasMethods } from '../core/util/options.js';

/** The part of Drizzle's `sql` that the bridge uses: the template tag. */
export type DrizzleSql = (strings: TemplateStringsArray, ...values: string[]) => unknown;

/** The part of Drizzle's transaction that the bridge uses. `db` has `execute` too, but not `rollback`. */
export interface DrizzleTransaction {
  execute(query: never): PromiseLike<unknown>;
  rollback(): never;
}

/** The place where Drizzle's drivers keep a `pg` client. */
interface WithClient {
  readonly _?: { readonly session?: { readonly client?: { getTransactionStatus?(): string | null } } };
}

/**
 * Accepts the `tx` from `db.transaction`, nested or not, with any PostgreSQL driver in Drizzle 0.29 or newer.
 *
 * Drizzle does not report commits, so notifications wake the relays, or the relays poll at their interval. The server
 * rejects a `tx` whose transaction has ended. There is one exception. If a `tx` is first used after its transaction has
 * ended, and its connection is already in another transaction, the message is stored in that transaction.
 *
 * @param sql the `sql` that `drizzle-orm` exports.
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

/** Turns a statement with `$1`, `$2` … into a template with the values in place of the placeholders. */
function tagged(sql: DrizzleSql, text: string, values: readonly string[]): unknown {
  const { strings, places } = splitAtPlaces(text, values);
  return sql(Object.assign(strings, { raw: strings }), ...places);
}

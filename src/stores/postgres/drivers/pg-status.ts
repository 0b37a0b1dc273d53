import { hasMethods } from '../../../core/util/options.js';
import type { Bound } from './driver.js';

/** `I` idle, `T` in a transaction, `E` in a failed transaction, `null` not connected. */
type Status = string | null;

/** The part of a `pg` Client that reports the state of its transaction. */
export interface PgTelling {
  /** Since pg 8.17. */
  getTransactionStatus?(): Status;
}

/**
 * The connection inside a client that has no `getTransactionStatus` method. The `readyForQuery` event carries the
 * status. `pg-native` has no such connection.
 */
interface Protocol {
  prependListener(event: 'readyForQuery', listener: (message: { readonly status: Status }) => void): unknown;
}

/**
 * The transaction status of clients that do not report it themselves: `pg` before 8.17, and Neon's clients. The map is
 * keyed by connection, because the connection stays the same if a client is wrapped.
 */
const heard = new WeakMap<object, Status | undefined>();

/** Starts to record the transaction status of a client that does not report it itself. */
export function hearStatus(client: PgTelling, now?: Status): void {
  const { connection } = client as { connection?: Protocol };
  if (hasMethods(client, 'getTransactionStatus') || !connection || heard.has(connection)) return;
  const hears = hasMethods(connection, 'prependListener');
  heard.set(connection, hears ? now : undefined);
  // This listener must run before the client's own listener, which reports that the client is idle.
  if (hears) connection.prependListener('readyForQuery', ({ status }) => heard.set(connection, status));
}

/**
 * Whether a client has no open transaction, and has sent nothing that could open one. If this returns false, only the
 * server knows whether a transaction is open.
 */
export function isIdle(client: PgTelling): boolean {
  const { readyForQuery, pipeline } = client as { readyForQuery?: unknown; pipeline?: unknown };
  return transactionStatus(client) === 'I' && readyForQuery === true && pipeline !== true;
}

/**
 * The part of a `pg` Client that shows which query it is sending, since pg 8.17. The query is null in pipeline mode.
 */
interface Sending {
  readonly _activeQuery: { readonly values?: readonly unknown[] } | null;
}

/**
 * Returns a value that a client binds as null if the client is in a transaction when it sends the value, and as an
 * empty string otherwise. The client calls `toPostgres` when it sends the value. At that moment, no query is in flight
 * that could end the transaction. If another client sends the value, it is bound as an empty string, because that
 * client may not be in a transaction.
 */
export function knownTransaction(client: PgTelling): Bound {
  if (!('_activeQuery' in client)) return '';
  const value = {
    toPostgres() {
      const isSender = (client as Sending)._activeQuery?.values?.includes(value) === true;
      return isSender && transactionStatus(client) === 'T' ? null : '';
    },
  };
  return value;
}

/** Returns the transaction status of a client, or `undefined` if it is unknown. */
export function transactionStatus(client: PgTelling): Status | undefined {
  if (client.getTransactionStatus) return client.getTransactionStatus();
  hearStatus(client);
  const { connection } = client as { connection?: object };
  return connection && heard.get(connection);
}

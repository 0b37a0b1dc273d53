import { hasMethods } from '../../../core/util/options.js';
import type { Bound } from './driver.js';

/** `I` idle, `T` in a transaction, `E` in a failed one, `null` not connected. */
type Status = string | null;

/** What of a `pg` Client tells how its transaction stands. */
export interface PgTelling {
  /** Since pg 8.17. */
  getTransactionStatus?(): Status;
}

/** What clients without that say it with to themselves; `pg-native` has none. */
interface Protocol {
  prependListener(event: 'readyForQuery', listener: (message: { readonly status: Status }) => void): unknown;
}

/**
 * How the transaction of a client stands that does not tell by itself: older than pg 8.17, or Neon's. By its
 * connection, which is one however a client is wrapped.
 */
const heard = new WeakMap<object, Status | undefined>();

/** Hears from now on how a client's transaction stands, where it does not tell by itself. */
export function hearStatus(client: PgTelling, now?: Status): void {
  const { connection } = client as { connection?: Protocol };
  if (hasMethods(client, 'getTransactionStatus') || !connection || heard.has(connection)) return;
  const hears = hasMethods(connection, 'prependListener');
  heard.set(connection, hears ? now : undefined);
  // Before the client's own listener, which tells others that it is idle.
  if (hears) connection.prependListener('readyForQuery', ({ status }) => heard.set(connection, status));
}

/**
 * Whether nothing is open on a client, and nothing is on its way that could open something. Anything else has to be found
 * out by the server.
 */
export function isIdle(client: PgTelling): boolean {
  const { readyForQuery, pipeline } = client as { readyForQuery?: unknown; pipeline?: unknown };
  return transactionStatus(client) === 'I' && readyForQuery === true && pipeline !== true;
}

/** What of a `pg` Client, since 8.17, tells which query it sends. It is null in pipeline mode. */
interface Sending {
  readonly _activeQuery: { readonly values?: readonly unknown[] } | null;
}

/**
 * A value that a client binds as null where it is in a transaction as it sends the value, and else as an empty text. The
 * client asks for it right then, when no query is on its way that could end the transaction. It must be this client that
 * sends the value: another one may not be in a transaction.
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

/** How a client's transaction stands; `undefined` where nobody has heard. */
export function transactionStatus(client: PgTelling): Status | undefined {
  if (client.getTransactionStatus) return client.getTransactionStatus();
  hearStatus(client);
  const { connection } = client as { connection?: object };
  return connection && heard.get(connection);
}

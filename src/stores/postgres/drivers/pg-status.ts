import { hasMethods } from '../../../core/util/options.js';

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

/** How a client's transaction stands; `undefined` where nobody has heard. */
export function transactionStatus(client: PgTelling): Status | undefined {
  if (client.getTransactionStatus) return client.getTransactionStatus();
  hearStatus(client);
  const { connection } = client as { connection?: object };
  return connection && heard.get(connection);
}

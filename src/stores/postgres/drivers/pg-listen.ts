import { MessengerError } from '../../../core/errors.js';
import { serially } from '../../../core/util/async.js';
import { LeftOpenError, type Listen } from './driver.js';
import { transactionStatus, type PgTelling } from './pg-status.js';

/** The slice of `pg`'s PoolClient that is used for listening. */
interface PgListening {
  query(query: { text: string; rowMode: 'array' }): Promise<{ rows: unknown[][] }>;
  release(destroy?: boolean): void;
}

/** What of a `pg` Client is used beyond what every store needs. */
interface PgEvents {
  on(event: 'notification', listener: (notification: { channel: string; payload?: string }) => void): unknown;
  on(event: 'error' | 'end' | 'drain', listener: () => void): unknown;
  /** The backend, as the server has told when the connection was made. */
  readonly processID?: number | null;
}

/**
 * A connection of the pool, taken for good: it is destroyed afterwards, with all that its session holds.
 *
 * A pooler is found out by the backend that it names, which is not the one that answers. In transaction
 * mode it would keep our locks with a connection that is everybody's.
 */
export function pgListen(pool: { connect(): Promise<PgListening> }): Listen {
  return async ({ onNotification, onEnd }) => {
    const client = await pool.connect();
    const events = client as PgListening & PgEvents;
    let open = true;
    const close = () => {
      if (open) client.release(true);
      open = false;
    };
    const ended = () => {
      if (!open) return;
      close();
      onEnd();
    };
    events.on('error', ended);
    events.on('end', ended);
    events.on('notification', ({ channel, payload = '' }) => {
      onNotification(channel, payload);
    });
    const oneAtATime = serially();
    const query = (text: string) => oneAtATime(async () => (await client.query({ text, rowMode: 'array' })).rows);
    try {
      transactionStatus(client as PgTelling);
      const [backend] = await query('SELECT pg_backend_pid()');
      // There, LISTEN would hear nothing, and what is open would stay so.
      if (['T', 'E'].includes(String(transactionStatus(client as PgTelling)))) throw new LeftOpenError();
      const { processID = null } = events;
      if (processID !== null && String(processID) !== String(backend?.[0])) {
        throw new MessengerError(
          'UNSUPPORTED',
          'this connection leads to a pooler, not to the server itself: give the store an option `listen` with a pg Pool that does not, or `listen: false`',
        );
      }
    } catch (error) {
      close();
      throw error;
    }
    return { query, close };
  };
}

/** Whether one connection of a pool can be taken for good, and two are left. */
export function hasRoom(pool: unknown): boolean {
  const { options } = pool as { options?: { max?: number } };
  return options?.max === undefined || options.max > 2;
}

/** The slice of a `pg` Client that tells of its transaction. */
interface PgTransaction extends PgTelling {
  query(text: string): Promise<unknown>;
}

/** Who waits for the end of a client's transaction. */
const waiting = new WeakMap<PgTransaction, Set<() => void>>();

/** How many different callbacks are kept for one client: those that come on top are the one that is for many. */
const CALLBACKS = 100;

/**
 * Calls back when the transaction of a client is over, whichever way; where many wait for it, `forMany` in their place.
 * `drain` is emitted when there is nothing left to send, so a client that is given its next BEGIN at once is heard one
 * transaction later.
 */
export function onPgTransactionEnd(client: PgTransaction, callback: () => void, forMany: () => void): void {
  if (transactionStatus(client) === undefined) return;
  const callbacks = waiting.get(client) ?? new Set();
  callbacks.add(callbacks.size < CALLBACKS ? callback : forMany);
  if (waiting.has(client)) return;
  waiting.set(client, callbacks);
  (client as PgTransaction & PgEvents).on('drain', () => {
    if (callbacks.size === 0 || transactionStatus(client) !== 'I') return;
    const told = [...callbacks];
    callbacks.clear();
    for (const each of told) each();
  });
}

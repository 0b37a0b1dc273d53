import { MessengerError } from '../../../core/errors.js';
import { serially } from '../../../core/util/async.js';
import { LeftOpenError, type Listen } from './driver.js';
import { transactionStatus, type PgTelling } from './pg-status.js';

/** The part of `pg`'s PoolClient that is used for listening. */
interface PgListening {
  query(query: { text: string; rowMode: 'array' }): Promise<{ rows: unknown[][] }>;
  release(destroy?: boolean): void;
}

/** The additional part of a `pg` Client that listening needs. */
interface PgEvents {
  on(event: 'notification', listener: (notification: { channel: string; payload?: string }) => void): unknown;
  on(event: 'error' | 'end' | 'drain', listener: () => void): unknown;
  /** The id of the backend process, as the server reported it when the client connected. */
  readonly processID?: number | null;
}

/**
 * Takes a connection from the pool permanently. When the session is closed, the connection is destroyed, which releases
 * the session's locks.
 *
 * Detects a pooler by comparing backends. Behind a pooler, the backend that was reported at connection differs from the
 * backend that answers a query. A pooler in transaction mode would leave our locks on a server connection that other
 * clients share.
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
      // In an open transaction, LISTEN would receive nothing, and the transaction would stay open.
      if (['T', 'E'].includes(String(transactionStatus(client as PgTelling)))) throw new LeftOpenError();
      const { processID = null } = events;
      if (processID !== null && String(processID) !== String(backend?.[0])) {
        throw new MessengerError(
          'UNSUPPORTED',
          "this connection leads to a pooler, not to the server itself: set the store's `listen` option to a pg Pool that connects to the server, or to `false`",
        );
      }
    } catch (error) {
      close();
      throw error;
    }
    return { query, close };
  };
}

/** Whether one connection can be taken from a pool permanently, so that at least two are left. */
export function hasRoom(pool: unknown): boolean {
  const { options } = pool as { options?: { max?: number } };
  return options?.max === undefined || options.max > 2;
}

/** The part of a `pg` Client that reports the state of its transaction. */
interface PgTransaction extends PgTelling {
  query(text: string): Promise<unknown>;
}

/** The callbacks that are waiting for the end of each client's transaction. */
const waiting = new WeakMap<PgTransaction, Set<() => void>>();

/** The largest number of callbacks that are kept for one client. `forMany` replaces any further callbacks. */
const CALLBACKS = 100;

/**
 * Calls back when a client's transaction has been committed or rolled back. If many callbacks are waiting, `forMany`
 * replaces the later ones. The callbacks run when the client emits `drain`, because it has nothing left to send. If the
 * next BEGIN is already queued, they run one transaction later.
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

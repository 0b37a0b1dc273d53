import { MessengerError } from '../../../core/errors.js';
import { serially } from '../../../core/util/async.js';
import { bounded, type Database, type TransactionBounds } from '../sql/database.js';
import { endsConnection, LeftOpenError, MOST_LEFT_OPEN, type Driver } from './driver.js';
import { isClient, isPool, listen, type PgClient, type PgPool, type PgPoolClient } from './pg-client.js';
import { onPgTransactionEnd, pgListen } from './pg-listen.js';
import { hearStatus, knownTransaction, transactionStatus } from './pg-status.js';
import { Transactions } from './pg-transactions.js';

/**
 * The type parsers for queries on the application's own client. Our statement returns one string, in text or binary
 * format.
 */
const texts = { getTypeParser: () => (value: unknown) => String(value) };

function poolDatabase(pool: PgPool): Database {
  const transactions = new Transactions();
  listen(pool);
  const run = async <T>(bounds: TransactionBounds, work: (client: PgClient) => Promise<T>): Promise<T> => {
    for (let left = MOST_LEFT_OPEN; ; left--) {
      try {
        return await transactions.again(() => onConnection(pool, bounds, work));
      } catch (error) {
        // The connection has been destroyed, which has also ended the transaction that was left open on it.
        if (!(error instanceof LeftOpenError) || left === 0) throw error;
      }
    }
  };
  return {
    transaction: (preamble, work, bounds) => run(bounds, (client) => transactions.run(client, preamble, work)),
    once: (preamble, statement, values, bounds) =>
      run(bounds, (client) => transactions.once(client, preamble, statement, values)),
  };
}

/**
 * Returns an explanation if all connections in the pool are in use, so that nothing has been sent to PostgreSQL yet.
 */
function exhaustion(pool: PgPool): string | undefined {
  const { max = 10 } = (pool as { options?: { max?: number } }).options ?? {};
  if (pool.totalCount < max || pool.idleCount > 0) return undefined;
  return `all ${String(max)} connections of the pool are in use: release the clients that you do not need, raise the pool’s max, or give the store a pool of its own. None became free`;
}

/** Runs one transaction on a connection from the pool. */
async function onConnection<T>(
  pool: PgPool,
  bounds: TransactionBounds,
  work: (client: PgClient) => Promise<T>,
): Promise<T> {
  /** The connection, until the first call of `giveBack`. */
  const held: { client?: PgPoolClient } = {};
  const giveBack = (destroy: boolean) => {
    const { client } = held;
    delete held.client;
    client?.release(destroy);
  };
  let givenUp = false;
  let reached = false;
  const run = async () => {
    const client = await pool.connect().catch((cause: unknown) => {
      // The pool's own limit, connectionTimeoutMillis, may have passed. Its error reads as if the server could not be
      // reached.
      const text = exhaustion(pool);
      if (text === undefined || endsConnection(cause)) throw cause;
      throw new MessengerError('TIMEOUT', `${text} within the pool’s connectionTimeoutMillis`, { cause });
    });
    reached = true;
    held.client = client;
    if (givenUp) {
      giveBack(false);
      throw new Error('the transaction was no longer waited for');
    }
    // The client may have been in the pool before the store was built.
    listen(client);
    hearStatus(client);
    const result = await work(client);
    giveBack(false);
    return result;
  };
  try {
    return await bounded(run(), bounds, 'PostgreSQL', () => (reached ? undefined : exhaustion(pool)));
  } catch (error) {
    givenUp = true;
    // After an error, the connection can be in any state: in a transaction, half open, or one query behind.
    giveBack(true);
    throw error;
  }
}

function clientDatabase(client: PgClient): Database {
  const transactions = new Transactions();
  listen(client);
  const oneAtATime = serially();
  const run = <T>(bounds: TransactionBounds, work: () => Promise<T>) =>
    bounded(
      oneAtATime(async () => {
        assertIdle(client);
        return transactions.again(work).catch((error: unknown) => {
          throw error instanceof LeftOpenError ? inTransaction(error) : error;
        });
      }),
      bounds,
      'PostgreSQL',
    );
  return {
    transaction: (preamble, work, bounds) => run(bounds, () => transactions.run(client, preamble, work)),
    once: (preamble, statement, values, bounds) =>
      run(bounds, () => transactions.once(client, preamble, statement, values)),
  };
}

/** Throws if the client is in one of the application's transactions, because our COMMIT would end that transaction. */
function assertIdle(client: PgClient): void {
  const status = transactionStatus(client);
  if (status !== 'T' && status !== 'E') return;
  throw inTransaction();
}

function inTransaction(cause?: unknown): MessengerError {
  return new MessengerError(
    'INVALID_TRANSACTION',
    'the pg Client of this store is in a transaction of the application: give the store a Pool, or a Client of its own',
    { cause },
  );
}

/** The driver for node-postgres. The store takes a Pool or Client. A handle is a Client or PoolClient. */
export const pgDriver: Driver = {
  name: 'pg',
  database(client) {
    if (isPool(client)) return poolDatabase(client);
    return isClient(client) ? clientDatabase(client) : undefined;
  },
  handle(handle) {
    if (isPool(handle)) {
      return {
        refused: 'a pg Pool commits every query by itself: pass the client (of await pool.connect()) that ran BEGIN',
      };
    }
    if (!isClient(handle)) return undefined;
    const status = transactionStatus(handle);
    if (status === 'I') {
      return {
        refused:
          'this pg client is not in a transaction, so it would commit the message by itself: await BEGIN first, and store before COMMIT or ROLLBACK',
      };
    }
    // A client that is not connected would queue the query until it connects, which may never happen.
    if (status === null) return { refused: 'this pg client is not connected: connect it and run BEGIN first' };
    if (status === 'E')
      return { refused: 'the transaction of this pg client has failed: roll it back and start again' };
    return (text, values) => handle.query({ text, values: [...values], rowMode: 'array', types: texts });
  },
  known: (handle) => knownTransaction(handle as PgClient),
  listen: (client) => (isPool(client) ? pgListen(client) : undefined),
  onEnd(handle, callback, forMany) {
    if (isClient(handle)) onPgTransactionEnd(handle, callback, forMany);
  },
};

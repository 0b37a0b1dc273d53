import type { TransactionBridge } from '../../../core/contracts/bridge.js';
import { MessengerError } from '../../../core/errors.js';
import { describe } from '../../../core/util/describe.js';
import type { Database } from '../sql/database.js';
import type { Bound, Driver, Listen, Runner } from './driver.js';
import { neonHttpDriver } from './neon.js';
import { hasRoom } from './pg-listen.js';
import { pgDriver } from './pg.js';
import type { PgClient, PgPool } from './pg-client.js';
import { pgliteDriver, type PGliteClient, type PGliteTransaction } from './pglite.js';
import { postgresJsDriver, type PostgresJsRoot, type PostgresJsTransaction } from './postgres-js.js';

const drivers: readonly Driver[] = [pgDriver, neonHttpDriver, postgresJsDriver, pgliteDriver];

/** A client that a `PostgresStore` can be built on. Neon's Pool and Client, over WebSockets, are those of `pg`. */
export type PostgresClient = PgPool | PgClient | PostgresJsRoot | PGliteClient;

/**
 * What `add` writes through: a `pg` Client or PoolClient that ran BEGIN, the `sql` of postgres.js's
 * `begin`, PGlite's transaction, or a function that runs SQL in the transaction at hand, whichever
 * query builder holds it.
 */
export type TransactionHandle =
  | PgClient
  | PostgresJsTransaction
  | PGliteTransaction
  | ((text: string, values: readonly string[]) => PromiseLike<unknown>);

const KNOWN_HANDLES =
  'a pg Client or PoolClient in a transaction, the sql of postgres.js sql.begin, the transaction of PGlite db.transaction, or a function (sql, params) => Promise';

/** @throws MessengerError `INVALID_OPTION` for a client of an unknown library. */
export function databaseOf(client: unknown): Database {
  for (const driver of drivers) {
    const database = driver.database(client);
    if (database) return database;
  }
  throw new MessengerError(
    'INVALID_OPTION',
    `client must be a pg Pool or Client, a postgres.js sql, or a PGlite database, got ${kindOf(client)}`,
  );
}

/**
 * How SQL is run in the transaction of a handle: for its effect, or for what it returns.
 *
 * @throws MessengerError `INVALID_TRANSACTION` for no handle, an unknown one, or one that is not in a transaction.
 */
export function runnerOf<Tx>(
  handle: unknown,
  bridge: TransactionBridge<Tx> | undefined,
  how: 'run' | 'query' = 'run',
): Runner {
  const known = bridge ? `${bridge.handleName}, ${KNOWN_HANDLES}` : KNOWN_HANDLES;
  if (handle === undefined || handle === null) {
    throw new MessengerError(
      'INVALID_TRANSACTION',
      `no transaction handle: without one nothing would be stored atomically with your data. Pass ${known}`,
    );
  }
  if (bridge?.isHandle(handle)) {
    const refusal = bridge.refusalOf?.(handle as Tx);
    if (refusal !== undefined) throw new MessengerError('INVALID_TRANSACTION', refusal);
    const does = how === 'query' && bridge.queryText ? 'queryText' : 'execute';
    return {
      run: async (text, values) => bridge[does]?.(handle as Tx, text, values as readonly string[]),
      isOneTransaction: bridge.hasHandlePerTransaction === true,
      known: '',
    };
  }
  for (const driver of drivers) {
    const answer = driver.handle(handle);
    if (answer === undefined) continue;
    if (typeof answer === 'function') {
      const isOneTransaction = driver.isOneTransaction?.(handle) === true;
      return { run: answer, isOneTransaction, known: driver.known?.(handle) ?? '' };
    }
    throw new MessengerError('INVALID_TRANSACTION', answer.refused);
  }
  if (typeof handle === 'function') {
    return {
      run: async (text, values) => (handle as (text: string, values: readonly Bound[]) => unknown)(text, values),
      isOneTransaction: false,
      known: '',
    };
  }
  throw new MessengerError(
    'INVALID_TRANSACTION',
    `unknown transaction handle ${kindOf(handle)}: pass ${known}${bridge ? '' : ', or give the store the option bridge for your query builder or ORM'}`,
  );
}

/**
 * How to hear notifications: through the client of the option `listen`, else through the store's own where it
 * is a pool with room for one more connection.
 *
 * @throws MessengerError `INVALID_OPTION` for a client that cannot be listened through.
 */
export function listenOf(client: PostgresClient, option: unknown): Listen | undefined {
  if (option === false) return undefined;
  const listen = (through: unknown) =>
    drivers.map((driver) => driver.listen?.(through)).find((each) => each !== undefined);
  if (option === undefined) return hasRoom(client) ? listen(client) : undefined;
  const chosen = listen(option);
  if (chosen) return chosen;
  throw new MessengerError('INVALID_OPTION', `listen must be a pg Pool or false, got ${kindOf(option)}`);
}

/** Calls back when the transaction of a handle is over, where that can be known. */
export function onTransactionEnd<Tx>(
  handle: unknown,
  bridge: TransactionBridge<Tx> | undefined,
  callback: () => void,
  forMany = callback,
): void {
  if (bridge?.isHandle(handle)) bridge.onCommit?.(handle as Tx, callback);
  else for (const driver of drivers) driver.onEnd?.(handle, callback, forMany);
}

/** What a value is. A string is not quoted: a connection string has a password in it. */
function kindOf(value: unknown): string {
  return typeof value === 'string' ? 'a string' : describe(value);
}

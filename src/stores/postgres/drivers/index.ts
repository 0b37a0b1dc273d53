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

/** A client that you pass to `PostgresStore`. Neon's Pool and Client, which use WebSockets, count as `pg` clients. */
export type PostgresClient = PgPool | PgClient | PostgresJsRoot | PGliteClient;

/**
 * The handle through which `add` writes: a `pg` Client or PoolClient that ran BEGIN, the `sql` that postgres.js passes
 * to `begin`, PGlite's transaction, or, with any query builder, a function that runs SQL in the current transaction.
 */
export type TransactionHandle =
  | PgClient
  | PostgresJsTransaction
  | PGliteTransaction
  | ((text: string, values: readonly string[]) => PromiseLike<unknown>);

const KNOWN_HANDLES =
  'a pg Client or PoolClient in a transaction, the sql of postgres.js sql.begin, the transaction of PGlite db.transaction, or a function (sql, params) => Promise';

/** @throws MessengerError `INVALID_OPTION` for a client from an unknown library. */
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
 * Returns a runner for SQL in a handle's transaction. The SQL runs either for its effect (`run`) or for its rows
 * (`query`).
 *
 * @throws MessengerError `INVALID_TRANSACTION` for a missing or unknown handle, or for a handle that is not in a
 *   transaction.
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
      `no transaction handle was passed, and without one the messages would not be stored atomically with your data. Pass ${known}`,
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
    `unknown transaction handle ${kindOf(handle)}: pass ${known}${bridge ? '' : ', or set the bridge option of the store to a bridge for your query builder or ORM'}`,
  );
}

/**
 * Returns a function that listens for notifications through the client in the `listen` option. Without the option, it
 * uses the store's own client, if that is a pool that can spare a connection.
 *
 * @throws MessengerError `INVALID_OPTION` for a client through which the store cannot listen.
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

/** Calls back when a handle's transaction has ended, if the client or bridge reports the end. */
export function onTransactionEnd<Tx>(
  handle: unknown,
  bridge: TransactionBridge<Tx> | undefined,
  callback: () => void,
  forMany = callback,
): void {
  if (bridge?.isHandle(handle)) bridge.onCommit?.(handle as Tx, callback);
  else for (const driver of drivers) driver.onEnd?.(handle, callback, forMany);
}

/** Describes the kind of a value. It does not quote a string, because a connection string contains a password. */
function kindOf(value: unknown): string {
  return typeof value === 'string' ? 'a string' : describe(value);
}

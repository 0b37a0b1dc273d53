import { hasMethods } from '../../../core/util/options.js';
import { MessengerError } from '../../../core/errors.js';
import { bounded, type Connection, type Database, type Row, type Value } from '../sql/database.js';
import {
  betweenBeginAndCommit,
  BYTEA,
  bytesOf,
  endsConnection,
  LeftOpenError,
  MOST_LEFT_OPEN,
  type Driver,
} from './driver.js';

/** The part of a postgres.js `unsafe` result that the store uses. */
export interface PostgresJsQuery extends PromiseLike<unknown> {
  raw(): PromiseLike<unknown>;
}

/** The part of postgres.js's `sql` that the store uses. */
export interface PostgresJsSql {
  unsafe(text: string, values?: never[], options?: { prepare?: boolean }): PostgresJsQuery;
  typed?(value: never, type: number): unknown;
}

/**
 * The `sql` that `begin` passes to its callback, or a reserved `sql`. Neither has a `begin` method, but the types
 * of older postgres.js versions declare one. So these types look for `release` or `savepoint`, which the root `sql` does
 * not have.
 */
export type PostgresJsTransaction = PostgresJsSql &
  ({ readonly begin?: never } | { release(): void } | { readonly savepoint: unknown });

/** The part of postgres.js's root `sql` that the store uses. */
export interface PostgresJsRoot extends PostgresJsSql {
  reserve(): Promise<PostgresJsSql & { release(): void }>;
  readonly options?: unknown;
}

/** The result of `raw`. Each column is the bytes that the server sent, in text format. */
type RawRows = readonly (readonly (Buffer | null)[])[] & { readonly columns?: readonly { readonly type: number }[] };

/** The OID of the `unknown` type. The application's serializers do not apply to it. */
const UNKNOWN = 705;

/** Marks values so that the client's serializers do not change them. Our SQL states their types. */
function plain(sql: PostgresJsSql, values: readonly Value[]): never[] {
  return values.map((value) => (sql.typed && value !== null ? sql.typed(value as never, UNKNOWN) : value) as never);
}

/**
 * Returns an error if the store cannot run its own transactions on a client. Even then, the store can write through
 * that client's handles.
 */
function refusalOf({ options }: PostgresJsRoot): MessengerError | undefined {
  const { transform, fetch_types } = (options ?? {}) as {
    transform?: { row?: { from?: unknown } };
    fetch_types?: unknown;
  };
  const refused = (why: string) =>
    new MessengerError(
      'INVALID_OPTION',
      `the postgres.js sql of this store has ${why}. Give the store a sql without this option`,
    );
  if (typeof transform?.row?.from === 'function')
    return refused('the transform.row option, which changes the rows that the server sends');
  // In version 3.4.9, `reserve` waits forever if it has to open a connection.
  if (fetch_types === false)
    return refused('the option fetch_types: false, which keeps postgres.js from reserving a new connection');
  return undefined;
}

/** Decodes rows without the client's parsers, because an application can set different ones. */
function decodeRows(rows: RawRows): Row[] {
  const bytes = new Set(rows.columns?.flatMap(({ type }, i) => (type === BYTEA ? [i] : [])));
  return rows.map((row) =>
    row.map((value, i) => {
      if (value === null) return null;
      return bytes.has(i) ? bytesOf(value.toString('latin1')) : value.toString('utf8');
    }),
  );
}

/** Decodes rows from the application's client, which may have transformed them. */
function textsOf(rows: RawRows): unknown {
  return rows.every((row) => Array.isArray(row)) ? decodeRows(rows) : rows;
}

function isRoot(client: unknown): client is PostgresJsRoot {
  return typeof client === 'function' && hasMethods(client, 'unsafe', 'begin', 'reserve');
}

function isHandle(client: unknown): client is PostgresJsSql {
  return typeof client === 'function' && hasMethods(client, 'unsafe');
}

function connection(sql: PostgresJsSql): Connection {
  return {
    // The client's own `prepare` setting still decides, for example `prepare: false` behind an old PgBouncer.
    query: async (statement, values = []) =>
      decodeRows((await sql.unsafe(statement.text, plain(sql, values), { prepare: true }).raw()) as RawRows),
  };
}

function database(sql: PostgresJsRoot): Database {
  const refusal = refusalOf(sql);
  return {
    async transaction(preamble, work, bounds) {
      if (refusal !== undefined) throw refusal;
      const run = async () => {
        const handle = await sql.reserve();
        try {
          const result = await betweenBeginAndCommit(
            (text) => Promise.resolve(handle.unsafe(text)),
            preamble,
            () => work(connection(handle)),
          );
          handle.release();
          return result;
        } catch (error) {
          // Do not release a connection that has ended. postgres.js takes it back itself, and would hand it out again
          // after a second release. The next query would then write to a missing socket, which ends the process (seen
          // with 3.4.9). If the application left a transaction open on the connection, end that transaction here. The
          // caller then tries another connection.
          if (error instanceof LeftOpenError) await handle.unsafe('ROLLBACK');
          // If the caller no longer waits for the work, the server's timeout ends the work, and the connection is
          // released then.
          if (!endsConnection(error)) handle.release();
          throw error;
        }
      };
      for (let left = MOST_LEFT_OPEN; ; left--) {
        try {
          return await bounded(run(), bounds, 'PostgreSQL');
        } catch (error) {
          if (!(error instanceof LeftOpenError) || left === 0) throw error;
        }
      }
    },
    // postgres.js could send all statements at once. We do not do that, because behind PgBouncer 1.18 a response was
    // sometimes missing.
    once(preamble, statement, values, bounds) {
      return this.transaction(preamble, (handle) => handle.query(statement, values), bounds);
    },
  };
}

/**
 * The driver for postgres.js. The store takes the root `sql`. A handle is the `sql` from `begin`, or a reserved `sql`.
 */
export const postgresJsDriver: Driver = {
  name: 'postgres.js',
  database: (client) => (isRoot(client) ? database(client) : undefined),
  handle(handle) {
    if (!isHandle(handle)) return undefined;
    if (hasMethods(handle, 'begin')) {
      return {
        refused: 'the root sql of postgres.js commits every query by itself: pass the sql that sql.begin gives you',
      };
    }
    // Use raw results, so that neither parsers nor transforms change what a statement returns.
    return async (text, values) =>
      textsOf((await handle.unsafe(text, plain(handle, values as readonly string[])).raw()) as RawRows);
  },
  // A reserved connection can run several transactions, one after the other.
  isOneTransaction: (handle) => !hasMethods(handle, 'release'),
};

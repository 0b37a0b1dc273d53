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

/** What `unsafe` of postgres.js returns, as far as it is used. */
export interface PostgresJsQuery extends PromiseLike<unknown> {
  raw(): PromiseLike<unknown>;
}

/** The slice of postgres.js's `sql` that is used. */
export interface PostgresJsSql {
  unsafe(text: string, values?: never[], options?: { prepare?: boolean }): PostgresJsQuery;
  typed?(value: never, type: number): unknown;
}

/** The `sql` of `begin`, or a reserved one: what has no `begin`, though old types say so, or something beside it. */
export type PostgresJsTransaction = PostgresJsSql &
  ({ readonly begin?: never } | { release(): void } | { readonly savepoint: unknown });

/** The slice of postgres.js's root `sql` that is used. */
export interface PostgresJsRoot extends PostgresJsSql {
  reserve(): Promise<PostgresJsSql & { release(): void }>;
  readonly options?: unknown;
}

/** What `raw` resolves to: every column as the bytes that the server sent, which are text. */
type RawRows = readonly (readonly (Buffer | null)[])[] & { readonly columns?: readonly { readonly type: number }[] };

/** The type of a value of which nothing is known: no serializer of the application is for it. */
const UNKNOWN = 705;

/** Values that the client's serializers leave as they are. The statements say what each is. */
function plain(sql: PostgresJsSql, values: readonly Value[]): never[] {
  return values.map((value) => (sql.typed && value !== null ? sql.typed(value as never, UNKNOWN) : value) as never);
}

/** Why the store's own transactions cannot be had of a client; its handles can be written through all the same. */
function refusalOf({ options }: PostgresJsRoot): MessengerError | undefined {
  const { transform, fetch_types } = (options ?? {}) as {
    transform?: { row?: { from?: unknown } };
    fetch_types?: unknown;
  };
  const refused = (why: string) =>
    new MessengerError(
      'INVALID_OPTION',
      `the sql of postgres.js that the store is built on has ${why}: give it a sql without`,
    );
  if (typeof transform?.row?.from === 'function')
    return refused('the option transform.row, by which rows are not what the server sent');
  // Seen with 3.4.9: whoever reserves a connection that is opened for that waits for ever.
  if (fetch_types === false)
    return refused('the option fetch_types: false, with which postgres.js reserves no new connection');
  return undefined;
}

/** Decodes without the client's parsers: an application may have set others. */
function decodeRows(rows: RawRows): Row[] {
  const bytes = new Set(rows.columns?.flatMap(({ type }, i) => (type === BYTEA ? [i] : [])));
  return rows.map((row) =>
    row.map((value, i) => {
      if (value === null) return null;
      return bytes.has(i) ? bytesOf(value.toString('latin1')) : value.toString('utf8');
    }),
  );
}

/** The rows of a client of the application, which may have transformed them. */
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
    // Whether to prepare is the client's own setting (`prepare: false` behind an old PgBouncer).
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
          // One that has ended is taken back by postgres.js itself, and to release it as well would hand
          // it out again: the next query writes to no socket, and ends the process (seen with 3.4.9).
          // What somebody left open on it ends here, and another connection is tried.
          if (error instanceof LeftOpenError) await handle.unsafe('ROLLBACK');
          // One that still works on what is no longer waited for ends when the server's timeout ends that.
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
    // Not sent all at once, as postgres.js could: behind PgBouncer 1.18 an answer stayed out now and then.
    once(preamble, statement, values, bounds) {
      return this.transaction(preamble, (handle) => handle.query(statement, values), bounds);
    },
  };
}

/** postgres.js: the root `sql` for the store, the `sql` of `begin` (or a reserved one) as a handle. */
export const postgresJsDriver: Driver = {
  name: 'postgres.js',
  database: (client) => (isRoot(client) ? database(client) : undefined),
  handle(handle) {
    if (!isHandle(handle)) return undefined;
    if (hasMethods(handle, 'begin')) {
      return {
        refused: 'the root sql of postgres.js commits every query by itself: pass the sql that sql.begin gives',
      };
    }
    // Raw, so that neither parsers nor transforms of values change what a statement returns.
    return async (text, values) =>
      textsOf((await handle.unsafe(text, plain(handle, values as readonly string[])).raw()) as RawRows);
  },
  // A reserved connection has one transaction after the other.
  isOneTransaction: (handle) => !hasMethods(handle, 'release'),
};

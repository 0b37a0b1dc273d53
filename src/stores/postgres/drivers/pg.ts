import { hasMethods } from '../../../core/util/options.js';
import { MessengerError } from '../../../core/errors.js';
import { serially } from '../../../core/util/async.js';
import {
  bounded,
  type Connection,
  type Database,
  type Row,
  type Statement,
  type TransactionBounds,
  type Value,
} from '../sql/database.js';
import {
  begin,
  beginError,
  betweenBeginAndCommit,
  BYTEA,
  bytesOf,
  endsConnection,
  LeftOpenError,
  MOST_LEFT_OPEN,
  type Driver,
} from './driver.js';
import { onPgTransactionEnd, pgListen } from './pg-listen.js';
import { hearStatus, isIdle, transactionStatus, type PgTelling } from './pg-status.js';

/** A query as `pg` takes it, with everything set that this store relies on. */
export interface PgQuery {
  text: string;
  values?: unknown[];
  name?: string;
  rowMode?: 'array';
  types?: { getTypeParser(oid: number, format?: string): (value: string) => unknown };
}

/** The slice of `pg`'s Client and PoolClient that is used. */
export interface PgClient extends PgTelling {
  query(query: PgQuery & { rowMode: 'array' }): Promise<{ rows: unknown[][] }>;
  query(text: string): Promise<unknown>;
  escapeIdentifier(text: string): string;
  escapeLiteral?(text: string): string;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

/** The slice of `pg`'s PoolClient that is used. */
export interface PgPoolClient extends PgClient {
  release(destroy?: boolean): void;
}

/** The slice of `pg`'s Pool that is used. */
export interface PgPool {
  connect(): Promise<PgPoolClient>;
  on(event: 'error', listener: (error: Error) => void): unknown;
  on(event: 'connect', listener: (client: PgClient) => void): unknown;
  readonly totalCount: number;
  readonly idleCount: number;
}

/**
 * Type parsers of our own for our own queries: whatever an application has set globally in `pg`
 * neither changes what we read nor is changed by us. Everything stays text, but for bytes.
 */
const types = {
  getTypeParser: (oid: number, format?: string) => (format === 'binary' ? refused : oid === BYTEA ? bytesOf : asText),
};
const asText = (value: string): unknown => value;

/** pg decodes what comes in binary as if it were text, and bytes are lost by that. */
function refused(): never {
  throw new MessengerError(
    'INVALID_OPTION',
    'this pg client reads in binary format, in which pg alters bytes: leave the option binary out, of the client and of pg.defaults',
  );
}

/** For a client of the application: what comes is one text, in whichever format. */
const texts = { getTypeParser: () => (value: unknown) => String(value) };

/** The states in which a pooler without prepared statements lost one of ours, or has it already. */
const PREPARED_STATEMENT_FAULTS = new Set(['26000', '42P05', '08P01']);

function isPool(client: unknown): client is PgPool {
  return hasMethods(client, 'connect', 'query') && typeof (client as PgPool).totalCount === 'number';
}

function isClient(client: unknown): client is PgClient {
  return hasMethods(client, 'connect', 'query', 'escapeIdentifier') && !isPool(client);
}

function ignore(): void {
  // A connection that breaks also rejects the query in flight, or the next: nothing is lost here, and
  // without a listener the event would end the process.
}

/** What has our listeners: once is enough, however many stores a client serves. */
const listening = new WeakSet<PgPool | PgClient>();

/**
 * A pool's clients are listened to before it hands them out: a server that ends a session at once says
 * so in the packet that says it is ready, which is before the promise of `connect` is heard.
 */
function listen(client: PgPool | PgClient): void {
  if (listening.has(client)) return;
  listening.add(client);
  client.on('error', ignore);
  if (!isPool(client)) return;
  client.on('connect', (fresh) => {
    listen(fresh);
    hearStatus(fresh, 'I');
  });
}

function isPreparedStatementFault(error: unknown): boolean {
  const { code, severity } = (error ?? {}) as { code?: unknown; severity?: unknown };
  // FATAL is about the connection: PgBouncer tells a server that is gone by one of these states, too.
  return PREPARED_STATEMENT_FAULTS.has(String(code)) && severity !== 'FATAL';
}

/** The names of the statements that a connection has prepared. */
const prepared = new WeakMap<PgClient, Set<string>>();

/**
 * The transactions of one client of the application: with statements that are prepared by name, and with a
 * single one in one round trip, as a script that executes what is prepared; each until the server (or a
 * pooler before it, of which connections have the names that others prepared) shows that it cannot.
 */
class Transactions {
  #prepare = true;
  #script = true;

  /**
   * Has a transaction run again where it failed for a prepared statement that a pooler lost: nothing of it is
   * there, and with each such failure one of the two ways is given up. So twice at most.
   */
  async again<T>(transaction: () => Promise<T>, retries = 2): Promise<T> {
    try {
      return await transaction();
    } catch (error) {
      if (isPreparedStatementFault(error) && retries > 0) return this.again(transaction, retries - 1);
      throw error;
    }
  }

  run<T>(client: PgClient, preamble: string, work: (connection: Connection) => Promise<T>): Promise<T> {
    const query = (statement: Statement, values: readonly Value[] = []) => this.#query(client, statement, values);
    return betweenBeginAndCommit(
      (sql) => client.query(sql),
      preamble,
      () => work({ query }),
      { checked: !isIdle(client) },
    );
  }

  /** In one round trip where this connection has the statement prepared. */
  async once(
    client: PgClient,
    preamble: string,
    statement: Statement,
    values: readonly Value[],
  ): Promise<readonly Row[]> {
    const text = this.#script ? scriptOf(client, preamble, statement, values) : undefined;
    if (text === undefined) return this.run(client, preamble, (connection) => connection.query(statement, values));
    try {
      const results = (await client.query({ text, rowMode: 'array', types })) as unknown as { rows: unknown[][] }[];
      // Of BEGIN, each setting, the statement and COMMIT.
      return results.at(-2)?.rows ?? [];
    } catch (error) {
      const why = beginError(error);
      // Of a transaction of the application the end is its own.
      if (why instanceof LeftOpenError) throw why;
      if (isPreparedStatementFault(error)) this.#script = false;
      if (!endsConnection(error)) await client.query('ROLLBACK').catch(() => undefined);
      throw error;
    }
  }

  async #query(client: PgClient, { name, text }: Statement, values: readonly Value[]): Promise<readonly Row[]> {
    const query = { text, values: [...values], rowMode: 'array' as const, types };
    if (!this.#prepare) return (await client.query(query)).rows;
    try {
      const { rows } = await client.query({ ...query, name });
      const names = prepared.get(client);
      if (names) names.add(name);
      else prepared.set(client, new Set([name]));
      return rows;
    } catch (error) {
      if (isPreparedStatementFault(error)) this.#prepare = false;
      throw error;
    }
  }
}

/** Text of which nothing has to be escaped in a literal. */
const PLAIN = /^[^'\\]*$/;

/** A whole transaction as text, its values as literals; `undefined` where it cannot be had. */
function scriptOf(
  client: PgClient,
  preamble: string,
  { name }: Statement,
  values: readonly Value[],
): string | undefined {
  if (client.escapeLiteral === undefined || prepared.get(client)?.has(name) !== true) return undefined;
  const literals = values.map((value) => {
    if (value === null) return 'NULL';
    const text = String(value);
    // A snapshot is long, where many transactions run, and looked at character by character.
    return PLAIN.test(text) ? `'${text}'` : client.escapeLiteral?.(text);
  });
  return `${begin(!isIdle(client))}; ${preamble}; EXECUTE ${client.escapeIdentifier(name)}(${literals.join(', ')}); COMMIT`;
}

function poolDatabase(pool: PgPool): Database {
  const transactions = new Transactions();
  listen(pool);
  const run = async <T>(bounds: TransactionBounds, work: (client: PgClient) => Promise<T>): Promise<T> => {
    for (let left = MOST_LEFT_OPEN; ; left--) {
      try {
        return await transactions.again(() => onConnection(pool, bounds, work));
      } catch (error) {
        // It is destroyed, with what was left open on it.
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

/** What is waited for where a pool has lent all that it may have: PostgreSQL itself has not been asked yet. */
function exhaustion(pool: PgPool): string | undefined {
  const { max = 10 } = (pool as { options?: { max?: number } }).options ?? {};
  if (pool.totalCount < max || pool.idleCount > 0) return undefined;
  return `all ${String(max)} connections of the pool are in use: give back those that are not needed, raise the pool’s max, or give the store a pool of its own. None came free`;
}

/** One transaction on a connection of the pool. */
async function onConnection<T>(
  pool: PgPool,
  bounds: TransactionBounds,
  work: (client: PgClient) => Promise<T>,
): Promise<T> {
  /** The connection, until it is given back: once, by whoever comes first. */
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
      // The pool's own limit, connectionTimeoutMillis, which it tells as if the server could not be reached.
      const text = exhaustion(pool);
      if (text === undefined || endsConnection(cause)) throw cause;
      throw new MessengerError('TIMEOUT', `${text} in the pool’s connectionTimeoutMillis`, { cause });
    });
    reached = true;
    held.client = client;
    if (givenUp) {
      giveBack(false);
      throw new Error('the transaction was no longer waited for');
    }
    // One that was in the pool before the store was.
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
    // After an error the connection may be anything: in a transaction, half open, a query behind.
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

/** Our COMMIT would end the application's transaction. */
function assertIdle(client: PgClient): void {
  const status = transactionStatus(client);
  if (status !== 'T' && status !== 'E') return;
  throw inTransaction();
}

function inTransaction(cause?: unknown): MessengerError {
  return new MessengerError(
    'INVALID_TRANSACTION',
    'the pg Client that the store is built on is in a transaction of the application: give the store a Pool, or a Client of its own',
    { cause },
  );
}

/** node-postgres: Pool or Client for the store, Client or PoolClient as a transaction's handle. */
export const pgDriver: Driver = {
  name: 'pg',
  database(client) {
    if (isPool(client)) return poolDatabase(client);
    return isClient(client) ? clientDatabase(client) : undefined;
  },
  handle(handle) {
    if (isPool(handle)) {
      return {
        refused: 'a pg Pool commits every query by itself: pass the client that ran BEGIN (await pool.connect())',
      };
    }
    if (!isClient(handle)) return undefined;
    const status = transactionStatus(handle);
    if (status === 'I') {
      return {
        refused:
          'this pg client is not in a transaction (it would commit by itself): await BEGIN before, and store before COMMIT or ROLLBACK',
      };
    }
    // A query of a client that is not connected would wait for a connection that may never come.
    if (status === null) return { refused: 'this pg client is not connected: connect it, and run BEGIN, before' };
    if (status === 'E')
      return { refused: 'the transaction of this pg client has failed: roll it back and start again' };
    return (text, values) => handle.query({ text, values: [...values], rowMode: 'array', types: texts });
  },
  listen: (client) => (isPool(client) ? pgListen(client) : undefined),
  onEnd(handle, callback, forMany) {
    if (isClient(handle)) onPgTransactionEnd(handle, callback, forMany);
  },
};

import { MessengerError } from '../../../core/errors.js';
import type { Connection, Row, Statement, Value } from '../sql/database.js';
import { begin, beginError, betweenBeginAndCommit, BYTEA, bytesOf, endsConnection, LeftOpenError } from './driver.js';
import type { PgClient } from './pg-client.js';
import { isIdle } from './pg-status.js';

/**
 * The type parsers for the store's own queries. They are independent of the parsers that an application sets globally
 * in `pg`. All values except bytes stay strings.
 */
const types = {
  getTypeParser: (oid: number, format?: string) => (format === 'binary' ? refused : oid === BYTEA ? bytesOf : asText),
};
const asText = (value: string): unknown => value;

/** Rejects binary values, because `pg` decodes them as if they were text, and loses bytes. */
function refused(): never {
  throw new MessengerError(
    'INVALID_OPTION',
    'this pg client reads in binary format, in which pg alters bytes: remove the binary option from the client and from pg.defaults',
  );
}

/**
 * The SQLSTATEs for a prepared statement that is missing or already exists, because a pooler does not support prepared
 * statements.
 */
const PREPARED_STATEMENT_FAULTS = new Set(['26000', '42P05', '08P01']);

function isPreparedStatementFault(error: unknown): boolean {
  const { code, severity } = (error ?? {}) as { code?: unknown; severity?: unknown };
  // FATAL concerns the connection, not the statement. PgBouncer also uses one of these SQLSTATEs when a server is gone.
  return PREPARED_STATEMENT_FAULTS.has(String(code)) && severity !== 'FATAL';
}

/** The names of the statements that a connection has prepared. */
const prepared = new WeakMap<PgClient, Set<string>>();

/**
 * Runs the store's transactions on one `pg` client or pool. It uses two optimizations. It prepares statements by name,
 * and it sends a transaction with a single statement in one round trip, as a script that executes the prepared
 * statement. It stops using an optimization when an error shows that the server, or a pooler in front of the server,
 * does not support it. Through a pooler, a connection can have statement names that other clients prepared.
 */
export class Transactions {
  #prepare = true;
  #script = true;

  /**
   * Runs a transaction again if it failed because a pooler lost a prepared statement. Nothing from the failed
   * transaction remains. Each such failure turns off one of the two optimizations, so this happens at most twice.
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

  /** Runs one statement in one round trip, if this connection has prepared the statement. */
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
      // The results come from BEGIN, each setting, the statement and COMMIT, in this order.
      return results.at(-2)?.rows ?? [];
    } catch (error) {
      const why = beginError(error);
      // Only the application may end its own transaction.
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

/** Matches a string that needs no escaping in an SQL literal. */
const PLAIN = /^[^'\\]*$/;

/** Returns a whole transaction as one script, with its values as literals, or `undefined` if that is impossible. */
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
    // If many transactions are running, a snapshot is long, and `escapeLiteral` would loop over every character.
    return PLAIN.test(text) ? `'${text}'` : client.escapeLiteral?.(text);
  });
  return `${begin(!isIdle(client))}; ${preamble}; EXECUTE ${client.escapeIdentifier(name)}(${literals.join(', ')}); COMMIT`;
}

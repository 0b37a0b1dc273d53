import { MessengerError } from '../../../core/errors.js';
import type { Connection, Row, Statement, Value } from '../sql/database.js';
import { begin, beginError, betweenBeginAndCommit, BYTEA, bytesOf, endsConnection, LeftOpenError } from './driver.js';
import type { PgClient } from './pg-client.js';
import { isIdle } from './pg-status.js';

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

/** The states in which a pooler without prepared statements lost one of ours, or has it already. */
const PREPARED_STATEMENT_FAULTS = new Set(['26000', '42P05', '08P01']);

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
export class Transactions {
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

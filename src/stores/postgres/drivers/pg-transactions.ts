import { MessengerError } from '../../../core/errors.js';
import type { Connection, Row, Statement, Value } from '../sql/database.js';
import { begin, beginError, betweenBeginAndCommit, BYTEA, bytesOf, endsConnection, LeftOpenError } from './driver.js';
import type { PgClient } from './pg-client.js';
import { isIdle } from './pg-status.js';

/**
 * Our own type parsers for our own queries. Parsers that an application sets globally in `pg` do not change what we
 * read, and we do not change them either. All values except bytes stay text.
 */
const types = {
  getTypeParser: (oid: number, format?: string) => (format === 'binary' ? refused : oid === BYTEA ? bytesOf : asText),
};
const asText = (value: string): unknown => value;

/** pg decodes binary values as if they were text, and loses bytes. */
function refused(): never {
  throw new MessengerError(
    'INVALID_OPTION',
    'this pg client reads in binary format, in which pg alters bytes: remove the option binary from the client and from pg.defaults',
  );
}

/** The SQLSTATEs from a pooler without prepared statements, which lost one of ours or already has it. */
const PREPARED_STATEMENT_FAULTS = new Set(['26000', '42P05', '08P01']);

function isPreparedStatementFault(error: unknown): boolean {
  const { code, severity } = (error ?? {}) as { code?: unknown; severity?: unknown };
  // FATAL concerns the connection. PgBouncer also uses one of these states to say that a server is gone.
  return PREPARED_STATEMENT_FAULTS.has(String(code)) && severity !== 'FATAL';
}

/** The names of the statements that a connection has prepared. */
const prepared = new WeakMap<PgClient, Set<string>>();

/**
 * Runs the store's transactions on one `pg` client or pool. It prepares statements by name. It sends a transaction with
 * a single statement in one round trip, as a script that executes the prepared statement. It uses each of these two
 * ways until an error shows that it does not work with the server, or with a pooler in front of it. A pooler's
 * connections can have names that other clients prepared.
 */
export class Transactions {
  #prepare = true;
  #script = true;

  /**
   * Runs a transaction again if it failed because a pooler lost a prepared statement. Nothing from the failed
   * transaction remains. Each such failure rules out one of the two ways, so this happens at most twice.
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

/** A text that needs no escape in a literal. */
const PLAIN = /^[^'\\]*$/;

/** Returns a whole transaction as text, with its values as literals, or `undefined` if that is impossible. */
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
    // A snapshot is long if many transactions run, and escaping would look at every character.
    return PLAIN.test(text) ? `'${text}'` : client.escapeLiteral?.(text);
  });
  return `${begin(!isIdle(client))}; ${preamble}; EXECUTE ${client.escapeIdentifier(name)}(${literals.join(', ')}); COMMIT`;
}

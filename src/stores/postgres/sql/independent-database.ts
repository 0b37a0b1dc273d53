import { MessengerError } from '../../../core/errors.js';
import { columnsOf } from './columns.js';
import { preamble, type Database, type TransactionBounds } from './database.js';
import { statement } from './statement.js';
import { onPostgres } from './lookalikes.js';

/**
 * A policy would hide rows of messages, cursors or dead letters without a word, and what is hidden is lost: so PostgreSQL
 * raises an error instead. In every transaction, since policies can be made while a relay runs.
 */
const NEVER_HIDE = 'SET LOCAL row_security = off';

/**
 * A relay that may not wait for an operator, or for cleaning, would forget what it has in memory, and publish it again. In every
 * transaction: an application may have set another limit on one connection of a pool.
 */
const WAIT = 'SET LOCAL lock_timeout = 0';

/**
 * What else a role, a database or a session can have set: what our statements must not find, and what they then run under.
 * Each costs a poll a hundredth, so a relay sets those that differ, and no more.
 */
const SETTINGS: Readonly<Record<string, string>> = {
  // Of PostgreSQL 17 and newer; every transaction has bounds of its own.
  transaction_timeout: '0',
  // What `pg_get_expr` and others write is compared.
  quote_all_identifiers: 'off',
  standard_conforming_strings: 'on',
  // What the plans of polls and settlements stand on.
  enable_indexscan: 'on',
  enable_nestloop: 'on',
  enable_tidscan: 'on',
};

/** Functions and operators of an application's own, of PostgreSQL's names, would be taken where their schema comes first. */
const SEARCH_PATH = 'SET LOCAL search_path = pg_catalog, pg_temp';

const setting = (name: string) => `SET LOCAL ${name} = ${SETTINGS[name] ?? ''}`;

/** All that can be set at every supported server. */
const ALL = [
  NEVER_HIDE,
  WAIT,
  SEARCH_PATH,
  ...Object.keys(SETTINGS)
    .filter((name) => name !== 'transaction_timeout')
    .map(setting),
];

/** What a session has set, and which schemas and encodings it has. */
const SESSION = columnsOf(...Object.keys(SETTINGS), 'schemas', 'client', 'server');

/** Not by an operator: these are looked up by the search path. */
const LOOK = statement(
  'look_settings',
  `SELECT ${SESSION.list({
    ...Object.fromEntries(Object.keys(SETTINGS).map((name) => [name, `pg_catalog.current_setting('${name}', true)`])),
    schemas: 'pg_catalog.to_json(pg_catalog.current_schemas(false))::pg_catalog.text',
    client: `pg_catalog.current_setting('client_encoding')`,
    server: 'pg_catalog.getdatabaseencoding()::pg_catalog.text',
  })}`,
);

/**
 * Transactions that do not depend on what the role, the database or the session has set. But for row security and the wait
 * for locks, the session that is looked at stands for all: an application must not set other search paths, plans or
 * encodings on single connections of the pool that it gives to a relay.
 */
export class IndependentDatabase implements Database {
  readonly #database: Database;
  #settings: readonly string[] = ALL;

  constructor(database: Database) {
    this.#database = database;
  }

  readonly transaction: Database['transaction'] = (before, work, bounds) =>
    explained(bounds, () => this.#database.transaction(this.#with(before), work, bounds));

  readonly once: Database['once'] = (before, each, values, bounds) =>
    explained(bounds, () => this.#database.once(this.#with(before), each, values, bounds));

  /**
   * Finds out what is set here, so that from now on no more than is needed is set.
   *
   * @throws MessengerError `UNSUPPORTED` where the client's text would be taken for another encoding's.
   */
  async learn(bounds: TransactionBounds): Promise<void> {
    const [row] = await onPostgres(this.#database).transaction(
      preamble(bounds.timeout),
      (connection) => connection.query(LOOK),
      bounds,
    );
    const found = (name: string) => row?.[SESSION.at[name] as number] as string | null;
    assertEncoding(found('client') as string, found('server') as string);
    const differs = Object.keys(SETTINGS).filter((name) => ![null, SETTINGS[name]].includes(found(name)));
    // Where it is not named, it comes before all that is.
    const isFirst = (JSON.parse(found('schemas') as string) as string[]).indexOf('pg_catalog') <= 0;
    this.#settings = [NEVER_HIDE, WAIT, ...(isFirst ? [] : [SEARCH_PATH]), ...differs.map(setting)];
  }

  #with(before: string): string {
    return [...this.#settings, before].join('; ');
  }
}

/** JavaScript's clients speak UTF-8. What they send or read is as it is where the server does not convert it. */
function assertEncoding(client: string, server: string): void {
  if (client === 'UTF8' || (client === 'SQL_ASCII' && ['UTF8', 'SQL_ASCII'].includes(server))) return;
  throw new MessengerError(
    'UNSUPPORTED',
    `the client's connections have client_encoding = ${client}, and it speaks UTF8: texts would be altered. Leave client_encoding as the client sets it`,
  );
}

async function explained<T>({ signal }: TransactionBounds, work: () => Promise<T>): Promise<T> {
  // What is not waited for would be done all the same.
  signal?.throwIfAborted();
  try {
    return await work();
  } catch (error) {
    throw hiddenRows(error) ?? error;
  }
}

/** PostgreSQL's error for rows that a policy would hide, told by where it is raised: its text is translated. */
function hiddenRows(error: unknown): MessengerError | undefined {
  const { code, routine, message } = (error ?? {}) as Record<string, unknown>;
  if (code !== '42501' || routine !== 'check_enable_rls') return undefined;
  return rowSecurityError(String(message), { cause: error });
}

/** @param what the tables, or what PostgreSQL says of them. */
export function rowSecurityError(what: string, options?: { cause: unknown }): MessengerError {
  return new MessengerError(
    'SCHEMA_MISMATCH',
    `row-level security would hide messages from this role, and they would be lost: ${what}. Switch it off (ALTER TABLE … DISABLE ROW LEVEL SECURITY), give the role BYPASSRLS, or use the role that owns the tables, without FORCE ROW LEVEL SECURITY`,
    options,
  );
}

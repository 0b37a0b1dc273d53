import { MessengerError } from '../../../core/errors.js';
import { columnsOf } from './columns.js';
import { preamble, type Database, type TransactionBounds } from './database.js';
import { statement } from './statement.js';
import { onPostgres } from './lookalikes.js';

/**
 * A policy would silently hide rows of messages, cursors or dead letters, and hidden rows are lost. With this setting
 * PostgreSQL raises an error instead. It is set in every transaction, because policies can be created while a relay
 * runs.
 */
const NEVER_HIDE = 'SET LOCAL row_security = off';

/**
 * A relay that gave up waiting for an operator or for cleaning would forget what it has in memory and publish it again.
 * It is set in every transaction, because an application may have set another limit on one connection of a pool.
 */
const WAIT = 'SET LOCAL lock_timeout = 0';

/**
 * Other settings that a role, a database or a session can have and that would change what our statements find or how
 * they run. Each costs a poll a hundredth of its time, so a relay sets only those that differ.
 */
const SETTINGS: Readonly<Record<string, string>> = {
  // PostgreSQL 17 and newer. Every transaction has bounds of its own.
  transaction_timeout: '0',
  // We compare the text that `pg_get_expr` and others write.
  quote_all_identifiers: 'off',
  standard_conforming_strings: 'on',
  // The plans of polls and settlements depend on these.
  enable_indexscan: 'on',
  enable_nestloop: 'on',
  enable_tidscan: 'on',
};

/**
 * If an application's schema comes first, its functions and operators would be taken in place of PostgreSQL's of the
 * same name.
 */
const SEARCH_PATH = 'SET LOCAL search_path = pg_catalog, pg_temp';

const setting = (name: string) => `SET LOCAL ${name} = ${SETTINGS[name] ?? ''}`;

/** Everything that can be set at every supported server. */
const ALL = [
  NEVER_HIDE,
  WAIT,
  SEARCH_PATH,
  ...Object.keys(SETTINGS)
    .filter((name) => name !== 'transaction_timeout')
    .map(setting),
];

/** The settings of a session, its schemas and its encodings. */
const SESSION = columnsOf(...Object.keys(SETTINGS), 'schemas', 'client', 'server');

/** Without operators, because PostgreSQL finds them by the search path. */
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
 * Runs transactions that do not depend on the settings of the role, the database or the session. Except for row
 * security and the wait for locks, the one session that `learn` looks at stands for all. So an application must not set
 * other search paths, plans or encodings on single connections of the pool that it gives to a relay.
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
   * Finds out the settings here, so that from now on only those that differ are set.
   *
   * @throws MessengerError `UNSUPPORTED` where the server would take the client's text for that of another encoding.
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
    // If `pg_catalog` is not in the search path, it comes before everything in it.
    const isFirst = (JSON.parse(found('schemas') as string) as string[]).indexOf('pg_catalog') <= 0;
    this.#settings = [NEVER_HIDE, WAIT, ...(isFirst ? [] : [SEARCH_PATH]), ...differs.map(setting)];
  }

  #with(before: string): string {
    return [...this.#settings, before].join('; ');
  }
}

/** The clients speak UTF-8. Text that they send or read is unaltered if the server does not convert it. */
function assertEncoding(client: string, server: string): void {
  if (client === 'UTF8' || (client === 'SQL_ASCII' && ['UTF8', 'SQL_ASCII'].includes(server))) return;
  throw new MessengerError(
    'UNSUPPORTED',
    `the connections have client_encoding = ${client}, but the client speaks UTF8, so texts would be altered. Leave client_encoding as the client sets it`,
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

/**
 * PostgreSQL's error for rows that a policy would hide. It is recognised by the routine that raises it, because its
 * text is translated.
 */
function hiddenRows(error: unknown): MessengerError | undefined {
  const { code, routine, message } = (error ?? {}) as Record<string, unknown>;
  if (code !== '42501' || routine !== 'check_enable_rls') return undefined;
  return rowSecurityError(String(message), { cause: error });
}

/** @param what which tables have row-level security, or what PostgreSQL says about them. */
export function rowSecurityError(what: string, options?: { cause: unknown }): MessengerError {
  return new MessengerError(
    'SCHEMA_MISMATCH',
    `row-level security would hide messages from this role, and they would be lost: ${what}. Switch it off (ALTER TABLE … DISABLE ROW LEVEL SECURITY), give the role BYPASSRLS, or use the role that owns the tables, without FORCE ROW LEVEL SECURITY`,
    options,
  );
}

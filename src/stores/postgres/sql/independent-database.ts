import { MessengerError } from '../../../core/errors.js';
import { columnsOf } from './columns.js';
import { preamble, type Database, type TransactionBounds } from './database.js';
import { statement } from './statement.js';
import { onPostgres } from './lookalikes.js';

/**
 * A row-level security policy would silently hide messages, cursors or dead letters, and hidden messages are lost. With
 * this setting PostgreSQL raises an error instead. Every transaction sets it, because somebody can create a policy
 * while a relay runs.
 */
const NEVER_HIDE = 'SET LOCAL row_security = off';

/**
 * Turns off the lock timeout, because a relay must wait for an operator or for cleaning. If the wait failed, the relay
 * would forget the messages in its memory and publish them again. Every transaction sets this, because an application
 * can set a different timeout on one connection of a pool.
 */
const WAIT = 'SET LOCAL lock_timeout = 0';

/**
 * Other settings that would change which rows our statements find, or how the statements run. A role, a database or a
 * session can have its own values for them. Each setting makes a poll one percent slower, so a relay sets only those
 * that differ.
 */
const SETTINGS: Readonly<Record<string, string>> = {
  // This setting exists in PostgreSQL 17 and newer. Each of our transactions has its own limits.
  transaction_timeout: '0',
  // We compare the text that functions such as `pg_get_expr` return.
  quote_all_identifiers: 'off',
  standard_conforming_strings: 'on',
  // The plans of polls and settlements depend on these settings.
  enable_indexscan: 'on',
  enable_nestloop: 'on',
  enable_tidscan: 'on',
};

/**
 * If an application's schema came first, PostgreSQL would call the application's functions and operators instead of its
 * own functions and operators with the same names.
 */
const SEARCH_PATH = 'SET LOCAL search_path = pg_catalog, pg_temp';

const setting = (name: string) => `SET LOCAL ${name} = ${SETTINGS[name] ?? ''}`;

/** All settings that exist on every supported server. */
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

/** The statement uses no operators, because PostgreSQL looks operators up through the search path. */
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
 * Runs transactions that do not depend on the settings of the role, the database or the session. `learn` reads the
 * settings of one session, and assumes that all other sessions have the same settings. Only row security and the lock
 * timeout are set in every transaction. So an application must not set another search path, plan setting or encoding on
 * a single connection in the pool that it gives to a relay.
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
   * Reads the settings of one session. From then on, transactions set only those that differ.
   *
   * @throws MessengerError `UNSUPPORTED` if the server would read the client's strings in another encoding.
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
    // If `pg_catalog` is not listed in the search path, PostgreSQL searches it before every listed schema.
    const isFirst = (JSON.parse(found('schemas') as string) as string[]).indexOf('pg_catalog') <= 0;
    this.#settings = [NEVER_HIDE, WAIT, ...(isFirst ? [] : [SEARCH_PATH]), ...differs.map(setting)];
  }

  #with(before: string): string {
    return [...this.#settings, before].join('; ');
  }
}

/** The clients send and read UTF-8. Strings stay unaltered if the server does not convert them. */
function assertEncoding(client: string, server: string): void {
  if (client === 'UTF8' || (client === 'SQL_ASCII' && ['UTF8', 'SQL_ASCII'].includes(server))) return;
  throw new MessengerError(
    'UNSUPPORTED',
    `the connections have client_encoding = ${client}, but the client speaks UTF8, so text would be altered. Leave client_encoding as the client sets it`,
  );
}

async function explained<T>({ signal }: TransactionBounds, work: () => Promise<T>): Promise<T> {
  // Stop before the work begins. Once begun, the work would run to its end even if nobody waited for it.
  signal?.throwIfAborted();
  try {
    return await work();
  } catch (error) {
    throw hiddenRows(error) ?? error;
  }
}

/**
 * Recognises the error that PostgreSQL raises when a policy would hide rows. PostgreSQL translates error messages, so
 * this function checks which routine raised the error.
 */
function hiddenRows(error: unknown): MessengerError | undefined {
  const { code, routine, message } = (error ?? {}) as Record<string, unknown>;
  if (code !== '42501' || routine !== 'check_enable_rls') return undefined;
  return rowSecurityError(String(message), { cause: error });
}

/** @param what names the tables with row-level security, or is PostgreSQL's own error message about them. */
export function rowSecurityError(what: string, options?: { cause: unknown }): MessengerError {
  return new MessengerError(
    'SCHEMA_MISMATCH',
    `row-level security would hide messages from this role, and they would be lost: ${what}. Switch it off (ALTER TABLE … DISABLE ROW LEVEL SECURITY), give the role BYPASSRLS, or use the role that owns the tables, without FORCE ROW LEVEL SECURITY`,
    options,
  );
}

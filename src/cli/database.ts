import type { Command } from 'commander';
import type { OutboxAdmin } from '../core/contracts/admin.js';
import { MessengerError } from '../core/errors.js';
import { PostgresStore, type PostgresStoreOptions } from '../stores/postgres/index.js';
import { nameOf } from './values.js';

/** The flags that select the outbox. */
export interface DatabaseFlags {
  url?: string;
  schema?: string;
  tablePrefix?: string;
  jsonPayload?: boolean;
}

/** Adds the options that every command on an outbox in PostgreSQL has. */
export function databaseOptions(command: Command): Command {
  return command
    .option('--url <url>', 'connection string (default: the environment variable DATABASE_URL)')
    .option('--schema <name>', "the schema of the tables (default: 'messenger')", nameOf)
    .option('--table-prefix <prefix>', 'prefix for the name of every table', nameOf)
    .option('--json-payload', 'keep payloads in a column of type json');
}

/**
 * Connects, calls `use`, and closes the connection in any case. If no database was given, the error ends with
 * `otherwise`, which says what to do without a database.
 */
export async function withStore<T>(
  { url = process.env['DATABASE_URL'], ...options }: PostgresStoreOptions & { url?: string },
  use: (store: PostgresStore) => Promise<T>,
  otherwise = '',
): Promise<T> {
  if (url === undefined || url === '') {
    throw new MessengerError('INVALID_OPTION', `no database was given: pass --url or set DATABASE_URL${otherwise}`);
  }
  assertUrl(url);
  const { default: pg } = await clientLibrary();
  const pool = new pg.Pool({ connectionString: url, max: 1, connectionTimeoutMillis: 10_000 });
  try {
    return await use(new PostgresStore(pool, options));
  } finally {
    await pool.end();
  }
}

/** Runs an operator function that every store has, on the outbox that the flags select. */
export async function withAdmin<T>(flags: DatabaseFlags, use: (admin: OutboxAdmin) => Promise<T>): Promise<T> {
  return withStore(flags, (store) => use(store.admin));
}

async function clientLibrary() {
  try {
    return await import('pg');
  } catch (cause) {
    throw new MessengerError(
      'UNSUPPORTED',
      'the package pg is needed to connect, but is not installed: npm install pg',
      { cause },
    );
  }
}

/**
 * Without this check, `pg` would report an error about a host that the user did not name. The value is not quoted,
 * because it may contain a password.
 */
function assertUrl(url: string): void {
  if (/^postgres(ql)?:\/\/./.test(url) && URL.canParse(url)) return;
  throw new MessengerError(
    'INVALID_OPTION',
    'the connection string is not of the form postgresql://user:password@host:port/database (from --url or DATABASE_URL)',
  );
}

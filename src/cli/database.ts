import { InvalidArgumentError, type Command } from 'commander';
import type pg from 'pg';
import { MessengerError } from '../core/errors.js';

/** The flags of every command that works on an outbox in PostgreSQL. */
export interface DatabaseFlags {
  url?: string;
  schema?: string;
  tablePrefix?: string;
}

/** Adds the flags that say which outbox is meant. */
export function withDatabaseOptions(command: Command): Command {
  return command
    .option('--url <url>', 'connection string (default: the environment variable DATABASE_URL)')
    .option('--schema <name>', "the schema of the tables (default: 'messenger')", nameOf)
    .option('--table-prefix <prefix>', 'put before the name of every table', nameOf);
}

/** Runs with a pool of one connection. `otherwise` is what to do without a database, for the error. */
export async function withPool<T>(
  url: string | undefined = process.env['DATABASE_URL'],
  otherwise: string,
  work: (pool: pg.Pool) => Promise<T>,
): Promise<T> {
  if (url === undefined || url === '') {
    throw new MessengerError('INVALID_OPTION', `which database? Give --url or set DATABASE_URL${otherwise}`);
  }
  assertUrl(url);
  const { default: library } = await clientLibrary();
  const pool = new library.Pool({ connectionString: url, max: 1, connectionTimeoutMillis: 10_000 });
  try {
    return await work(pool);
  } finally {
    await pool.end();
  }
}

async function clientLibrary() {
  try {
    return await import('pg');
  } catch (cause) {
    throw new MessengerError('UNSUPPORTED', 'the package pg is needed to connect: npm install pg, or use --sql', {
      cause,
    });
  }
}

/** What pg makes of anything else is an error about a host that nobody named. The value may hold a password. */
function assertUrl(url: string): void {
  if (/^postgres(ql)?:\/\/./.test(url) && URL.canParse(url)) return;
  throw new MessengerError(
    'INVALID_OPTION',
    'the connection string is not of the form postgresql://user:password@host:port/database (from --url or DATABASE_URL)',
  );
}

/** A forgotten value would take the next flag for one. */
export function nameOf(text: string): string {
  if (text.startsWith('--')) throw new InvalidArgumentError('a name is missing before it.');
  return text;
}

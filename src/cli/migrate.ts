import { Command, InvalidArgumentError } from 'commander';
import { MessengerError } from '../core/errors.js';
import { migrationScript, PostgresStore, type PostgresStoreOptions } from '../stores/postgres/index.js';

interface MigrateFlags {
  url?: string;
  schema?: string;
  tablePrefix?: string;
  jsonPayload?: boolean;
  partitions?: number;
  retention?: number;
  sql?: boolean;
}

/** `messenger migrate`: creates the tables of an outbox, or prints what would. */
export function migrateCommand(): Command {
  return new Command('migrate')
    .description('create the tables of an outbox in PostgreSQL, or bring them to this version')
    .option('--url <url>', 'connection string (default: the environment variable DATABASE_URL)')
    .option('--schema <name>', "the schema of the tables (default: 'messenger')", nameOf)
    .option('--table-prefix <prefix>', 'put before the name of every table', nameOf)
    .option('--json-payload', 'keep payloads in a column of type json')
    .option('--partitions <number>', 'how many partitions keys are spread over (default: 8)', wholeNumber)
    .option('--retention <ms>', 'the longest clean-up that will be used, in milliseconds (default: a day)', wholeNumber)
    .option('--sql', 'print the SQL for an empty database and change nothing')
    .action(run);
}

async function run({ url = process.env['DATABASE_URL'], sql = false, ...options }: MigrateFlags): Promise<void> {
  if (sql) {
    process.stdout.write(await migrationScript(options));
    return;
  }
  if (url === undefined || url === '') {
    throw new MessengerError(
      'INVALID_OPTION',
      'which database? Give --url or set DATABASE_URL; --sql prints the SQL without one',
    );
  }
  assertUrl(url);
  const { default: pg } = await clientLibrary();
  const pool = new pg.Pool({ connectionString: url, max: 1, connectionTimeoutMillis: 10_000 });
  try {
    report(await new PostgresStore(pool, options).migrate(), options);
  } finally {
    await pool.end();
  }
}

function report(applied: readonly string[], { schema = 'messenger' }: PostgresStoreOptions): void {
  if (applied.length === 0) console.log(`schema ${schema} is up to date: nothing to do`);
  for (const name of applied) console.log(`applied ${name} to schema ${schema}`);
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
function nameOf(text: string): string {
  if (text.startsWith('--')) throw new InvalidArgumentError('a name is missing before it.');
  return text;
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) throw new InvalidArgumentError('must be a whole number.');
  return value;
}

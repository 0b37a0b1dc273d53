import { Command, InvalidArgumentError } from 'commander';
import { migrationScript, PostgresStore, type PostgresStoreOptions } from '../stores/postgres/index.js';
import { nameOf, withDatabaseOptions, withPool, type DatabaseFlags } from './database.js';

interface MigrateFlags extends DatabaseFlags {
  jsonPayload?: boolean;
  partitions?: number;
  retention?: number;
  environment?: string;
  sql?: boolean;
}

/** `messenger migrate`: creates the tables of an outbox, or prints what would. */
export function migrateCommand(): Command {
  return withDatabaseOptions(new Command('migrate'))
    .description('create the tables of an outbox in PostgreSQL, or bring them to this version')
    .option('--json-payload', 'keep payloads in a column of type json')
    .option('--partitions <number>', 'how many partitions keys are spread over (default: 8)', wholeNumber)
    .option('--retention <ms>', 'the longest clean-up that will be used, in milliseconds (default: a day)', wholeNumber)
    .option('--environment <name>', 'the environment that this outbox belongs to, kept in it', nameOf)
    .option('--sql', 'print the SQL for an empty database and change nothing')
    .action(run);
}

async function run({ url, sql = false, ...options }: MigrateFlags): Promise<void> {
  if (sql) {
    const { environment: _, ...tables } = options;
    process.stdout.write(await migrationScript(tables));
    return;
  }
  await withPool(url, '; --sql prints the SQL without one', async (pool) => {
    report(await new PostgresStore(pool, options).migrate(), options);
  });
}

function report(applied: readonly string[], { schema = 'messenger' }: PostgresStoreOptions): void {
  if (applied.length === 0) console.log(`schema ${schema} is up to date: nothing to do`);
  for (const name of applied) console.log(`applied ${name} to schema ${schema}`);
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) throw new InvalidArgumentError('must be a whole number.');
  return value;
}

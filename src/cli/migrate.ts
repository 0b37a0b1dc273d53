import { Command } from 'commander';
import { MessengerError } from '../core/errors.js';
import { migrationScript, type PostgresTableOptions } from '../stores/postgres/index.js';
import { databaseOptions, withStore } from './database.js';
import { duration, nameOf, wholeNumber } from './values.js';

interface MigrateFlags extends PostgresTableOptions {
  url?: string;
  environment?: string;
  sql?: boolean;
  from?: number;
  transaction: boolean;
}

/** `messenger migrate`: creates the tables of an outbox, or prints the SQL that creates them. */
export function migrateCommand(): Command {
  return databaseOptions(new Command('migrate'))
    .description('create the tables of an outbox in PostgreSQL, or upgrade them to this version')
    .option('--partitions <number>', 'number of partitions to spread the keys over (default: 8)', wholeNumber)
    .option(
      '--retention <duration>',
      'the longest expiration that cleaning will use, such as 7d (default: a day)',
      duration,
    )
    .option('--environment <name>', 'the environment that this outbox belongs to, stored in its tables', nameOf)
    .option('--sql', 'print the SQL for an empty database, and change nothing')
    .option('--from <version>', 'with --sql: only what is new since this version of the tables', wholeNumber)
    .option('--no-transaction', 'with --sql: without BEGIN and COMMIT, for a migration tool')
    .action(run);
}

async function run({ url, sql = false, from, transaction, ...options }: MigrateFlags): Promise<void> {
  if (sql) {
    const { environment, ...tables } = options;
    if (environment !== undefined) {
      throw new MessengerError(
        'INVALID_OPTION',
        '--sql prints the tables, and the environment is not part of them: remove --environment, and after the script has run, run `messenger migrate --environment` on the database',
      );
    }
    process.stdout.write(await migrationScript({ ...tables, transaction, ...(from !== undefined && { from }) }));
    return;
  }
  if (from !== undefined || !transaction) {
    throw new MessengerError(
      'INVALID_OPTION',
      '--from and --no-transaction change the SQL that --sql prints: pass --sql too, or remove them',
    );
  }
  const applied = await withStore(
    { ...options, ...(url !== undefined && { url }) },
    (store) => store.migrate(),
    '; --sql prints the SQL without a database',
  );
  const { schema = 'messenger' } = options;
  if (applied.length === 0) console.log(`schema ${schema} is up to date: nothing to do`);
  for (const name of applied) {
    console.log(name.endsWith('.sql') ? `applied ${name} to schema ${schema}` : `set ${name} in schema ${schema}`);
  }
}

import { MessengerError } from '../../../core/errors.js';
import { describe } from '../../../core/util/describe.js';
import { type Connection, type Database, type TransactionBounds, preamble } from '../sql/database.js';
import { literal, type Names } from '../sql/names.js';
import { statement } from '../sql/statement.js';

/** The name of the setting that contains the database's environment (see the `environment` option). */
const ENVIRONMENT = 'environment';

/** SQLSTATE insufficient_privilege. */
const NOT_ALLOWED = '42501';

/** Returns the command to run, for every error about tables that came from another cluster. */
export function howToRebase(names: Names, environment?: string): string {
  const prefix = names.prefix === '' ? '' : ` --table-prefix ${names.prefix}`;
  const name = environment === undefined ? '' : ` --environment ${environment}`;
  const call = environment === undefined ? '' : `{ environment: ${JSON.stringify(environment)} }`;
  return `run \`messenger rebase --schema ${names.schema}${prefix}${name}\` or \`await store.admin.rebase(${call})\` with the role that owns the tables`;
}

/**
 * Returns an SQL condition that is true if a cursor was written in another cluster. In such a row, the transaction id
 * in `written_by` differs from the row's own `xmin`. The two ids stay equal after freezing, failover and pg_upgrade.
 * They differ after a dump has been restored, or after the row has been replicated logically.
 */
export function isForeign(cursor: string): string {
  return `${cursor}.xmin <> ${cursor}.written_by::xid`;
}

/**
 * Returns an SQL condition that is true if the log contains a transaction id that this cluster has not reached. Rows
 * with such an id come from another cluster, even if no cursor shows it. The SQL uses the index on (xid, seq) instead
 * of `max`, because xid8 has no `max` before PostgreSQL 16.
 */
export function isAheadOfCluster(names: Names): string {
  return `coalesce((SELECT xid FROM ${names.messages} ORDER BY xid DESC LIMIT 1) >= pg_snapshot_xmax(pg_current_snapshot()), false)`;
}

/**
 * Throws for tables with transaction ids from another cluster. Those ids mean nothing here, so messages would be lost.
 * The check covers all destinations, because cleaning depends on the cursors of every destination.
 *
 * @throws MessengerError `SCHEMA_MISMATCH`. The error says what to run.
 */
export async function assertWrittenHere(connection: Connection, names: Names): Promise<void> {
  const [row] = await connection.query(
    statement(
      'origin',
      `SELECT (SELECT string_agg(DISTINCT destination, ', ') FROM ${names.cursors} c WHERE ${isForeign('c')}), (${isAheadOfCluster(names)})::text`,
    ),
  );
  const [foreign, ahead] = (row ?? []) as (string | null)[];
  if (foreign === null && ahead !== 'true') return;
  const what = foreign === null ? `the rows of ${names.messages} were` : `the cursor of destination ${foreign} was`;
  throw new MessengerError(
    'SCHEMA_MISMATCH',
    `${what} not written by this database cluster (a restored dump or a logical copy?): transaction ids from another cluster mean nothing here, so messages would be lost. To continue from them, ${howToRebase(names)}`,
  );
}

/** @throws MessengerError `INVALID_OPTION` for a value that cannot be the name of an environment. */
export function checkEnvironment(environment: unknown): string | undefined {
  if (environment === undefined) return undefined;
  if (typeof environment === 'string' && environment !== '' && !environment.includes('\u0000')) return environment;
  throw new MessengerError(
    'INVALID_OPTION',
    `environment must be a non-empty string without NUL, got ${describe(environment)}`,
  );
}

/**
 * Throws if the database belongs to another environment. Without this check, nothing distinguishes a physical clone
 * from the original. It also throws if this store has no environment, because the relay that is most likely to publish
 * production's messages from a clone is one that nobody has configured.
 *
 * @throws MessengerError `SCHEMA_MISMATCH`. The error names both environments, and says what to run.
 */
export function assertEnvironment(names: Names, stored: string | undefined, given: string | undefined): void {
  if (stored === undefined || stored === given) return;
  const belongs = `this outbox (${names.messages}) belongs to the environment ${JSON.stringify(stored)}`;
  throw new MessengerError(
    'SCHEMA_MISMATCH',
    given === undefined
      ? `${belongs}, and this store does not say which environment it belongs to: pass the environment option`
      : `${belongs}, but this store belongs to ${JSON.stringify(given)}: a copy of another environment's database must not publish its messages. If it should publish them from now on, ${howToRebase(names, given)}`,
  );
}

/** Returns the stored name, or `undefined` if no name has been stored yet. */
export async function environmentOf(connection: Connection, names: Names): Promise<string | undefined> {
  const [row] = await connection.query(
    statement('environment', `SELECT value FROM ${names.settings} WHERE name = ${literal(ENVIRONMENT)}`),
  );
  return row?.[0] as string | undefined;
}

/** Stores the name in the current transaction, and replaces any other name. */
export async function setEnvironment(connection: Connection, names: Names, environment: string): Promise<void> {
  await connection.query(
    statement(
      'name',
      `INSERT INTO ${names.settings} (name, value) VALUES (${literal(ENVIRONMENT)}, $1::text)
  ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE ${names.settings}.value <> excluded.value`,
    ),
    [environment],
  );
}

/**
 * Stores this name in a database that has none. If two relays store different names at once, the second relay gets an
 * error.
 *
 * @returns whether the database had no name before.
 * @throws MessengerError `SCHEMA_MISMATCH` if the database has another name, or if this role may not store one.
 */
export async function claimEnvironment(
  database: Database,
  names: Names,
  environment: string,
  bounds: TransactionBounds,
): Promise<boolean> {
  const claim = statement(
    'first',
    `INSERT INTO ${names.settings} (name, value) VALUES (${literal(ENVIRONMENT)}, $1::text) ON CONFLICT DO NOTHING RETURNING name`,
  );
  try {
    return await database.transaction(
      preamble(bounds.timeout),
      async (connection) => {
        const isUnnamed = (await environmentOf(connection, names)) === undefined;
        const claimed = isUnnamed ? await connection.query(claim, [environment]) : [];
        assertEnvironment(names, await environmentOf(connection, names), environment);
        return claimed.length > 0;
      },
      bounds,
    );
  } catch (error) {
    if ((error as { code?: unknown } | null)?.code !== NOT_ALLOWED) throw error;
    throw new MessengerError(
      'SCHEMA_MISMATCH',
      `${names.settings} does not say yet which environment this outbox belongs to, and this role is not allowed to set it: run \`messenger migrate\` with --environment ${environment}`,
      { cause: error },
    );
  }
}

import { MessengerError } from '../../../core/errors.js';
import { describe } from '../../../core/util/describe.js';
import { type Connection, type Database, type TransactionBounds, preamble } from '../sql/database.js';
import { literal, type Names } from '../sql/names.js';
import { statement } from '../sql/statement.js';

/** The name under which a database says whose it is: see the option `environment`. */
const ENVIRONMENT = 'environment';

/** SQLSTATE insufficient_privilege. */
const NOT_ALLOWED = '42501';

/** What to run, for every error about tables that came from elsewhere. */
export function howToRebase(names: Names, environment?: string): string {
  const prefix = names.prefix === '' ? '' : ` --table-prefix ${names.prefix}`;
  const name = environment === undefined ? '' : ` --environment ${environment}`;
  const call = environment === undefined ? '' : `{ environment: ${JSON.stringify(environment)} }`;
  return `run \`messenger rebase --schema ${names.schema}${prefix}${name}\` or \`await store.admin.rebase(${call})\` with the role that owns the tables`;
}

/**
 * A cursor that another cluster wrote: its transaction is not the row's own. They stay equal through
 * freezing, failover and pg_upgrade, and differ after a dump was restored or the row copied logically.
 */
export function isForeign(cursor: string): string {
  return `${cursor}.xmin <> ${cursor}.written_by::xid`;
}

/**
 * Whether the log has a transaction id that this cluster has not come to: then its rows are another's,
 * also where no cursor tells so. By the index on (xid, seq), not by `max`, which xid8 lacks before
 * PostgreSQL 16.
 */
export function isAheadOfCluster(names: Names): string {
  return `coalesce((SELECT xid FROM ${names.messages} ORDER BY xid DESC LIMIT 1) >= pg_snapshot_xmax(pg_current_snapshot()), false)`;
}

/**
 * Refuses tables whose transaction ids are those of another cluster: here they mean nothing, and
 * messages would be lost. Of all destinations, since cleaning goes by the cursors of each.
 *
 * @throws MessengerError `SCHEMA_MISMATCH` that names what to run.
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
    `${what} not written by this database cluster (a restored dump or a logical copy?): transaction ids of another cluster mean nothing here, and messages would be lost. To go on from them, ${howToRebase(names)}`,
  );
}

/** @throws MessengerError `INVALID_OPTION` for a name that is none. */
export function checkEnvironment(environment: unknown): string | undefined {
  if (environment === undefined) return undefined;
  if (typeof environment === 'string' && environment !== '' && !environment.includes('\u0000')) return environment;
  throw new MessengerError(
    'INVALID_OPTION',
    `environment must be a non-empty string without NUL, got ${describe(environment)}`,
  );
}

/**
 * Refuses a database that says that it is another environment's: a physical clone of it looks exactly
 * like the original. Also where this side says nothing: what is most likely to publish production's
 * messages from a clone is the relay that nobody thought of configuring.
 *
 * @throws MessengerError `SCHEMA_MISMATCH` that names both, and what to run.
 */
export function assertEnvironment(names: Names, stored: string | undefined, given: string | undefined): void {
  if (stored === undefined || stored === given) return;
  const belongs = `this outbox (${names.messages}) belongs to the environment ${JSON.stringify(stored)}`;
  throw new MessengerError(
    'SCHEMA_MISMATCH',
    given === undefined
      ? `${belongs}, and this store does not say which is its own: pass the option environment`
      : `${belongs}, this store to ${JSON.stringify(given)}: a copy of another environment's database must not publish its messages. If it is meant to from now on, ${howToRebase(names, given)}`,
  );
}

/** The stored name, `undefined` where none was given yet. */
export async function environmentOf(connection: Connection, names: Names): Promise<string | undefined> {
  const [row] = await connection.query(
    statement('environment', `SELECT value FROM ${names.settings} WHERE name = ${literal(ENVIRONMENT)}`),
  );
  return row?.[0] as string | undefined;
}

/** Stores the name, in the transaction at hand; an other one is replaced. */
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
 * Gives a database without a name this one. When two do so at once, the one that comes second refuses.
 *
 * @returns whether it had none before.
 * @throws MessengerError `SCHEMA_MISMATCH` when it has another name, or when this role may not store one.
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
      `${names.settings} does not say yet which environment this outbox belongs to, and this role may not write it there: run \`messenger migrate\` with --environment ${environment}`,
      { cause: error },
    );
  }
}

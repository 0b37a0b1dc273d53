import { MessengerError } from '../../../core/errors.js';
import { preamble, type Connection, type Database } from '../sql/database.js';
import { columnsOf } from '../sql/columns.js';
import { assertPostgres, onPostgres, SERVER } from '../sql/lookalikes.js';
import { literal, SLICES, type Names } from '../sql/names.js';
import { assertEnvironment, assertWrittenHere, environmentOf, howToRebase } from './provenance.js';
import { rowSecurityError } from '../sql/independent-database.js';
import { statement } from '../sql/statement.js';

/** The settings that a store expects its tables to have. */
export interface Expected {
  readonly partitions: number;
  readonly jsonPayload: boolean;
  /** How many seconds each slice of the log spans. */
  readonly sliceSeconds: number;
  /** Whether the retention was given. If not, the tables can have any retention. */
  readonly sliceSecondsGiven: boolean;
  /** Whether these options were given. If not, `migrate` takes their values from the tables. */
  readonly partitionsGiven: boolean;
  readonly jsonPayloadGiven: boolean;
  /** The environment to which this store belongs. */
  readonly environment?: string | undefined;
}

/**
 * Returns the longest `cleanUp`, in milliseconds, for slices that span this many seconds. Two slices do not count,
 * because one is being written and one is being emptied.
 */
export function retentionOf(sliceSeconds: number): number {
  return sliceSeconds * (SLICES - 2) * 1000;
}

/** The number of the newest migration in this version of the library. */
export const SCHEMA_VERSION = 11;

/** Returns the command to run, for every error about missing or old tables. */
export function howToMigrate(names: Names): string {
  const prefix = names.prefix === '' ? '' : ` --table-prefix ${names.prefix}`;
  return `run \`messenger migrate --schema ${names.schema}${prefix}\` or \`await store.migrate()\` with a role that may create tables`;
}

/** The columns that show whether the tables exist, and which kind of server this is. */
const FOUND = columnsOf('exists', 'version', 'mapsRoles');

/**
 * Returns the number of the newest migration that was applied, or 0 if there is none.
 *
 * @throws MessengerError `UNSUPPORTED` on a server that is not PostgreSQL.
 */
export async function schemaVersion(connection: Connection, names: Names): Promise<number> {
  const exists = `(to_regclass(${literal(names.migrations)}) IS NOT NULL)::text`;
  const look = statement('exists', `SELECT ${FOUND.list({ exists, ...SERVER })}`);
  const [found = []] = await connection.query(look);
  const { at } = FOUND;
  assertPostgres({ version: found[at.version], mapsRoles: found[at.mapsRoles] });
  if (found[at.exists] !== 'true') return 0;
  const [row] = await connection.query(
    statement('version', `SELECT coalesce(max(number), 0)::text FROM ${names.migrations}`),
  );
  return Number(row?.[0]);
}

/**
 * Throws for tables in which messages could be lost or could overtake one another.
 *
 * @throws MessengerError `SCHEMA_MISMATCH`. The error says what is wrong, and what to run if that helps. `UNSUPPORTED`
 *   on a standby, or on a server that is not PostgreSQL.
 */
export async function verifySchema(
  database: Database,
  names: Names,
  expected: Expected,
  bounds: { timeout: number; signal?: AbortSignal | undefined },
): Promise<void> {
  await onPostgres(database).transaction(
    preamble(bounds.timeout, 'SET TRANSACTION READ ONLY'),
    async (connection) => {
      await assertPrimary(connection);
      const version = await schemaVersion(connection, names);
      if (version < SCHEMA_VERSION) {
        const state = version === 0 ? 'is missing' : `is at version ${String(version)}`;
        throw mismatch(
          `the schema of ${names.messages} ${state}, but this library needs version ${String(SCHEMA_VERSION)}: ${howToMigrate(names)}`,
        );
      }
      await assertAllIsSeen(connection, names);
      await verifySettings(connection, names, expected);
      assertEnvironment(names, await environmentOf(connection, names), expected.environment);
      await assertWrittenHere(connection, names);
      await verifyLog(connection, names);
    },
    bounds,
  );
}

/** Check this before the lease, because on a standby, the primary's relays seem to hold the lease. */
async function assertPrimary(connection: Connection): Promise<void> {
  const [row] = await connection.query(statement('standby', 'SELECT pg_is_in_recovery()::text'));
  if (row?.[0] !== 'true') return;
  throw new MessengerError(
    'UNSUPPORTED',
    'this server is a standby: its snapshots omit running transactions, so messages would be lost. Connect the relay to the primary',
  );
}

/**
 * Asks PostgreSQL itself, because only PostgreSQL knows who owns a table and who is exempt from its policies.
 *
 * @throws MessengerError `SCHEMA_MISMATCH` if a policy can hide rows of our tables from this role.
 */
export async function assertAllIsSeen(connection: Connection, names: Names): Promise<void> {
  const { messages, cursors, claims, parked, settings, destinations, relays } = names;
  const others = [cursors, claims, parked, settings, destinations, relays].map(literal).join(', ');
  const [row] = await connection.query(
    statement(
      'seen',
      `SELECT string_agg(t.name::text, ', ' ORDER BY t.name::text) FROM (
    SELECT unnest(ARRAY[${others}]::regclass[]) UNION SELECT relid FROM pg_partition_tree(${literal(messages)}::regclass)) AS t (name)
  WHERE row_security_active(t.name::oid)`,
    ),
  );
  if (typeof row?.[0] === 'string') throw rowSecurityError(`it is on for ${row[0]}`);
}

async function verifySettings(
  connection: Connection,
  names: Names,
  { partitions, jsonPayload, sliceSeconds, sliceSecondsGiven }: Expected,
): Promise<void> {
  const rows = await connection.query(statement('settings', `SELECT name, value FROM ${names.settings}`));
  const settings = new Map(rows.map(([name, value]) => [name as string, value as string]));
  const wanted = { partitions: String(partitions), payload_type: jsonPayload ? 'json' : 'bytea' };
  for (const [name, value] of Object.entries(wanted)) {
    if (settings.get(name) === value) continue;
    throw mismatch(
      `${names.settings} says ${name} = ${settings.get(name) ?? 'nothing'}, but this store was given ${value}: relays and writers must agree`,
    );
  }
  const width = Number(settings.get('slice_seconds'));
  if (sliceSecondsGiven && width !== sliceSeconds) {
    throw mismatch(
      `the tables of ${names.messages} have a retention of ${String(retentionOf(width))} ms, but this store was given ${String(retentionOf(sliceSeconds))} ms: remove the retention option, or change the tables with \`messenger migrate --retention\` or \`await store.migrate()\``,
    );
  }
}

/**
 * The largest number that the sequence may have reached. It is half of the largest integer up to which JavaScript
 * numbers are exact. The other half lasts for a century at a million messages a second.
 */
const LARGEST_SEQ = 2 ** 52;

/** Checks that PostgreSQL evaluates the columns in the order that the cursor relies on (see migration 1). */
async function verifyLog(connection: Connection, names: Names): Promise<void> {
  const log = `${literal(names.messages)}::regclass`;
  const sequence = `pg_get_serial_sequence(${literal(names.messages)}, 'seq')::regclass`;
  const known = `greatest(0, (SELECT max(seq) FROM ${names.messages}), (SELECT max(high) FROM ${names.cursors}))`;
  const [facts] = await connection.query(
    statement(
      'facts',
      `SELECT
  (SELECT string_agg(attname || ' ' || attidentity::text || ' ' || coalesce(pg_get_expr(adbin, adrelid), ''), '; ' ORDER BY attnum)
     FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = ${log} AND attname IN ('xid', 'seq') AND NOT attisdropped),
  (SELECT string_agg(DISTINCT tgname, ', ') FROM pg_trigger WHERE NOT tgisinternal
     AND tgrelid IN (SELECT relid FROM pg_partition_tree(${log}))),
  (SELECT seqcache::text FROM pg_sequence WHERE seqrelid = ${sequence}),
  (SELECT (coalesce(pg_sequence_last_value(${sequence}), 0) < ${known})::text),
  (SELECT count(*)::text FROM pg_inherits WHERE inhparent = ${log}),
  (SELECT (seqcycle OR seqincrement < 1 OR seqmin < 1)::text FROM pg_sequence WHERE seqrelid = ${sequence}),
  greatest(pg_sequence_last_value(${sequence}), ${known})::text, ${known}::text`,
    ),
  );
  const [order, triggers, cache, behind, slices, returns, last, largest] = (facts ?? []) as (string | null)[];
  if (order !== 'xid  pg_current_xact_id(); seq a ') {
    throw mismatch(
      `${names.messages} must have xid DEFAULT pg_current_xact_id() before seq GENERATED ALWAYS AS IDENTITY, found: ${String(order)}. Messages could be lost`,
    );
  }
  if (triggers !== null)
    throw mismatch(
      `${names.messages} has triggers (${String(triggers)}), which can change what is stored and in which order. Drop them`,
    );
  if (cache !== '1')
    throw mismatch(
      `the sequence of ${names.messages}.seq has a cache of ${String(cache)}, so sessions would store messages out of order. Run ALTER SEQUENCE … CACHE 1`,
    );
  if (returns === 'true')
    throw mismatch(
      `the sequence of ${names.messages}.seq cycles, counts down, or starts below 1, so messages would be lost. Run ALTER SEQUENCE … INCREMENT BY 1 MINVALUE 1 NO CYCLE`,
    );
  if (Number(last) > LARGEST_SEQ)
    throw mismatch(
      `the sequence of ${names.messages}.seq is at ${String(last)}: somebody has set it. From ${String(2 ** 53)} on, JavaScript cannot tell numbers apart, and messages would be lost. ${
        Number(largest) > LARGEST_SEQ
          ? 'Messages already have such numbers: continue with new tables, in another schema or with another tablePrefix'
          : `Set it back to just after the largest stored seq: ALTER SEQUENCE … RESTART WITH ${String(Number(largest) + 1)}`
      }`,
    );
  if (behind === 'true')
    throw mismatch(
      `the sequence of ${names.messages}.seq is behind the largest stored seq, or the largest published one, so new messages would be lost. To move it past both, ${howToRebase(names)}`,
    );
  if (slices !== String(SLICES))
    throw mismatch(`${names.messages} has ${String(slices)} slices, expected ${String(SLICES)}`);
}

/** @internal */
export function mismatch(message: string): MessengerError {
  return new MessengerError('SCHEMA_MISMATCH', message);
}

import { MessengerError } from '../../core/errors.js';
import { preamble, type Connection, type Database } from './database.js';
import { literal, SLICES, type Names } from './names.js';
import { assertEnvironment, assertWrittenHere, environmentOf, howToRebase } from './origin.js';
import { statement } from './statements.js';

/** What a store expects its tables to be. */
export interface Expected {
  readonly partitions: number;
  readonly jsonPayload: boolean;
  /** Seconds that each slice of the ring spans. */
  readonly sliceSeconds: number;
  /** Whether that was asked for: else the tables may say otherwise. */
  readonly sliceSecondsGiven: boolean;
  /** The environment that this side says it belongs to. */
  readonly environment?: string | undefined;
}

/** The longest `cleanUp`, in milliseconds, of a ring whose slices span so many seconds: one is written, one is emptied. */
export function retentionOf(sliceSeconds: number): number {
  return sliceSeconds * (SLICES - 2) * 1000;
}

/** The newest migration that this version of the library knows. */
export const SCHEMA_VERSION = 8;

/** What to run, for every error about tables that are missing or old. */
export function howToMigrate(names: Names): string {
  const prefix = names.prefix === '' ? '' : ` --table-prefix ${names.prefix}`;
  return `run \`messenger migrate --schema ${names.schema}${prefix}\` or \`await store.migrate()\` with a role that may create tables`;
}

/** The highest migration that was applied; 0 where there is none. */
export async function schemaVersion(connection: Connection, names: Names): Promise<number> {
  const exists = statement('exists', `SELECT (to_regclass(${literal(names.migrations)}) IS NOT NULL)::text`);
  const [found] = await connection.query(exists);
  if (found?.[0] !== 'true') return 0;
  const [row] = await connection.query(
    statement('version', `SELECT coalesce(max(number), 0)::text FROM ${names.migrations}`),
  );
  return Number(row?.[0]);
}

/**
 * Refuses to work on tables on which messages could be lost or overtake one another.
 *
 * @throws MessengerError `SCHEMA_MISMATCH` that says what is wrong, and what to run where that helps;
 *   `UNSUPPORTED` on a standby.
 */
export async function verifySchema(
  database: Database,
  names: Names,
  expected: Expected,
  bounds: { timeout: number; signal?: AbortSignal | undefined },
): Promise<void> {
  await database.transaction(
    preamble(bounds.timeout, 'SET TRANSACTION READ ONLY'),
    async (connection) => {
      await assertPrimary(connection);
      const version = await schemaVersion(connection, names);
      if (version < SCHEMA_VERSION) {
        const state = version === 0 ? 'is missing' : `is at version ${String(version)}`;
        throw mismatch(
          `the schema of ${names.messages} ${state}, this library needs version ${String(SCHEMA_VERSION)}: ${howToMigrate(names)}`,
        );
      }
      await verifySettings(connection, names, expected);
      assertEnvironment(names, await environmentOf(connection, names), expected.environment);
      await assertWrittenHere(connection, names);
      await verifyLog(connection, names);
    },
    bounds,
  );
}

/** Told before a lease is looked at: on a standby the primary's relays seem to hold it. */
async function assertPrimary(connection: Connection): Promise<void> {
  const [row] = await connection.query(statement('standby', 'SELECT pg_is_in_recovery()::text'));
  if (row?.[0] !== 'true') return;
  throw new MessengerError(
    'UNSUPPORTED',
    'this server is a standby: its snapshots omit running transactions, and messages would be lost. Connect the relay to the primary',
  );
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
      `${names.settings} says ${name} = ${settings.get(name) ?? 'nothing'}, this store was given ${value}: relays and writers must agree`,
    );
  }
  const width = Number(settings.get('slice_seconds'));
  if (sliceSecondsGiven && width !== sliceSeconds) {
    throw mismatch(
      `the tables of ${names.messages} have a retention of ${String(retentionOf(width))} ms, this store was given ${String(retentionOf(sliceSeconds))} ms: leave the option out, or change the tables with \`messenger migrate --retention\` or \`await store.migrate()\``,
    );
  }
}

/** The order of evaluation that the cursor stands on: see migration 1. */
async function verifyLog(connection: Connection, names: Names): Promise<void> {
  const log = `${literal(names.messages)}::regclass`;
  const [facts] = await connection.query(
    statement(
      'facts',
      `SELECT
  (SELECT string_agg(attname || ' ' || attidentity::text || ' ' || coalesce(pg_get_expr(adbin, adrelid), ''), '; ' ORDER BY attnum)
     FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = ${log} AND attname IN ('xid', 'seq') AND NOT attisdropped),
  (SELECT string_agg(DISTINCT tgname, ', ') FROM pg_trigger WHERE NOT tgisinternal
     AND tgrelid IN (SELECT relid FROM pg_partition_tree(${log}))),
  (SELECT seqcache::text FROM pg_sequence WHERE seqrelid = pg_get_serial_sequence(${literal(names.messages)}, 'seq')::regclass),
  (SELECT (coalesce(pg_sequence_last_value(pg_get_serial_sequence(${literal(names.messages)}, 'seq')::regclass), 0)
     < greatest(0, (SELECT max(seq) FROM ${names.messages}), (SELECT max(high) FROM ${names.cursors})))::text),
  (SELECT count(*)::text FROM pg_inherits WHERE inhparent = ${log})`,
    ),
  );
  const [order, triggers, cache, behind, slices] = (facts ?? []) as (string | null)[];
  if (order !== 'xid  pg_current_xact_id(); seq a ') {
    throw mismatch(
      `${names.messages} must have xid DEFAULT pg_current_xact_id() before seq GENERATED ALWAYS AS IDENTITY, found: ${String(order)}. Messages could be lost`,
    );
  }
  if (triggers !== null)
    throw mismatch(
      `${names.messages} has triggers (${String(triggers)}): they can change what is stored and in which order. Drop them`,
    );
  if (cache !== '1')
    throw mismatch(
      `the sequence of ${names.messages}.seq has a cache of ${String(cache)}: sessions would store out of order. ALTER SEQUENCE … CACHE 1`,
    );
  if (behind === 'true')
    throw mismatch(
      `the sequence of ${names.messages}.seq is behind the largest stored seq, or the largest published: new messages would be lost. To put it behind both, ${howToRebase(names)}`,
    );
  if (slices !== String(SLICES))
    throw mismatch(`${names.messages} has ${String(slices)} slices, expected ${String(SLICES)}`);
}

function mismatch(message: string): MessengerError {
  return new MessengerError('SCHEMA_MISMATCH', message);
}

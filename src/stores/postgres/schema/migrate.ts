import { conflict, LOCK_NOT_AVAILABLE } from '../sql/transact.js';
import { preamble, type Connection, type Database } from '../sql/database.js';
import { onPostgres } from '../sql/lookalikes.js';
import { literal, quote, SLICES, type Names } from '../sql/names.js';
import { migrations } from './migrations.js';
import { mismatch, retentionOf, SCHEMA_VERSION, schemaVersion, type Expected } from './verify.js';
import { revokeDefaults } from './privileges.js';
import { statement } from '../sql/statement.js';

/**
 * How long a change to the tables waits for a transaction that uses the log, in milliseconds. Meanwhile, writers wait
 * behind the change.
 */
const LONGEST_WAIT = 2_000;
/** The SQLSTATE for a deadlock. It occurs when another transaction locks the tables in a different order than we do. */
const DEADLOCK_DETECTED = '40P01';
const PATIENCE = `SET LOCAL lock_timeout = ${String(LONGEST_WAIT)}`;

/**
 * Clears `default_tablespace` if it names the database's own tablespace. PostgreSQL would otherwise refuse to create a
 * partitioned table. A table without an explicit tablespace goes to the database's own tablespace anyway.
 */
const TABLESPACE = `SELECT set_config('default_tablespace', CASE WHEN current_setting('default_tablespace') <> t.spcname THEN current_setting('default_tablespace') ELSE '' END, true)
  FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = current_database()`;

/** The options for a migration script. */
export interface ScriptOptions {
  /**
   * The current version of the tables. The script contains the later migrations.
   * @default 0, for tables that do not exist yet
   */
  from?: number;
  /**
   * Use `false` for a migration tool that runs each file in its own transaction. The script then has no `BEGIN` and
   * `COMMIT`. Between statements, it has `--> statement-breakpoint`, where drizzle-kit splits a file. Other tools treat
   * that as a comment.
   *
   * @default true
   */
  transaction?: boolean;
}

/** Returns all statements that still have to run, as one script for `psql` or a migration tool. */
export async function migrationSql(
  names: Names,
  settings: Expected,
  { from = 0, transaction = true }: ScriptOptions,
): Promise<string> {
  const todo = (await migrations(names, settings)).filter(({ number }) => number > from);
  const first = from > 0 ? [] : [`CREATE SCHEMA IF NOT EXISTS ${quote(names.schema)}`, ...bookkeeping(names)];
  const before = [
    'SET LOCAL standard_conforming_strings = on',
    TABLESPACE,
    ...(from > 0 ? [PATIENCE, lockInOrder(names)] : []),
  ];
  if (!transaction) {
    const all = todo.flatMap(({ number, name, statements }) => [...statements, record(names, number, name)]);
    return `${heading(from)}\n${[...before, ...first, ...all].join(';\n--> statement-breakpoint\n')};\n`;
  }
  const scripts = todo.map(({ number, name, sql }) => `-- ${name}\n${sql}\n${record(names, number, name)};\n`);
  return `BEGIN;\n${[...before, ...first].join(';\n')};\n\n${scripts.join('\n')}COMMIT;\n`;
}

/**
 * @throws MessengerError `CONFLICT` for tables that a logical subscription populates, because migrations of such tables
 *   are not recorded.
 */
async function assertNoSubscriber(connection: Connection, names: Names, version: number): Promise<void> {
  const [row] = await connection.query(
    statement(
      'subscribed',
      `SELECT EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = to_regclass(${literal(names.migrations)}))::text`,
    ),
  );
  if (row?.[0] !== 'true') return;
  throw conflict(
    `a logical subscription copies rows into the tables of ${names.messages}: run the SQL of \`messenger migrate --sql --from ${String(version)}\` here once, and then migrate the publisher`,
  );
}

/**
 * Returns SQL that locks the tables in the order in which a relay locks them. A relay settles first, and then reads the
 * messages that it parks. If the migration used the opposite order, it could deadlock with a relay. The SQL is a DO
 * block, because a tool that sends one statement at a time may run it outside a transaction.
 */
function lockInOrder({ cursors, messages }: Names): string {
  return `DO ${literal(`BEGIN LOCK TABLE ${cursors}, ${messages} IN ACCESS EXCLUSIVE MODE; END`)}`;
}

/** Returns a line that says how to generate the next script, for people who read this file years later. */
function heading(from: number): string {
  return `-- messenger-outbox, from version ${String(from)} of its tables to ${String(SCHEMA_VERSION)}. To print the next upgrade: messenger migrate --sql --no-transaction --from ${String(SCHEMA_VERSION)}`;
}

/**
 * Migrates the tables to the newest version, in one transaction. Several processes can safely migrate at once, because
 * they wait for one another. Tables from a newer version of the library do not change: within a major version,
 * migrations only add things. If there is nothing to do, the call needs no CREATE privilege.
 *
 * It also changes the retention of the tables if a different one was requested. From then on, new messages go to
 * different slices. Messages that are already stored stay in their slices, and are delivered and cleaned from there.
 *
 * @returns the names of the migrations that were applied now.
 * @throws MessengerError `CONFLICT` while a transaction that uses the log prevents the change; `SCHEMA_MISMATCH` if the
 *   number of partitions or the payload type differs from the requested one; `UNSUPPORTED` on a server that is not
 *   PostgreSQL.
 */
export async function migrate(
  database: Database,
  names: Names,
  settings: Expected,
  bounds: { timeout: number; signal?: AbortSignal | undefined },
): Promise<string[]> {
  try {
    return await applied(database, names, settings, bounds);
  } catch (error) {
    const { code } = (error ?? {}) as { code?: unknown };
    if (code !== LOCK_NOT_AVAILABLE && code !== DEADLOCK_DETECTED) throw error;
    throw conflict(
      `the tables could not be changed: a transaction that uses ${names.messages} (a long one, or pg_dump) was open for longer than ${String(LONGEST_WAIT)} ms, and others must not wait longer than that. Nothing was changed: try again`,
      error,
    );
  }
}

async function applied(
  database: Database,
  names: Names,
  settings: Expected,
  bounds: { timeout: number; signal?: AbortSignal | undefined },
): Promise<string[]> {
  return onPostgres(database).transaction(
    preamble(bounds.timeout, 'SET LOCAL standard_conforming_strings = on'),
    async (connection) => {
      const run = (text: string) => connection.query(statement('migrate', text));
      const found = await schemaVersion(connection, names);
      if (found > 0) assertAsked(names, settings, await tableSettings(connection, names));
      if (found >= SCHEMA_VERSION && !(await hasOtherRing(connection, names, settings))) return [];
      await run(
        `SELECT pg_advisory_xact_lock(hashtextextended(${literal(`messenger-outbox migrate ${names.migrations}`)}, 0))::text`,
      );
      const [schema] = await run(`SELECT (to_regnamespace(${literal(quote(names.schema))}) IS NOT NULL)::text`);
      // Check first, because CREATE SCHEMA IF NOT EXISTS needs the CREATE privilege even if the schema exists.
      if (schema?.[0] !== 'true') await run(`CREATE SCHEMA IF NOT EXISTS ${quote(names.schema)}`);
      await run(TABLESPACE);
      const version = await schemaVersion(connection, names);
      if (version === 0) for (const text of bookkeeping(names)) await run(text);
      else {
        if (version < SCHEMA_VERSION) await assertNoSubscriber(connection, names, version);
        for (const text of [PATIENCE, lockInOrder(names)]) await run(text);
      }
      // Another process may have created the tables meanwhile. Options that were not given take their values from the
      // tables.
      const existing = version === 0 ? undefined : await tableSettings(connection, names);
      if (existing) assertAsked(names, settings, existing);
      const done: string[] = [];
      for (const { number, name, statements } of await migrations(names, { ...settings, ...existing })) {
        if (number <= version) continue;
        for (const part of statements) await run(part);
        await run(record(names, number, name));
        done.push(name);
      }
      if (await hasOtherRing(connection, names, settings)) {
        for (const text of changeRing(names, settings.sliceSeconds)) await run(text);
        done.push(`retention ${String(retentionOf(settings.sliceSeconds))} ms`);
      }
      return done;
    },
    bounds,
  );
}

type TableSettings = Pick<Expected, 'partitions' | 'jsonPayload'>;

/** Returns the settings with which existing tables were created. A migration cannot change them. */
async function tableSettings(connection: Connection, { settings }: Names): Promise<TableSettings> {
  const rows = await connection.query(statement('settings', `SELECT name, value FROM ${settings}`));
  const values = new Map(rows.map(([name, value]) => [name, value]));
  return { partitions: Number(values.get('partitions')), jsonPayload: values.get('payload_type') === 'json' };
}

/** @throws MessengerError `SCHEMA_MISMATCH` if an option was given and differs from the tables. */
function assertAsked(names: Names, asked: Expected, { partitions, jsonPayload }: TableSettings): void {
  if (asked.partitionsGiven && asked.partitions !== partitions) {
    throw mismatch(
      `the tables of ${names.messages} have ${String(partitions)} partitions, and migrating does not change that to ${String(asked.partitions)}. Nothing was changed. Stop every relay and run \`messenger repartition ${String(asked.partitions)}\` or \`await store.admin.repartition(${String(asked.partitions)})\`, or leave out the partitions option`,
    );
  }
  if (asked.jsonPayloadGiven && asked.jsonPayload !== jsonPayload) {
    throw mismatch(
      `the tables of ${names.messages} keep payloads as ${jsonPayload ? 'json' : 'bytea'}, and migrating does not change that. Nothing was changed. ${jsonPayload ? 'Keep jsonPayload: true' : 'Leave out the jsonPayload option'}, or create other tables with the schema or tablePrefix option`,
    );
  }
}

/** Returns whether each slice of the log spans a different length of time than requested. */
async function hasOtherRing(connection: Connection, names: Names, settings: Expected): Promise<boolean> {
  if (!settings.sliceSecondsGiven) return false;
  const width = statement('width', `SELECT value FROM ${names.settings} WHERE name = 'slice_seconds'`);
  const [row] = await connection.query(width);
  return row?.[0] !== String(settings.sliceSeconds);
}

/**
 * Returns SQL that changes the time that each slice spans. Messages are inserted into the log, so PostgreSQL does not
 * use the default that a slice itself has. That default changes too, but only for tidiness.
 */
function changeRing(names: Names, sliceSeconds: number): string[] {
  return [
    PATIENCE,
    `ALTER TABLE ${names.messages} ALTER COLUMN slice SET DEFAULT (floor(date_part('epoch', clock_timestamp()) / ${String(sliceSeconds)})::bigint % ${String(SLICES)})::smallint`,
    `UPDATE ${names.settings} SET value = '${String(sliceSeconds)}' WHERE name = 'slice_seconds'`,
  ];
}

function bookkeeping(names: Names): string[] {
  const table = `CREATE TABLE IF NOT EXISTS ${names.migrations} (number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`;
  return [table, revokeDefaults(names, names.migrations)];
}

/**
 * Returns SQL that records a migration, unless a subscription populates the table. The publisher's row will then
 * arrive, and a second row would stop the subscription's worker.
 */
function record(names: Names, number: number, name: string): string {
  return `INSERT INTO ${names.migrations} (number, name) SELECT * FROM (VALUES (${String(number)}, ${literal(name)})) AS applied
  WHERE NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = to_regclass(${literal(names.migrations)}))`;
}

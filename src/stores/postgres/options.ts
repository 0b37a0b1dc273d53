import { MessengerError } from '../../core/errors.js';
import { describe } from '../../core/util/describe.js';
import { checkKeys, numberOption } from '../../core/util/options.js';
import { migrationSql, type ScriptOptions } from './schema/migrate.js';
import { namesOf, SLICES, type Names } from './sql/names.js';
import { PARTITIONS } from './ops/repartition.js';
import { SCHEMA_VERSION, type Expected } from './schema/verify.js';

const DAY = 86_400_000;

/** What the tables of a store are, decided when they are made. Durations in milliseconds. */
export interface PostgresTableOptions {
  /** The schema of the store's tables. @default 'messenger' */
  schema?: string;
  /** Put before the name of every table, for several outboxes in one schema. @default '' */
  tablePrefix?: string;
  /** Keep payloads in a column of type `json`, to be queried. They must be JSON then; their bytes stay as they are. @default false */
  jsonPayload?: boolean;
  /** How many partitions the keys are spread over: 1 to 1,024. @default 8 */
  partitions?: number;
  /**
   * The longest `cleanUp` that will be used: it sets how long a slice of the log spans. `migrate` changes
   * it; a relay that is given another than its tables have refuses to start.
   *
   * @default what the tables have; 86_400_000 (a day) when they are made
   */
  retention?: number;
}

/** What {@link migrationScript} makes: the tables' own options, and these. */
export interface MigrationScriptOptions extends PostgresTableOptions, ScriptOptions {}

/**
 * The SQL that creates the tables of an outbox in an empty database, or that brings those of version `from`
 * to this one: for a migration tool or a review.
 *
 * @throws MessengerError `INVALID_OPTION` for an option out of range, quoting it.
 */
export async function migrationScript(options: MigrationScriptOptions = {}): Promise<string> {
  checkKeys(options, [...TABLE_KEYS, ...SCRIPT_KEYS]);
  const { from, transaction = true, ...tables } = options;
  if (typeof transaction !== 'boolean') throw invalid('transaction', 'true or false', transaction);
  // After the newest version there is nothing: an empty file would be taken for a migration.
  const since = numberOption('from', from, 0, { min: 0, max: SCHEMA_VERSION - 1, integer: true });
  const { names, settings } = tablesOf(tables);
  return migrationSql(names, settings, { from: since, transaction });
}

/** The names of these options. */
export const TABLE_KEYS: readonly string[] = Object.keys({
  schema: true,
  tablePrefix: true,
  jsonPayload: true,
  partitions: true,
  retention: true,
} satisfies Record<keyof PostgresTableOptions, true>);

const SCRIPT_KEYS = Object.keys({ from: true, transaction: true } satisfies Record<keyof ScriptOptions, true>);

/** Of the options of a store, those of its tables. */
export function tablesOnly(options: PostgresTableOptions): PostgresTableOptions {
  return Object.fromEntries(Object.entries(options).filter(([name]) => (TABLE_KEYS as string[]).includes(name)));
}

/** The names and settings that options stand for. @throws MessengerError `INVALID_OPTION`. */
export function tablesOf(options: PostgresTableOptions): { names: Names; settings: Expected } {
  const { schema = 'messenger', tablePrefix = '', jsonPayload = false } = options;
  if (typeof jsonPayload !== 'boolean') throw invalid('jsonPayload', 'true or false', jsonPayload);
  const partitions = numberOption('partitions', options.partitions, 8, PARTITIONS);
  const retention = numberOption('retention', options.retention, DAY, { min: 60_000, max: 3_650 * DAY });
  const sliceSeconds = Math.ceil(retention / 1000 / (SLICES - 2));
  const sliceSecondsGiven = options.retention !== undefined;
  return {
    names: namesOf(schema, tablePrefix),
    settings: {
      partitions,
      jsonPayload,
      sliceSeconds,
      sliceSecondsGiven,
      partitionsGiven: options.partitions !== undefined,
      jsonPayloadGiven: options.jsonPayload !== undefined,
    },
  };
}

/** @internal */
export function invalid(option: string, wanted: string, value: unknown): MessengerError {
  return new MessengerError('INVALID_OPTION', `${option} must be ${wanted}, got ${describe(value)}`);
}

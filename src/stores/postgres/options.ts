import { MessengerError } from '../../core/errors.js';
import { describe } from '../../core/util/describe.js';
import { checkFunction, checkKeys, DAY, hasMethods, numberOption, type KeysOf } from '../../core/util/options.js';
import { migrationSql, type ScriptOptions } from './schema/migrate.js';
import { namesOf, SLICES, type Names } from './sql/names.js';
import { checkEnvironment } from './schema/provenance.js';
import { PARTITIONS } from './ops/repartition.js';
import { SCHEMA_VERSION, type Expected } from './schema/verify.js';
import type { TransactionBridge } from '../../core/contracts/bridge.js';
import type { MessengerEvent } from '../../core/contracts/events.js';
import { checkedTransform, type MessageInput, type Transform } from '../../core/outbox/transform.js';
import type { PgPool } from './drivers/pg-client.js';

/** The options for the tables of a store. Durations are in milliseconds. */
export interface PostgresTableOptions {
  /** The schema of the store's tables. @default 'messenger' */
  schema?: string;
  /** A prefix for the name of every table, for several outboxes in one schema. @default '' */
  tablePrefix?: string;
  /**
   * Stores payloads in a `json` column, so that SQL can query them. Payloads must then be JSON. Their bytes do not
   * change. @default false
   */
  jsonPayload?: boolean;
  /** The number of partitions among which the keys are divided: 1 to 1,024. @default 8 */
  partitions?: number;
  /**
   * The longest `cleanUp` value that you will use: 60,000 (a minute) to 315,360,000,000 (ten years). It determines how
   * much time each slice of the log spans. `migrate` changes the retention of existing tables. A relay refuses to start
   * if its `retention` differs from the retention of the tables.
   *
   * @default the retention of the tables; 86_400_000 (a day) when the tables are created
   */
  retention?: number;
}

/** The options of {@link migrationScript}: the options for the tables, and those for the script. */
export interface MigrationScriptOptions extends PostgresTableOptions, ScriptOptions {}

/**
 * Returns the SQL that creates the tables of an outbox in an empty database. With `from`, it returns the SQL that
 * upgrades tables from that version to the newest version. Use the SQL with a migration tool or for a review.
 *
 * @throws MessengerError `INVALID_OPTION` for an option that is out of range. The error quotes the option.
 */
export async function migrationScript(options: MigrationScriptOptions = {}): Promise<string> {
  checkKeys(options, SCRIPT_KEYS);
  const { from, transaction = true, ...tables } = options;
  if (typeof transaction !== 'boolean') throw invalid('transaction', 'true or false', transaction);
  // `from` cannot be the newest version. The script would then be empty, and a migration tool would still treat it as a
  // migration.
  const since = numberOption('from', from, 0, { min: 0, max: SCHEMA_VERSION - 1, integer: true });
  const { names, settings } = tablesOf(tables);
  return migrationSql(names, settings, { from: since, transaction });
}

const TABLE_KEYS = {
  schema: true,
  tablePrefix: true,
  jsonPayload: true,
  partitions: true,
  retention: true,
} satisfies KeysOf<PostgresTableOptions>;

const SCRIPT_KEYS = { ...TABLE_KEYS, from: true, transaction: true } satisfies KeysOf<MigrationScriptOptions>;

/** Returns only those options of a store that concern its tables. */
export function tablesOnly(options: PostgresTableOptions): PostgresTableOptions {
  return Object.fromEntries(Object.entries(options).filter(([name]) => Object.hasOwn(TABLE_KEYS, name)));
}

/** Returns the names and settings for these options. @throws MessengerError `INVALID_OPTION`. */
function tablesOf(options: PostgresTableOptions): { names: Names; settings: Expected } {
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

function invalid(option: string, wanted: string, value: unknown): MessengerError {
  return new MessengerError('INVALID_OPTION', `${option} must be ${wanted}, got ${describe(value)}`);
}

const STORE_KEYS = {
  ...TABLE_KEYS,
  transform: true,
  bridge: true,
  lease: true,
  timeout: true,
  settle: true,
  environment: true,
  notify: true,
  listen: true,
  onEvent: true,
} satisfies KeysOf<PostgresStoreOptions>;

/** The options of a `PostgresStore`. Durations are in milliseconds. */
export interface PostgresStoreOptions<Input = MessageInput, Tx = never> extends PostgresTableOptions {
  /** Turns the argument of `add` into a message. @default accepts bytes, strings, JSON objects and ready messages */
  transform?: Transform<Input>;
  /**
   * Lets the store write through the transactions of a query builder or an ORM, such as `drizzleBridge(sql)`. @default
   * none
   */
  bridge?: TransactionBridge<Tx>;
  /** How long other relays wait before they replace a relay that died: 1,000 to 3,600,000. @default 10_000 */
  lease?: number;
  /**
   * How long one transaction of a relay or of a `store.admin` call can take: 1 to 3,600,000. `store.migrate` can take
   * twice as long. `store.admin.importFromGo` can take ten times as long, and so can `store.admin.addDestination` with
   * a start time. `store.admin.rebase` has its own `timeout`.
   * @default 30_000
   */
  timeout?: number;
  /**
   * With `'sync'`, settling waits for the disk. With `'async'`, it does not. If the database crashes, relays can then
   * repeat the messages from the last three `wal_writer_delay`s at most. @default 'async'
   */
  settle?: 'async' | 'sync';
  /**
   * The environment to which this outbox belongs, such as `'production'`. The database keeps the first name that
   * `migrate` or a relay sets. From then on, a relay with a different name, or without a name, refuses to use the
   * database. This stops a relay in another environment that is connected to a clone. Without the name, the relay could
   * not tell the clone from the original. Writers are not affected. @default none
   */
  environment?: string;
  /**
   * Whether storing a message notifies a sleeping relay. With `false`, relays find the message by polling. Use `false`
   * for writers that run PREPARE TRANSACTION, because PostgreSQL refuses to prepare a transaction that has notified.
   * @default true
   */
  notify?: boolean;
  /**
   * The `pg` Pool from which a relay takes one connection, to listen for notifications from writers. The relay takes
   * the connection when it first sleeps, and keeps it until it stops. The pool must connect directly to the server. If
   * a relay detects a pooler between the pool and the server, it polls instead. With `false`, relays only poll.
   * @default the store's own client, if it is a `pg` Pool of three connections or more
   */
  listen?: PgPool | false;
  /**
   * Receives the `stored` event for the messages that `add` has stored. Their transaction can still be rolled back.
   * @default none
   */
  onEvent?: (event: MessengerEvent) => void;
}

/** The options of a store, with defaults filled in. */
export interface StoreSettings<Input, Tx> {
  readonly names: Names;
  readonly tables: Expected;
  readonly transform: Transform<Input>;
  readonly bridge: TransactionBridge<Tx> | undefined;
  readonly lease: number;
  readonly timeout: number;
  readonly synchronousSettle: boolean;
  readonly environment: string | undefined;
  readonly notify: boolean;
  readonly onEvent: ((event: MessengerEvent) => void) | undefined;
}

/**
 * @throws MessengerError `INVALID_OPTION` for an option that is unknown or out of range. The error quotes the option.
 */
export function storeSettings<Input, Tx>(options: PostgresStoreOptions<Input, Tx>): StoreSettings<Input, Tx> {
  checkKeys(options, STORE_KEYS);
  const { settle = 'async', notify = true, transform, bridge, onEvent } = options;
  if (!['async', 'sync'].includes(settle)) throw invalid('settle', "'async' or 'sync'", settle);
  if (typeof notify !== 'boolean') throw invalid('notify', 'true or false', notify);
  checkFunction('transform', transform);
  if (bridge !== undefined && !hasMethods(bridge, 'isHandle', 'execute')) {
    throw invalid('bridge', 'an object with isHandle and execute methods, such as drizzleBridge(sql)', bridge);
  }
  checkFunction('onEvent', onEvent);
  const { names, settings: tables } = tablesOf(options);
  return {
    ...{ names, tables, bridge, notify, onEvent },
    transform: checkedTransform(transform),
    lease: numberOption('lease', options.lease, 10_000, { min: 1_000, max: 3_600_000 }),
    timeout: numberOption('timeout', options.timeout, 30_000, { min: 1, max: 3_600_000 }),
    synchronousSettle: settle === 'sync',
    environment: checkEnvironment(options.environment),
  };
}

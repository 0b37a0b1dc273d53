import { MessengerError } from '../../core/errors.js';
import type { FeedOptions } from '../../core/feed.js';
import { describe, type Message } from '../../core/message.js';
import { checkKeys, numberOption } from '../../core/options.js';
import type { StoreCallOptions } from '../../core/call.js';
import type { FeedStore } from '../../core/store.js';
import { defaultTransform, type MessageInput, type Transform } from '../../core/transform.js';
import { cleanSlices } from './clean.js';
import type { Database } from './database.js';
import { databaseOf, runnerOf, type PostgresClient, type TransactionHandle } from './drivers/index.js';
import { storeError } from './failures.js';
import { PostgresFeed } from './feed.js';
import { migrate, migrationSql, type MigrationSettings } from './migrate.js';
import { namesOf, SLICES, type Names } from './names.js';
import { encodeMessages } from './encode.js';
import { verifySchema } from './schema.js';
import { Session } from './session.js';
import { statementsOf, type Statements } from './statements.js';

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
  /** The longest `cleanUp` that will be used: it sets how long a slice of the log spans. @default 86_400_000 (a day) */
  retention?: number;
}

/** How a `PostgresStore` is set up. Durations in milliseconds. */
export interface PostgresStoreOptions<Input = MessageInput> extends PostgresTableOptions {
  /** Makes a message of what is stored. @default bytes, strings, JSON objects and ready messages */
  transform?: Transform<Input>;
  /** How long a relay that died keeps others waiting: 1,000 or more. @default 10_000 */
  lease?: number;
  /** How long one transaction of the relay may take. @default 30_000 */
  timeout?: number;
  /**
   * Whether settling waits for the disk (`'sync'`). Without it a crash of the database repeats up to
   * three `wal_writer_delay`s of throughput. @default 'async'
   */
  settle?: 'async' | 'sync';
}

/**
 * The outbox in PostgreSQL 14 or newer: a log that is only inserted into, read by a cursor that is a
 * snapshot. Needs no extension, no superuser, and works through PgBouncer in transaction mode.
 *
 * @example
 * ```ts
 * const store = new PostgresStore(pool);
 * await store.migrate();
 * await client.query('BEGIN');
 * await client.query('INSERT INTO orders …');
 * await store.add(client, newMessage('{"order":1}', { topic: 'order.created', key: 'order-1' }));
 * await client.query('COMMIT');
 * ```
 */
export class PostgresStore<Input = MessageInput> implements FeedStore {
  readonly #database: Database;
  readonly #names: Names;
  readonly #statements: Statements;
  readonly #settings: MigrationSettings;
  readonly #transform: Transform<Input>;
  readonly #lease: number;
  readonly #timeout: number;
  readonly #synchronousSettle: boolean;
  #verified: Promise<void> | undefined;
  #session: Session | undefined;

  /** @throws MessengerError `INVALID_OPTION` for an unknown client or an option out of range, quoting it. */
  constructor(client: PostgresClient, options: PostgresStoreOptions<Input> = {}) {
    checkKeys(options, [...TABLE_KEYS, ...STORE_KEYS]);
    const { settle = 'async' } = options;
    if (!['async', 'sync'].includes(settle)) throw invalid('settle', "'async' or 'sync'", settle);
    if (options.transform !== undefined && typeof options.transform !== 'function') {
      throw invalid('transform', 'a function', options.transform);
    }
    const { names, settings } = tablesOf(options);
    this.#names = names;
    this.#settings = settings;
    this.#database = databaseOf(client);
    this.#statements = statementsOf(names, settings.jsonPayload);
    this.#transform = options.transform ?? (defaultTransform as unknown as Transform<Input>);
    this.#lease = numberOption('lease', options.lease, 10_000, { min: 1_000, max: 3_600_000 });
    this.#timeout = numberOption('timeout', options.timeout, 30_000, { min: 1, max: 3_600_000 });
    this.#synchronousSettle = settle === 'sync';
  }

  /**
   * Stores one message, or an array of any length, in the caller's transaction, in one statement.
   * The messages exist exactly when that transaction commits. Where the handle is a bare function, or
   * a `pg` client older than 8.17 or a `sql` of postgres.js, nothing tells whether its transaction is
   * still open: then it is the caller's to know.
   *
   * @returns the messages as they were stored, with their ids.
   * @throws MessengerError `INVALID_TRANSACTION` for a missing, unknown, or idle handle; `INVALID_MESSAGE`,
   *   `EMPTY_MESSAGE_PAYLOAD` for what can not be stored; `SCHEMA_MISMATCH` where the tables are missing.
   *   Other errors of the database come as the client throws them.
   */
  async add(transaction: TransactionHandle, messages: Input | readonly Input[]): Promise<readonly Message[]> {
    const run = runnerOf(transaction);
    const { stored, text, values } = this.#prepare(messages);
    if (stored.length === 0) return stored;
    try {
      await run(text, values);
    } catch (error) {
      throw storeError(error, this.#names);
    }
    return stored;
  }

  /**
   * The statement that `add` would run, for transactions that are sent as one batch. Its text is
   * constant, and its one value is text.
   *
   * @throws as `add` does for what can not be stored.
   */
  statement(messages: Input | readonly Input[]): { text: string; values: string[] } {
    const { text, values } = this.#prepare(messages);
    return { text, values };
  }

  #prepare(messages: Input | readonly Input[]): { stored: readonly Message[]; text: string; values: string[] } {
    const inputs = (Array.isArray(messages) ? messages : [messages]) as readonly Input[];
    const stored = inputs.map((input) => this.#transform(input));
    const value = encodeMessages(stored, this.#settings.jsonPayload);
    return { stored, text: this.#statements.store.text, values: [value] };
  }

  /**
   * Creates the tables, or brings them to this version; does nothing where they are. Safe when several
   * processes call it at once.
   *
   * @returns the names of the migrations that were applied now.
   */
  async migrate({ signal }: StoreCallOptions = {}): Promise<string[]> {
    return migrate(this.#database, this.#names, this.#settings, { timeout: 2 * this.#timeout, signal });
  }

  async openFeed(options: FeedOptions): Promise<PostgresFeed | null> {
    return this.#openFeed(options, false);
  }

  async #openFeed({ destination, pageSize, relay, signal }: FeedOptions, whole: boolean): Promise<PostgresFeed | null> {
    try {
      this.#verified ??= verifySchema(this.#database, this.#names, this.#settings, { timeout: this.#timeout });
      await this.#verified;
      return await PostgresFeed.open(this.#database, this.#statements, {
        destination,
        pageSize,
        relay,
        whole,
        partitions: this.#settings.partitions,
        lease: this.#lease,
        timeout: this.#timeout,
        synchronousSettle: this.#synchronousSettle,
        signal,
      });
    } catch (error) {
      this.#verified = undefined;
      throw storeError(error, this.#names);
    }
  }

  /**
   * Up to `batch` unpublished messages of the default destination, in order. Takes the destination's
   * lease until `close`.
   *
   * @throws MessengerError `LEASE_LOST` while another relay holds the destination.
   */
  async messages(batch: number, options: StoreCallOptions = {}): Promise<readonly Message[]> {
    numberOption('batch', batch, batch, { min: 1, max: 1_000_000, integer: true });
    return this.#plainSession().messages(batch, options.signal);
  }

  /**
   * Marks messages that `messages` returned as published, all or none. Those that stood before the
   * last of them and are not among them move to the side table, and come first the next time.
   *
   * @throws MessengerError `UNKNOWN_MESSAGE` when one of them is not from the last call of `messages`.
   */
  async published(...messages: readonly Message[]): Promise<void> {
    return this.#plainSession().published(messages);
  }

  /**
   * Empties every slice of the log in which all messages are published (or dead) at every destination,
   * and older than `expiration` milliseconds by the database's clock. A slice that is in use is left
   * for the next call.
   *
   * @throws MessengerError `INVALID_OPTION` for an expiration beyond the tables' retention.
   */
  async deletePublishedByExpiration(expiration: number, { signal }: StoreCallOptions = {}): Promise<void> {
    numberOption('expiration', expiration, expiration, { min: 0, max: Number.MAX_SAFE_INTEGER });
    try {
      await cleanSlices(this.#database, this.#names, expiration, { timeout: this.#timeout, signal });
    } catch (error) {
      throw storeError(error, this.#names);
    }
  }

  /** Gives back the lease that `messages` took. The client stays open: it is the application's. */
  async close(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    await session?.close();
  }

  #plainSession(): Session {
    this.#session ??= new Session((pageSize, signal) =>
      this.#openFeed({ destination: 'default', pageSize, signal }, true),
    );
    return this.#session;
  }
}

/**
 * The SQL that creates the tables of an outbox in an empty database, for a migration tool or a review.
 *
 * @throws MessengerError `INVALID_OPTION` for an option out of range, quoting it.
 */
export async function migrationScript(options: PostgresTableOptions = {}): Promise<string> {
  checkKeys(options, TABLE_KEYS);
  const { names, settings } = tablesOf(options);
  return migrationSql(names, settings);
}

const TABLE_KEYS = [
  'schema',
  'tablePrefix',
  'jsonPayload',
  'partitions',
  'retention',
] satisfies (keyof PostgresTableOptions)[];
const STORE_KEYS = ['transform', 'lease', 'timeout', 'settle'] satisfies (keyof PostgresStoreOptions)[];

function tablesOf(options: PostgresTableOptions): { names: Names; settings: MigrationSettings } {
  const { schema = 'messenger', tablePrefix = '', jsonPayload = false } = options;
  if (typeof jsonPayload !== 'boolean') throw invalid('jsonPayload', 'true or false', jsonPayload);
  const partitions = numberOption('partitions', options.partitions, 8, { min: 1, max: 1_024, integer: true });
  const retention = numberOption('retention', options.retention, DAY, { min: 60_000, max: 3_650 * DAY });
  const sliceSeconds = Math.ceil(retention / 1000 / (SLICES - 2));
  return { names: namesOf(schema, tablePrefix), settings: { partitions, jsonPayload, sliceSeconds } };
}

function invalid(option: string, wanted: string, value: unknown): MessengerError {
  return new MessengerError('INVALID_OPTION', `${option} must be ${wanted}, got ${describe(value)}`);
}

import { safeHandler, type EventHandler } from '../../core/contracts/events.js';
import { DEFAULT_DESTINATION, type FeedOptions } from '../../core/contracts/feed.js';
import { assertConsumer, assertReceivedId, type InboxStore } from '../../core/contracts/inbox.js';
import { consoleErrorLogger } from '../../core/contracts/logger.js';
import type { Message } from '../../core/contracts/message.js';
import { numberOption } from '../../core/util/options.js';
import type { StoreCallOptions } from '../../core/contracts/call-options.js';
import type { CleanReport, FeedStore } from '../../core/contracts/store.js';
import type { MessageInput } from '../../core/outbox/transform.js';
import { assertDestination } from '../../core/contracts/admin-options.js';
import type { OperationContext } from './sql/transact.js';
import { cleanSlices, tableRetention } from './ops/clean.js';
import { declareDestinations } from './ops/destinations.js';
import {
  databaseOf,
  listenOf,
  onTransactionEnd,
  runnerOf,
  type PostgresClient,
  type TransactionHandle,
} from './drivers/index.js';
import { explained, storeError } from './schema/store-error.js';
import { PostgresFeed } from './relay/feed.js';
import { assertKeepable, deleteReceived, receive } from './inbox/receive.js';
import { migrate } from './schema/migrate.js';
import type { Names } from './sql/names.js';
import { claimEnvironment } from './schema/provenance.js';
import { operating, postgresAdmin, type PostgresAdmin } from './admin.js';
import { wakeKeys } from './write/wake-locks.js';
import { Writer } from './write/writer.js';
import { verifySchema } from './schema/verify.js';
import { Session } from './relay/session.js';
import { IndependentDatabase } from './sql/independent-database.js';
import { statementsOf, type Statements } from './relay/statements.js';
import { decodeStored, storedText } from './write/read-back.js';
import { storeSettings, tablesOnly, type PostgresStoreOptions, type StoreSettings } from './options.js';
import { FEW, Waker, type Listening } from './relay/waker.js';

/**
 * The outbox in PostgreSQL 14 or newer. Writers only insert messages into the log. Relays read the log with cursors,
 * which are snapshots. The store needs no extension and no superuser, and works through PgBouncer in transaction mode.
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
export class PostgresStore<Input = MessageInput, Tx = never> implements FeedStore, InboxStore<TransactionHandle | Tx> {
  readonly #database: IndependentDatabase;
  readonly #settings: StoreSettings<Input, Tx>;
  readonly #names: Names;
  readonly #statements: Statements;
  readonly #writer: Writer<Input, Tx>;
  readonly #onEvent: EventHandler | undefined;
  readonly #listening: Listening;
  readonly #context: OperationContext;
  /** The operator functions, for destinations, dead letters, partitions, privileges and moved databases. */
  readonly admin: PostgresAdmin;
  #verified: Promise<void> | undefined;
  #session: Session | undefined;

  /** @throws MessengerError `INVALID_OPTION` for an unknown client, or for an option that is out of range. */
  constructor(client: PostgresClient, options: PostgresStoreOptions<Input, Tx> = {}) {
    this.#settings = storeSettings(options);
    const { names, tables, timeout, notify, onEvent } = this.#settings;
    this.#names = names;
    this.#database = new IndependentDatabase(databaseOf(client));
    this.#statements = statementsOf(names, tables.jsonPayload);
    this.#onEvent = onEvent && safeHandler(onEvent, consoleErrorLogger);
    const keys = wakeKeys(names, tables.partitions);
    this.#writer = new Writer(this.#settings, notify ? keys : undefined);
    this.#context = { database: this.#database, names, jsonPayload: tables.jsonPayload, timeout };
    this.admin = postgresAdmin(this.#context, tablesOnly(options));
    this.#listening = { keys, listen: listenOf(client, options.listen), wakers: new Set(), refused: false };
  }

  /**
   * Stores one message, or an array of messages, in the caller's transaction, with one statement. The messages exist
   * only if that transaction commits. The server rejects the statement outside a transaction. One call can store up to
   * 128 Mi characters of JSON, which is about 700,000 small messages. A payload can have at most 64 MiB, metadata 1
   * MiB, an id or a topic 4,000 bytes, and a key 2,000 bytes.
   *
   * @returns the messages as they were stored, with their ids.
   * @throws MessengerError `INVALID_TRANSACTION` for a missing, unknown or idle handle, or for a handle whose
   *   transaction has ended by the time the statement runs; `INVALID_MESSAGE` or `EMPTY_MESSAGE_PAYLOAD` for a message
   *   that cannot be stored; `UNKNOWN_DESTINATION` for a message whose destination does not exist, or was forgotten;
   *   `SCHEMA_MISMATCH` if the tables are missing; `UNSUPPORTED` if the session's `client_encoding` is not UTF8. Other
   *   errors from the database are thrown unchanged, as the client throws them.
   */
  async add(transaction: TransactionHandle | Tx, messages: Input | readonly Input[]): Promise<readonly Message[]> {
    const stored = await this.#writer.add(transaction, messages);
    if (stored.length === 0) return stored;
    this.#onEvent?.({ type: 'stored', messages: stored });
    if (this.#listening.wakers.size > 0)
      onTransactionEnd(transaction, this.#settings.bridge, this.#waking(stored), this.wake);
    return stored;
  }

  /**
   * Returns the messages that a transaction has stored so far and has not rolled back, in order. It is mostly useful in
   * tests. It needs the privilege to read messages, which the writer role does not have.
   *
   * @throws as `add` does for a handle that is not a transaction; MessengerError `UNSUPPORTED` for a bare function that
   *   does not resolve to rows.
   */
  async stored(transaction: TransactionHandle | Tx): Promise<readonly Message[]> {
    const { run } = runnerOf(transaction, this.#settings.bridge, 'query');
    return operating(this.#context, async ({ names, jsonPayload }) =>
      decodeStored(await run(storedText(names, jsonPayload), []), jsonPayload),
    );
  }

  /**
   * Wakes this store's relays in this process, so that they look for new messages at once. Call it after a commit if
   * relays cannot be notified and the client does not report when a transaction ends (`postgres.js`, or a bare function
   * as a handle). Without the call, relays find the messages by polling at their interval.
   */
  readonly wake = (): void => {
    for (const waker of this.#listening.wakers) waker.told();
  };

  /** Like `wake`. If there are few messages, a relay that has already read them does not have to poll. */
  #waking(messages: readonly Message[]): () => void {
    if (messages.length > FEW) return this.wake;
    const ids = messages.map(({ id }) => id);
    return () => {
      for (const waker of this.#listening.wakers) waker.told(ids);
    };
  }

  /**
   * Returns the statement that `add` would run, for transactions that are sent as one batch. Its SQL is constant. (If
   * any of the messages has a destination, it is a different constant.) Its only value is a string.
   *
   * @throws as `add` does for messages that cannot be stored.
   */
  statement(messages: Input | readonly Input[]): { text: string; values: string[] } {
    return this.#writer.statement(messages);
  }

  /**
   * Creates the tables, or upgrades them to the newest version and to the given `retention`. Does nothing if they are
   * up to date. Several processes can safely call it at once.
   *
   * @returns the names of the migrations that this call applied. If it changed the retention or set the environment,
   *   the result also contains `retention 60000 ms` or `environment production`, for example.
   * @throws MessengerError `SCHEMA_MISMATCH` if the database belongs to another environment, or if its tables differ
   *   from the `partitions` or `jsonPayload` option. The error says how to change them.
   */
  async migrate({ signal }: StoreCallOptions = {}): Promise<string[]> {
    const bounds = { timeout: 2 * this.#settings.timeout, signal };
    const applied = await migrate(explained(this.#database, this.#names), this.#names, this.#settings.tables, bounds);
    const environment = this.#settings.environment;
    if (environment === undefined) return applied;
    const isNamed = await claimEnvironment(this.#database, this.#names, environment, bounds);
    return isNamed ? [...applied, `environment ${environment}`] : applied;
  }

  async openFeed(options: FeedOptions): Promise<PostgresFeed | null> {
    return this.#openFeed(options, false);
  }

  async #openFeed(
    { destination, pageSize, relay, tell, signal }: FeedOptions,
    whole: boolean,
  ): Promise<PostgresFeed | null> {
    assertDestination(destination);
    try {
      this.#verified ??= this.#verify();
      await this.#verified;
      const { lease, timeout, synchronousSettle, tables } = this.#settings;
      return await PostgresFeed.open(explained(this.#database, this.#names), this.#statements, {
        ...{ destination, pageSize, relay, whole, signal, lease, timeout, synchronousSettle },
        partitions: tables.partitions,
        waker: new Waker(this.#listening, tell),
      });
    } catch (error) {
      this.#verified = undefined;
      throw storeError(error, this.#names);
    }
  }

  /**
   * Returns up to `batch` unpublished messages for the default destination, in order. Holds the destination's lease
   * until `close`.
   *
   * @throws MessengerError `LEASE_LOST` while another relay holds the destination.
   */
  async messages(batch: number, options: StoreCallOptions = {}): Promise<readonly Message[]> {
    numberOption('batch', batch, batch, { min: 1, max: 1_000_000, integer: true });
    return this.#plainSession().messages(batch, options.signal);
  }

  /**
   * Marks messages that `messages` returned as published, either all of them or none. If `messages` returned other
   * messages before the last of these, and they are not marked, they move to the side table. The next call of
   * `messages` returns them first.
   *
   * @throws MessengerError `UNKNOWN_MESSAGE` if the last call of `messages` did not return one of these messages.
   */
  async published(...messages: readonly Message[]): Promise<void> {
    return this.#plainSession().published(messages);
  }

  /**
   * Empties each slice of the log whose messages are published or dead letters at every destination, and are older than
   * `expiration` milliseconds by the database's clock. A slice that is in use is left for the next call.
   *
   * @returns which slices were emptied, which were not, and why.
   * @throws MessengerError `INVALID_OPTION` for an expiration that is longer than the tables' retention.
   * @throws CleaningError if a part of the cleaning failed, or if the signal was aborted. Its `cause` is the signal's
   *   reason or the first error. It also reports what was cleaned.
   */
  async deletePublishedByExpiration(expiration: number, { signal }: StoreCallOptions = {}): Promise<CleanReport> {
    numberOption('expiration', expiration, expiration, { min: 0, max: Number.MAX_SAFE_INTEGER });
    return operating(this.#context, ({ database, names, timeout }) =>
      cleanSlices(database, names, expiration, { timeout, signal }),
    );
  }

  /** Returns the tables' retention, in milliseconds: the longest expiration that cleaning can use. */
  retention({ signal }: StoreCallOptions = {}): Promise<number> {
    return operating(this.#context, ({ database, names, timeout }) =>
      tableRetention(database, names, { timeout, signal }),
    );
  }

  /**
   * Adds those of the named destinations that are missing, so that messages can be addressed to them. An added
   * destination publishes only the messages that are addressed to it. `default` also publishes messages without an
   * address. Existing destinations do not change.
   *
   * @throws MessengerError `UNKNOWN_DESTINATION` for a destination that is missing, and that this role may not add.
   */
  declareDestinations(names: readonly string[], options?: StoreCallOptions): Promise<void> {
    return operating(this.#context, async (context) => {
      // Verify first, because nothing may be added to the tables of another environment or another cluster.
      await this.#verify();
      await declareDestinations(context, names, options);
    });
  }

  /**
   * Records, in the caller's transaction, that a consumer has received the message with this id. `createInbox` calls
   * this method. If another open transaction has recorded the same message, the call waits until that transaction ends.
   *
   * @returns true if the consumer has received the message for the first time.
   * @throws as `add` does for a handle that is not a transaction, or if the tables are missing; MessengerError
   *   `INVALID_OPTION` or `INVALID_MESSAGE` for a consumer or an id that is empty or that PostgreSQL cannot store;
   *   `UNSUPPORTED` for a bare function that does not resolve to rows.
   */
  async receive(transaction: TransactionHandle | Tx, consumer: string, id: string): Promise<boolean> {
    assertConsumer(consumer);
    assertReceivedId(id);
    assertKeepable(consumer, id);
    const { run } = runnerOf(transaction, this.#settings.bridge, 'query');
    return operating(this.#context, ({ names }) => receive(names, run, consumer, id), this.#names.inbox);
  }

  /**
   * Deletes the records of messages that a consumer received more than `expiration` milliseconds ago, by the database's
   * clock. Each transaction deletes a thousand rows.
   *
   * @returns the number of deleted records.
   * @throws MessengerError `INVALID_OPTION` for an expiration that is longer than ten years.
   */
  deleteReceived(consumer: string, expiration: number, options?: StoreCallOptions): Promise<number> {
    const forget = (context: OperationContext) => deleteReceived(context, consumer, expiration, options);
    return operating(this.#context, forget, this.#names.inbox);
  }

  /** Releases the lease that `messages` took. The application's client stays open. */
  async close(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    await session?.close();
  }

  async #verify(): Promise<void> {
    const bounds = { timeout: this.#settings.timeout };
    const environment = this.#settings.environment;
    await this.#database.learn(bounds);
    await verifySchema(this.#database, this.#names, { ...this.#settings.tables, environment }, bounds);
    if (environment !== undefined) await claimEnvironment(this.#database, this.#names, environment, bounds);
  }

  #plainSession(): Session {
    this.#session ??= new Session((pageSize, signal) =>
      this.#openFeed({ destination: DEFAULT_DESTINATION, pageSize, signal }, true),
    );
    return this.#session;
  }
}

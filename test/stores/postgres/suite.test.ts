import { PGlite, type Transaction } from '@electric-sql/pglite';
import pg from 'pg';
import postgres, { type TransactionSql } from 'postgres';
import { afterAll, beforeAll, describe, inject, it } from 'vitest';
import type { PostgresStoreOptions, TransactionHandle } from '../../../src/stores/postgres/index.js';
import { PostgresStore, rolesScript } from '../../../src/stores/postgres/index.js';
import { namesOf } from '../../../src/stores/postgres/sql/names.js';
import {
  adminTestSuite,
  inboxTestSuite,
  storeTestSuite,
  type AdminHarness,
  type InboxHarness,
  type StoreFeatures,
  type StoreHarness,
} from '../../../src/testing/conformance/index.js';
import { oldest, postgresVersions, type PostgresVersion } from '../../support/embedded-postgres.js';

/** A client library under test: how it is opened, and how an application uses it. */
interface Client {
  readonly open: () => Promise<Opened>;
  readonly features: Partial<StoreFeatures>;
  /** The role of its relay may not do what an operator does. */
  readonly relaysAlone?: boolean;
}

interface Opened {
  readonly store: (options: PostgresStoreOptions) => PostgresStore;
  /** Creates the tables, if the store's own client may not. */
  readonly migrate?: (options: PostgresStoreOptions) => Promise<unknown>;
  readonly transaction: <T>(work: (handle: TransactionHandle) => Promise<T>) => Promise<T>;
  readonly savepoint: NonNullable<StoreHarness<TransactionHandle>['savepoint']>;
  readonly script: (sql: string) => Promise<unknown>;
  readonly column: (sql: string) => Promise<string[]>;
  /** Who receives, if that is somebody else. */
  readonly consumer?: Opened;
  readonly close: () => Promise<void>;
}

type PgHandle = Pick<pg.Client, 'query'>;

async function inPgTransaction<T>(client: PgHandle, work: () => Promise<T>): Promise<T> {
  await client.query('BEGIN');
  try {
    const result = await work();
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  }
}

/** A savepoint through any handle that runs SQL in the transaction. */
async function savepointBy(
  run: (sql: string) => PromiseLike<unknown>,
  handle: TransactionHandle,
  work: (handle: TransactionHandle) => Promise<void>,
): Promise<void> {
  await run('SAVEPOINT inner_part');
  try {
    await work(handle);
  } catch (error) {
    await run('ROLLBACK TO SAVEPOINT inner_part');
    throw error;
  }
}

const pgPool = (url: string, handle: 'client' | 'function'): Client => ({
  features: { refusesEndedTransactions: true },
  open: async () => {
    const pool = new pg.Pool({ connectionString: url, max: 6 });
    const asHandle = (client: pg.PoolClient): TransactionHandle =>
      handle === 'client' ? client : (text, values) => client.query(text, [...values]);
    const clients = new Map<TransactionHandle, pg.PoolClient>();
    return Promise.resolve({
      store: (options) => new PostgresStore(pool, options),
      transaction: async (work) => {
        const client = await pool.connect();
        const given = asHandle(client);
        clients.set(given, client);
        try {
          return await inPgTransaction(client, () => work(given));
        } finally {
          client.release();
        }
      },
      savepoint: (given, work) => savepointBy((sql) => clients.get(given)!.query(sql), given, work),
      script: (sql) => pool.query(sql),
      column: async (sql) => (await pool.query<[string]>({ text: sql, rowMode: 'array' })).rows.map(([id]) => id),
      close: () => pool.end(),
    });
  },
});

/**
 * The application, the relay, the consumer and the tables each have a role of their own, with no more rights than the
 * script gives.
 */
const pgRoles = (url: string): Client => ({
  features: { refusesEndedTransactions: true },
  relaysAlone: true,
  open: async () => {
    const role = (kind: string) => `suite_${kind}_${process.pid}`;
    const roles = {
      writer: role('writer'),
      relay: role('relay'),
      consumer: role('consumer'),
      migrator: role('migrator'),
    };
    const as = (user: string) => Object.assign(new URL(url), { username: user }).href;
    const admin = await pgPool(url, 'client').open();
    for (const name of Object.values(roles)) await admin.script(`CREATE ROLE ${name} LOGIN`);
    const application = await pgPool(as(roles.writer), 'client').open();
    const consumer = await pgPool(as(roles.consumer), 'client').open();
    const relays = new pg.Pool({ connectionString: as(roles.relay), max: 6 });
    return {
      ...application,
      store: (options) => new PostgresStore(relays, options),
      async migrate(options) {
        await admin.store(options).migrate();
        const { schema = 'messenger', tablePrefix = '' } = options;
        await admin.script(rolesScript({ schema, tablePrefix, ...roles }));
      },
      script: admin.script,
      column: admin.column,
      consumer,
      close: async () => {
        await relays.end();
        await application.close();
        await consumer.close();
        for (const name of Object.values(roles)) await admin.script(`DROP OWNED BY ${name}; DROP ROLE ${name}`);
        await admin.close();
      },
    };
  },
});

/** The store on one connection, and the application's transactions on others. */
const pgClient = (url: string): Client => ({
  features: { refusesEndedTransactions: true },
  open: async () => {
    const relay = new pg.Client(url);
    await relay.connect();
    const opened = await pgPool(url, 'client').open();
    return {
      ...opened,
      store: (options) => new PostgresStore(relay, options),
      close: async () => {
        await relay.end();
        await opened.close();
      },
    };
  },
});

const postgresJs = (url: string, handle: 'client' | 'function'): Client => ({
  features: { refusesEndedTransactions: true },
  open: () => {
    // The client's own option for a pooler that keeps no prepared statements. pg finds that out itself.
    const prepare = process.env['POSTGRES_POOLER'] === undefined;
    const sql = postgres(url, { max: 6, prepare, onnotice: () => undefined });
    const handles = new Map<TransactionHandle, TransactionSql>();
    const asHandle = (transaction: TransactionSql): TransactionHandle => {
      const given: TransactionHandle =
        handle === 'client' ? transaction : (text, values) => transaction.unsafe(text, [...values]);
      handles.set(given, transaction);
      return given;
    };
    return Promise.resolve({
      store: (options) => new PostgresStore(sql, options),
      transaction: async <T>(work: (handle: TransactionHandle) => Promise<T>) =>
        (await sql.begin(async (transaction) => [await work(asHandle(transaction))]))[0] as T,
      savepoint: async (given, work) => {
        await handles.get(given)!.savepoint((inner) => work(asHandle(inner)));
      },
      script: (text) => sql.unsafe(text),
      column: async (text) => (await sql.unsafe(text).values()).map((row) => row[0] as string),
      close: () => sql.end(),
    });
  },
});

const pglite = (database: () => PGlite, handle: 'client' | 'function'): Client => ({
  features: { refusesEndedTransactions: handle === 'client', concurrentTransactions: false },
  open: () => {
    const db = database();
    const transactions = new Map<TransactionHandle, Transaction>();
    return Promise.resolve({
      store: (options) => new PostgresStore(db, options),
      transaction: (work) =>
        db.transaction((transaction) => {
          const given: TransactionHandle =
            handle === 'client' ? transaction : (text, values) => transaction.query(text, [...values]);
          transactions.set(given, transaction);
          return work(given);
        }),
      savepoint: (given, work) => savepointBy((sql) => transactions.get(given)!.exec(sql), given, work),
      script: (sql) => db.exec(sql),
      column: async (sql) => (await db.query<[string]>(sql, [], { rowMode: 'array' })).rows.map(([id]) => id),
      close: () => Promise.resolve(),
    });
  },
});

/** Declares the suite for a client, in a schema that is created once and emptied before each test. */
function conforms(name: string, client: Client, options: PostgresStoreOptions): void {
  describe(name, () => {
    const names = namesOf(options.schema ?? 'messenger', options.tablePrefix ?? '');
    const { messages, parked, cursors, claims, relays, destinations, inbox } = names;
    let opened: Opened;
    beforeAll(async () => {
      opened = await client.open();
      await opened.script(`DROP SCHEMA IF EXISTS "${names.schema.replaceAll('"', '""')}" CASCADE`);
      await (opened.migrate?.(options) ?? opened.store(options).migrate());
    });
    afterAll(() => opened.close());

    async function empty(): Promise<void> {
      // Not TRUNCATE, which creates some forty files again.
      const tables = [messages, parked, cursors, claims, relays, destinations];
      await opened.script(tables.map((table) => `DELETE FROM ${table}`).join('; '));
    }

    async function create(): Promise<StoreHarness<TransactionHandle>> {
      await empty();
      let store = opened.store(options);
      return {
        get store() {
          return store;
        },
        transaction: opened.transaction,
        savepoint: opened.savepoint,
        kept: () => opened.column(`SELECT id FROM ${messages} UNION ALL SELECT id FROM ${parked}`),
        reopen: async () => {
          await store.close();
          store = opened.store(options);
          return store;
        },
        // As the holder wrote it, except for the time: `written_by` must name the row's own transaction.
        expireLease: async (destination) => {
          await opened.script(
            `UPDATE ${cursors} SET expires_at = clock_timestamp() - interval '1 ms', written_by = pg_current_xact_id() WHERE destination = '${destination}'`,
          );
        },
        makeDue: async () => {
          await opened.script(
            `UPDATE ${parked} SET deliver_at = clock_timestamp(), next_at = CASE WHEN next_at IS NOT NULL THEN clock_timestamp() END WHERE deliver_at > clock_timestamp();
             UPDATE ${messages} SET deliver_at = clock_timestamp() WHERE deliver_at > clock_timestamp()`,
          );
        },
        close: () => store.close(),
      };
    }

    const features: StoreFeatures = {
      concurrentTransactions: true,
      savepoints: true,
      refusesEndedTransactions: true,
      jsonPayloadsOnly: options.jsonPayload ?? false,
      persistent: true,
      remembersListed: false,
      cleansSingly: false,
      delayed: true,
      feeds: true,
      ...client.features,
    };
    storeTestSuite({ it, create, features });

    const createAdmin = async (): Promise<AdminHarness<TransactionHandle>> => {
      await empty();
      const store = opened.store(options);
      return { store, transaction: opened.transaction, close: () => store.close() };
    };
    if (client.relaysAlone !== true) {
      describe('its admin', () => {
        adminTestSuite({ it, create: createAdmin });
      });
    }

    const createInbox = async (): Promise<InboxHarness<TransactionHandle>> => {
      await opened.script(`DELETE FROM ${inbox}`);
      const { store, transaction, savepoint } = opened.consumer ?? opened;
      return {
        store: store(options),
        transaction,
        savepoint,
        reopen: () => Promise.resolve(store(options)),
        close: () => Promise.resolve(),
      };
    };
    describe('its inbox', () => {
      inboxTestSuite({ it, create: createInbox, features });
    });
  });
}

const odd: PostgresStoreOptions = { schema: `Odd "schema"; it's {messages} 名`, tablePrefix: `Präfix "x' \\;-- ` };
const url = (version: PostgresVersion) => inject('postgres')[version];

for (const version of postgresVersions) {
  const other = version === 17;
  describe(`PostgreSQL ${version}`, () => {
    conforms('pg Pool', pgPool(url(version), 'client'), {
      schema: 'suite_pool',
      ...(other && { ...odd, jsonPayload: true, partitions: 1 }),
    });
    conforms('pg Pools under the roles', pgRoles(url(version)), {
      schema: 'suite_roles',
      ...(other && { ...odd, schema: `${odd.schema!}roles`, partitions: 1 }),
    });
    conforms('pg Client', pgClient(url(version)), {
      schema: 'suite_client',
      ...(other ? { partitions: 8 } : { tablePrefix: odd.tablePrefix!, jsonPayload: true, partitions: 1 }),
    });
    conforms('postgres.js', postgresJs(url(version), 'client'), {
      schema: `suite js; "${version}"`,
      ...(other ? { partitions: 1, settle: 'sync' } : { jsonPayload: true, tablePrefix: 'a.b' }),
    });
  });
}

describe('a function as the handle', () => {
  conforms('around a pg PoolClient', pgPool(url(17), 'function'), { schema: 'suite_function_pg', settle: 'sync' });
  conforms('around the sql of postgres.js', postgresJs(url(oldest), 'function'), { schema: 'suite_function_js' });
});

describe('PGlite', () => {
  let db: PGlite;
  beforeAll(async () => {
    db = await PGlite.create();
  });
  afterAll(() => db.close());
  conforms(
    'its transaction',
    pglite(() => db, 'client'),
    { ...odd, schema: 'suite_lite', partitions: 1 },
  );
  conforms(
    'a function around it',
    pglite(() => db, 'function'),
    { ...odd, jsonPayload: true },
  );
});

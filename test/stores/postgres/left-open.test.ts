import { PGlite } from '@electric-sql/pglite';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { defineOutbox, Messenger, newMessage } from '../../../src/index.js';
import { PostgresStore, type PostgresClient } from '../../../src/stores/postgres/index.js';
import { until } from '../../../src/testing/conformance/assert.js';
import { newDatabase } from '../../support/database.js';
import { postgresVersions } from '../../support/embedded-postgres.js';

const publisher = { publish: () => Promise.resolve() };

/** Everything that sends SQL on a connection of the store's own. */
const CALLS: Readonly<Record<string, (store: PostgresStore) => Promise<unknown>>> = {
  migrate: (store) => store.migrate(),
  publish: (store) => new Messenger(store, publisher).publish(),
  messages: async (store) => {
    await store.published(...(await store.messages(10)));
    await store.close();
  },
  clean: (store) => store.deletePublishedByExpiration(0),
  drain: (store) => defineOutbox({ store, topics: {} }).drain({ publisher, cleanUp: 60_000 }),
  requeue: (store) => store.admin.requeue({ all: true }),
  discard: (store) => store.admin.discard({ all: true }),
  deadLetters: (store) => store.admin.deadLetters(),
  destinations: (store) => store.admin.destinations(),
  addDestination: async (store) => {
    await store.admin.addDestination('other', { from: 'end' });
    await store.admin.updateDestination('other', { forgetAfter: 86_400_000 });
    await store.admin.removeDestination('other');
  },
  declareDestinations: (store) => store.declareDestinations(['billing']),
  deleteReceived: (store) => store.deleteReceived('billing', 0),
  repartition: (store) => store.admin.repartition(8),
  rebase: (store) => store.admin.rebase(),
  relay: async (store) => {
    const stop = new AbortController();
    let started = false;
    const relay = new Messenger(store, publisher, { interval: 50 }).start({
      signal: stop.signal,
      onStarted: () => (started = true),
    });
    await until(() => started, 'its start');
    stop.abort();
    await relay;
  },
};

interface Opened {
  readonly client: PostgresClient;
  /** Leaves transactions open on connections of the pool, each with a row of `orders`. */
  readonly leave: () => Promise<unknown>;
  readonly close: () => Promise<unknown>;
}

const STRAY = `INSERT INTO orders (id) VALUES ('stray')`;

/**
 * PostgreSQL refuses to change the isolation level of a transaction that has run a query, before it answers anything
 * else.
 */
const BEGINS = ['BEGIN', 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'BEGIN ISOLATION LEVEL SERIALIZABLE'];

/** Gives every connection of a pool back inside a transaction. */
const leaveOn = (pool: { connect(): Promise<pg.PoolClient> }, size: number, awaited: boolean) => async () => {
  const clients = await Promise.all(Array.from({ length: size }, () => pool.connect()));
  for (const [i, client] of clients.entries()) {
    const sent = [client.query(BEGINS[i % BEGINS.length] ?? ''), client.query(STRAY)];
    for (const each of sent) each.catch(() => undefined);
    if (awaited) await Promise.all(sent);
    client.release();
  }
};

const CLIENTS: Readonly<Record<string, (url: string) => Promise<Opened> | Opened>> = {
  pg: (connectionString) => {
    const pool = new pg.Pool({ connectionString, max: 4 });
    return { client: pool, leave: leaveOn(pool, 4, true), close: () => pool.end() };
  },
  'pg, given back before the server has answered': (connectionString) => {
    const pool = new pg.Pool({ connectionString, max: 4 });
    return { client: pool, leave: leaveOn(pool, 4, false), close: () => pool.end() };
  },
  'a pg that does not report its status, with connections from before the store': async (connectionString) => {
    // As pg before 8.17.
    class Client extends pg.Client {
      override getTransactionStatus = undefined as never;
    }
    const pool = new pg.Pool({ connectionString, max: 4, Client });
    const clients = await Promise.all(Array.from({ length: 4 }, () => pool.connect()));
    for (const client of clients) client.release();
    return { client: pool, leave: leaveOn(pool, 4, true), close: () => pool.end() };
  },
  'postgres.js': (url) => {
    // Behind a PgBouncer in transaction mode it must not prepare.
    const prepare = process.env['POSTGRES_POOLER'] === undefined;
    const sql = postgres(url, { max: 4, prepare, onnotice: () => undefined });
    const leave = async () => {
      const held = await Promise.all(Array.from({ length: 4 }, () => sql.reserve()));
      for (const [i, each] of held.entries()) {
        await each.unsafe(BEGINS[i % BEGINS.length] ?? '');
        await each.unsafe(STRAY);
        each.release();
      }
    };
    return { client: sql, leave, close: () => sql.end({ timeout: 5 }) };
  },
};

describe.each(postgresVersions)('a transaction that the application left open, on PostgreSQL %i', (version) => {
  describe.each(Object.entries(CLIENTS))('through %s', (_name, open) => {
    let looking: pg.Pool;
    let opened: Opened;
    let store: PostgresStore;
    beforeAll(async () => {
      const url = await newDatabase(inject('postgres')[version]);
      looking = new pg.Pool({ connectionString: url, max: 2 });
      await looking.query('CREATE TABLE orders (id text)');
      opened = await open(url);
      await new PostgresStore(looking).migrate();
      store = new PostgresStore(opened.client);
    });
    afterAll(async () => {
      await store.close();
      await opened.close();
      await looking.end();
    });

    it.each(Object.entries(CALLS))('is not committed by %s', async (_call, call) => {
      const client = await looking.connect();
      await client.query('BEGIN');
      await new PostgresStore(looking).add(client, newMessage('x'));
      await client.query('COMMIT');
      client.release();
      await opened.leave();
      await call(store);
      expect((await looking.query('SELECT id FROM orders')).rows).toEqual([]);
    });
  });
});

it('that was begun by hand on a PGlite is left to the application', async () => {
  const db = await PGlite.create();
  const store = new PostgresStore(db);
  try {
    await store.migrate();
    await db.exec('CREATE TABLE orders (id text)');
    for (const call of [CALLS['publish'], CALLS['clean'], CALLS['destinations'], CALLS['migrate']]) {
      await db.exec(`BEGIN; ${STRAY}`);
      await expect(call?.(store)).rejects.toMatchObject({ code: 'INVALID_TRANSACTION' });
      // The transaction is unchanged.
      expect((await db.query('SELECT id FROM orders')).rows).toEqual([{ id: 'stray' }]);
      await db.exec('ROLLBACK');
      expect((await db.query('SELECT id FROM orders')).rows).toEqual([]);
      await call?.(store);
    }
  } finally {
    await db.close();
  }
});

it('on the only Client of a store is reported, and not committed', async () => {
  const url = await newDatabase(inject('postgres')[17]);
  const client = new pg.Client(url);
  await client.connect();
  const store = new PostgresStore(client);
  try {
    await store.migrate();
    await client.query('CREATE TABLE orders (id text)');
    for (const [begin, awaited] of BEGINS.flatMap((each) => [[each, true] as const, [each, false] as const])) {
      const sent = [client.query(begin), client.query(STRAY)];
      if (awaited) await Promise.all(sent);
      await expect(store.admin.destinations()).rejects.toMatchObject({ code: 'INVALID_TRANSACTION' });
      await Promise.all(sent);
      await client.query('ROLLBACK');
      expect((await client.query('SELECT id FROM orders')).rows).toEqual([]);
      await store.admin.destinations();
    }
  } finally {
    await client.end();
  }
});

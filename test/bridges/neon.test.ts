import { neon, neonConfig, Pool, type PoolClient } from '@neondatabase/serverless';
import { sql as drizzleSql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/neon-serverless';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { WebSocket } from 'ws';
import { z } from 'zod';
import { defineOutbox } from '../../src/index.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { memoryBroker } from '../../src/testing/index.js';
import { drizzleBridge, type DrizzleTransaction } from '../../src/bridges/drizzle.js';
import { newDatabase } from '../support/database.js';
import { startNeonProxy, type NeonProxy } from '../support/neon-proxy.js';
import { batchSuite } from './batch-suite.js';
import { bridgeSuite, type Library } from './suite.js';

// As behind Neon's own proxy, but without TLS, and without the password that the driver sends before it is asked.
let proxy: NeonProxy;
beforeAll(async () => {
  proxy = await startNeonProxy(inject('postgres')[17]);
  neonConfig.webSocketConstructor = WebSocket;
  neonConfig.useSecureWebSocket = false;
  neonConfig.pipelineConnect = false;
  neonConfig.wsProxy = () => proxy.webSocket;
  neonConfig.fetchEndpoint = () => proxy.http;
});
afterAll(() => proxy.close());

const SAVEPOINT = 'part';

/** A transaction on a client of the pool, as an application writes it. */
async function transaction<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  } finally {
    client.release();
  }
}

bridgeSuite(
  'Neon over WebSockets',
  { savepoints: true, refusesEnded: 'bridge', ownHandles: false, tellsOfCommit: true },
  (url) => {
    const pool = new Pool({ connectionString: url, max: 5 });
    return Promise.resolve<Library<PoolClient>>({
      client: pool,
      transaction: (work) => transaction(pool, work),
      savepoint: async (client, work) => {
        await client.query(`SAVEPOINT ${SAVEPOINT}`);
        try {
          await work(client);
        } catch (error) {
          await client.query(`ROLLBACK TO SAVEPOINT ${SAVEPOINT}`);
          throw error;
        }
      },
      insert: (client, id) => client.query('INSERT INTO orders VALUES ($1)', [id]),
      roots: [pool, neon(url), neon(url, { fullResults: true })],
      close: () => pool.end(),
    });
  },
);

bridgeSuite(
  'Drizzle on Neon’s WebSockets',
  { savepoints: true, refusesEnded: 'bridge', ownHandles: true, tellsOfCommit: false },
  (url) => {
    const pool = new Pool({ connectionString: url, max: 5 });
    const db = drizzle(pool);
    type Tx = Parameters<Parameters<typeof db.transaction>[0]>[0];
    return Promise.resolve<Library<Tx, DrizzleTransaction>>({
      bridge: drizzleBridge(drizzleSql),
      client: pool,
      transaction: (work) => db.transaction(work),
      savepoint: (tx, work) => tx.transaction(work),
      insert: (tx, id) => tx.execute(drizzleSql`INSERT INTO orders VALUES (${id})`),
      roots: [db],
      close: () => pool.end(),
    });
  },
);

batchSuite('Neon over HTTP', (url) => {
  const sql = neon(url);
  return Promise.resolve({
    batch: (statements, orders) =>
      sql.transaction([
        ...statements.map(({ text, values }) => sql.query(text, values)),
        ...orders.map((id) => sql`INSERT INTO orders VALUES (${id})`),
      ]),
    close: () => Promise.resolve(),
  });
});

describe('A relay on Neon’s Pool', () => {
  it('listens through the pool, and is woken by a transaction over HTTP', async () => {
    const url = await newDatabase(inject('postgres')[17]);
    const pool = new Pool({ connectionString: url, max: 5 });
    const errors: Error[] = [];
    const outbox = defineOutbox({
      store: new PostgresStore(pool),
      topics: { 'order.created': { schema: z.object({ id: z.string() }) } },
    });
    await outbox.migrate();
    const broker = memoryBroker();
    const relay = await outbox.relay({
      publisher: broker,
      interval: 600_000,
      errorLogger: { error: (error) => errors.push(error) },
    });
    try {
      const asleep = `SELECT count(*)::int AS n FROM pg_locks
        WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
      const locks = async () => (await pool.query<{ n: number }>(asleep)).rows[0]?.n;
      const sql = neon(url);
      for (let n = 1; n <= 3; n++) {
        const { text, values } = await outbox.statement('order.created', { id: `order-${n}` });
        // A sleeping relay holds locks, which tell writers to notify it.
        await expect.poll(locks).toBeGreaterThan(0);
        await sql.transaction([sql`SELECT 1`, sql.query(text, values)]);
        await expect.poll(() => broker.published.length, { timeout: 30_000 }).toBe(n);
      }
    } finally {
      await relay.stop();
      await pool.end();
    }
    expect(errors).toEqual([]);
  });
});

describe('Neon’s clients', () => {
  const sql = neon('postgresql://user@127.0.0.1/nothing');

  it('refuses the sql of neon(), and says where to put a statement', async () => {
    const pool = new Pool({ connectionString: inject('postgres')[17] });
    const store = new PostgresStore(pool);
    // @ts-expect-error it commits every query by itself
    await expect(store.add(sql, 'never')).rejects.toThrow(/sql\.transaction\(\[…\]\) as sql\.query\(text, values\)/);
    // @ts-expect-error so does the pool
    await expect(store.add(pool, 'never')).rejects.toMatchObject({ code: 'INVALID_TRANSACTION' });
    // @ts-expect-error a relay needs transactions
    expect(() => new PostgresStore(sql)).toThrow('client must be a pg Pool or Client');
    await pool.end();
  });
});

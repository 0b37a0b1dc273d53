import type pg from 'pg';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { createInbox } from '../../src/inbox/index.js';
import { newMessage } from '../../src/index.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { INDEX_SETTINGS } from '../../src/stores/postgres/sql/statement.js';
import { inTransaction } from '../support/database.js';
import { newPool } from './support.js';

const consumer = 'billing';

/** An inbox on a database of its own. */
async function opened(begin?: string) {
  const pool = await newPool();
  const store = new PostgresStore(pool);
  await store.migrate();
  await pool.query('CREATE TABLE invoices (id text)');
  const inbox = createInbox({ store, consumer, transaction: (fn) => inTransaction(pool, fn, begin) });
  const invoices = async () => (await pool.query<{ id: string }>('SELECT id FROM invoices')).rows.map(({ id }) => id);
  const bill = (id: string) => (client: pg.PoolClient) => client.query('INSERT INTO invoices VALUES ($1)', [id]);
  return { pool, store, inbox, invoices, bill };
}

describe('an inbox on PostgreSQL', () => {
  it.each(['SERIALIZABLE', 'REPEATABLE READ', 'READ COMMITTED'])(
    'has one effect for simultaneous deliveries, %s: one that could not know is refused, and is delivered again',
    async (level) => {
      const { inbox, invoices, bill } = await opened(`BEGIN ISOLATION LEVEL ${level}`);
      const message = newMessage('x');
      const settled = await Promise.allSettled(Array.from({ length: 6 }, () => inbox.once(message, bill(message.id))));
      const ran = settled.filter((each) => each.status === 'fulfilled' && each.value);
      expect(ran).toHaveLength(1);
      for (const each of settled) {
        if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: '40001' });
      }
      expect(await inbox.once(message, bill(message.id))).toBe(false);
      expect(await invoices()).toEqual([message.id]);
    },
  );

  it('says what to run if its tables are missing or older', async () => {
    const pool = await newPool();
    const store = new PostgresStore(pool, { schema: 's', tablePrefix: 'p_' });
    const inbox = createInbox({ store, consumer, transaction: (fn) => inTransaction(pool, fn) });
    const told = {
      code: 'SCHEMA_MISMATCH',
      message: expect.stringMatching(
        /"s"\."p_inbox" is missing: run `messenger migrate --schema s --table-prefix p_` or `await store\.migrate\(\)`/,
      ) as string,
    };
    const once = () => inbox.once(newMessage('x'), () => Promise.resolve());
    await expect(once()).rejects.toMatchObject(told);
    await expect(inbox.clean()).rejects.toMatchObject(told);
    await store.migrate();
    expect(await once()).toBe(true);
    await pool.query('DROP TABLE s.p_inbox');
    await expect(once()).rejects.toMatchObject(told);
  });

  it.each([
    ['the pool in place of a client', (pool: pg.Pool) => pool, /pg Pool commits every query by itself/],
    ['a client that is in no transaction', (pool: pg.Pool) => pool.connect(), /not in a transaction/],
  ])('refuses %s, and nothing is done', async (_, handleOf, text) => {
    const { pool, store, invoices, bill } = await opened();
    const handle = (await handleOf(pool)) as pg.PoolClient;
    const inbox = createInbox({ store, consumer, transaction: (fn) => fn(handle) });
    const refused = inbox.once(newMessage('x'), bill('never'));
    await expect(refused).rejects.toMatchObject({ code: 'INVALID_TRANSACTION' });
    await expect(refused).rejects.toThrow(text);
    if (handle !== (pool as unknown)) handle.release();
    expect(await invoices()).toEqual([]);
    expect(await inbox.clean()).toBe(0);
  });

  it('refuses an id that no index can keep, with an explanation', async () => {
    const { pool, store, bill, invoices } = await opened();
    const inbox = createInbox({ store, consumer, transaction: (fn) => inTransaction(pool, fn) });
    const refused = inbox.once(newMessage('x', { id: '名'.repeat(700) }), bill('never'));
    await expect(refused).rejects.toMatchObject({ code: 'INVALID_MESSAGE' });
    await expect(refused).rejects.toThrow('must together have at most 2000 bytes');
    expect(await invoices()).toEqual([]);
  });

  it('says that a bare function must return rows, before anything is done', async () => {
    const { pool, store, invoices } = await opened();
    const inbox = createInbox({
      store,
      consumer,
      transaction: (fn) =>
        inTransaction(pool, (client) =>
          fn(async (text: string, values: readonly string[]) => {
            await client.query(text, [...values]);
          }),
        ),
    });
    const refused = inbox.once(newMessage('x'), (run) => Promise.resolve(run('INSERT INTO invoices VALUES (1)', [])));
    await expect(refused).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    expect(await invoices()).toEqual([]);
  });
});

describe('the record of a received message', () => {
  /** So many rows that are a day old, and as many new ones. */
  async function filled(count: number) {
    const { pool, store } = await opened();
    await pool.query(
      `INSERT INTO messenger.inbox SELECT 'c', n::text, now() - CASE WHEN n <= $1::int THEN interval '1 day' ELSE interval '0' END
         FROM generate_series(1, 2 * $1::int) AS n`,
      [count],
    );
    const left = async () =>
      (
        await pool.query<[number]>({
          text: `SELECT count(*)::int FROM messenger.inbox WHERE received_at < now() - interval '1 hour'`,
          rowMode: 'array',
        })
      ).rows[0]![0];
    return { pool, store, left };
  }

  const HOUR = 3_600_000;

  it('is deleted in parts of a thousand, by the index, except for locked rows', async () => {
    const { pool, store, left } = await filled(2_500);
    const queries = vi.spyOn(Object.getPrototypeOf(await pool.connect().then(given)) as pg.PoolClient, 'query');
    onTestFinished(() => {
      queries.mockRestore();
    });
    await inTransaction(pool, async (locking) => {
      await locking.query(`SELECT FROM messenger.inbox WHERE id IN ('1', '2', '3') FOR UPDATE`);
      expect(await store.deleteReceived('c', HOUR)).toBe(2_497);
    });
    const deletions = queries.mock.calls
      .map(([query]) => (typeof query === 'string' ? query : (query as { text: string }).text))
      .filter((text) => /DELETE|EXECUTE/.test(text));
    expect(deletions).toHaveLength(3);
    expect(await left()).toBe(3);
    const { rows } = await inTransaction(pool, async (client) => {
      await client.query(INDEX_SETTINGS.join('; '));
      return client.query<{ 'QUERY PLAN': string }>(`EXPLAIN (GENERIC_PLAN) ${deletions[0]!}`);
    });
    const lines = rows.map((row) => row['QUERY PLAN']).join('\n');
    expect(lines).toMatch(/Tid Scan on inbox/);
    expect(lines).toMatch(
      /Index Scan using inbox_consumer_received_at_idx[^]*Index Cond: \(\(consumer = .*received_at/,
    );
    expect(await store.deleteReceived('c', HOUR)).toBe(3);
    expect((await pool.query('SELECT FROM messenger.inbox')).rowCount).toBe(2_500);
  });

  it('is no longer deleted once the signal aborts', async () => {
    const { store, left } = await filled(1_500);
    await expect(store.deleteReceived('c', HOUR, { signal: AbortSignal.abort(new Error('stop')) })).rejects.toThrow(
      'stop',
    );
    expect(await left()).toBe(1_500);
    const controller = new AbortController();
    const forgotten = store.deleteReceived('c', HOUR, { signal: controller.signal });
    controller.abort();
    await expect(forgotten).rejects.toBe(controller.signal.reason);
    expect(await left()).toBeGreaterThan(0);
  });

  it('is kept for as long as `keep` says', async () => {
    const { store } = await filled(10);
    expect(await store.deleteReceived('c', 25 * HOUR)).toBe(0);
    expect(await store.deleteReceived('c', 23 * HOUR)).toBe(10);
    expect(await store.deleteReceived('c', 3_650 * 24 * HOUR)).toBe(0);
  });
});

/** A client of a pool, which was given back to the pool at once. */
function given(client: pg.PoolClient): pg.PoolClient {
  client.release();
  return client;
}

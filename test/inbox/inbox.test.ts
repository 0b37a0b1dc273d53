import pg from 'pg';
import { afterEach, describe, expect, inject, it, onTestFinished, vi } from 'vitest';
import { z } from 'zod';
import { createInbox, type InboxOptions } from '../../src/inbox/index.js';
import { defineOutbox, newMessage, subscribe, type Message } from '../../src/index.js';
import { MemoryStore, type MemoryTransaction } from '../../src/stores/memory/index.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { memoryBroker } from '../../src/testing/index.js';
import { newDatabase } from '../support/database.js';

const HOUR = 3_600_000;

type Runner = (work: (tx: MemoryTransaction) => Promise<void>) => Promise<unknown>;

function memory(options: Partial<InboxOptions<Runner>> = {}) {
  const store = new MemoryStore();
  const transaction = (work: (tx: MemoryTransaction) => Promise<void>) => store.transaction(work);
  return { store, inbox: createInbox({ store, consumer: 'billing', transaction, ...options }) };
}

async function database() {
  const pool = new pg.Pool({ connectionString: await newDatabase(inject('postgres')[17]), max: 6 });
  onTestFinished(() => pool.end());
  const store = new PostgresStore(pool);
  const transaction = async (work: (client: pg.PoolClient) => Promise<void>) => {
    const client = await pool.connect();
    try {
      await client.query('BEGIN');
      await work(client);
      await client.query('COMMIT');
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    } finally {
      client.release();
    }
  };
  return { pool, store, transaction };
}

afterEach(() => {
  vi.restoreAllMocks();
});

describe('createInbox', () => {
  it('makes the effect of each message happen once, from the outbox on, whatever is delivered twice or fails', async () => {
    const { pool, store, transaction } = await database();
    await pool.query('CREATE TABLE invoices (order_id text)');
    const outbox = defineOutbox({ store, topics: { 'order.created': { schema: z.object({ id: z.string() }) } } });
    await outbox.migrate();
    const ids = Array.from({ length: 30 }, (_, n) => `order-${String(n).padStart(2, '0')}`);
    await transaction(async (client) => {
      await outbox.sendAll(
        client,
        'order.created',
        ids.map((id) => ({ id })),
      );
    });
    // Each message comes three times, and every third one fails at first, after it has written.
    const broker = memoryBroker({ duplicates: 2 });
    const failed = new Set<string>();
    const stop = new AbortController();
    const receive = (consumer: string) =>
      subscribe(broker, {
        name: consumer,
        topics: outbox.topics,
        inbox: createInbox({ store, consumer, transaction }),
        signal: stop.signal,
        handlers: {
          'order.created': async ({ id }, { tx }) => {
            await tx.query('INSERT INTO invoices VALUES ($1)', [`${consumer} ${id}`]);
            if (Number(id.slice(-2)) % 3 > 0 || failed.has(consumer + id)) return;
            failed.add(consumer + id);
            throw new Error('refused');
          },
        },
      });
    const receiving = Promise.all([receive('billing'), receive('billing'), receive('audit')]);
    expect(await outbox.drain({ publisher: broker })).toBe(30);
    await broker.idle();
    stop.abort();
    await receiving;
    expect(broker.dead).toEqual([]);
    const { rows } = await pool.query<{ order_id: string }>('SELECT order_id FROM invoices ORDER BY 1');
    expect(rows.map((row) => row.order_id)).toEqual(
      ['audit', 'billing'].flatMap((who) => ids.map((id) => `${who} ${id}`)),
    );
    expect(failed.size).toBe(20);
  });

  it('tells whether it ran', async () => {
    const { inbox } = memory();
    const message = newMessage('x');
    const work = vi.fn(() => Promise.resolve());
    expect([await inbox.once(message, work), await inbox.once(message, work)]).toEqual([true, false]);
    expect(work).toHaveBeenCalledTimes(1);
  });

  it('throws what the handler throws, also where the library keeps it to itself', async () => {
    const message = newMessage('x');
    for (const swallows of [false, true]) {
      const store = new MemoryStore();
      const inbox = createInbox({
        store,
        consumer: 'billing',
        transaction: async (work: (tx: MemoryTransaction) => Promise<void>) => {
          try {
            await store.transaction(work);
          } catch (error) {
            if (!swallows) throw error;
          }
        },
      });
      const failing = inbox.once(message, () => Promise.reject(new Error('refused')));
      await expect(failing).rejects.toThrow('refused');
      expect(await inbox.once(message, () => Promise.resolve())).toBe(true);
    }
  });

  it('goes by the last time, where a library runs a transaction again', async () => {
    const store = new MemoryStore();
    let runs = 0;
    const inbox = createInbox({
      store,
      consumer: 'billing',
      transaction: async (work: (tx: MemoryTransaction) => Promise<void>) => {
        const conflict = store.transaction(async (tx) => {
          await work(tx);
          throw new Error('serialization failure');
        });
        await conflict.catch(() => undefined);
        await store.transaction(work);
      },
    });
    expect(await inbox.once(newMessage('x'), () => Promise.resolve((runs += 1)))).toBe(true);
    expect(runs).toBe(2);
  });

  it('refuses a transaction that is none', async () => {
    const { transaction: _, ...rest } = { store: new MemoryStore(), consumer: 'billing', transaction: undefined };
    const transactions: Runner[] = [
      () => Promise.resolve(),
      (work) => work(undefined as never),
      (work) => Promise.resolve(void work(undefined as never).catch(() => undefined)),
    ];
    for (const transaction of transactions) {
      const inbox = createInbox({ ...rest, transaction });
      const work = vi.fn(() => Promise.resolve());
      await expect(inbox.once(newMessage('x'), work)).rejects.toMatchObject({ code: 'INVALID_TRANSACTION' });
      expect(work).not.toHaveBeenCalled();
    }
  });

  it('says what to run where the tables are missing', async () => {
    const { store, transaction } = await database();
    const inbox = createInbox({ store, consumer: 'billing', transaction });
    await expect(inbox.once(newMessage('x'), () => Promise.resolve())).rejects.toMatchObject({
      code: 'SCHEMA_MISMATCH',
      message: expect.stringContaining('messenger migrate') as string,
    });
  });

  it.each([
    [{ store: {} }, 'store must be one that keeps what was received'],
    [{ consumer: '' }, 'consumer must be a non-empty string, got ""'],
    [{ consumer: 'a\u0000b' }, 'consumer must be a non-empty string'],
    [{ consumer: 7 }, 'got 7 (number)'],
    [{ transaction: 'BEGIN' }, 'transaction must be a function, got "BEGIN"'],
    [{ keep: 60_000 }, 'keep'],
    [{ keep: '7d' }, 'keep'],
    [{ kep: HOUR }, 'kep'],
  ])('refuses %o', (options, text) => {
    expect(() => memory(options as never)).toThrow(text);
    expect(() => memory(options as never)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }));
  });
});

describe('forgetting', () => {
  const handled = async ({ inbox }: Pick<ReturnType<typeof memory>, 'inbox'>, message: Message) =>
    inbox.once(message, () => Promise.resolve());

  it('forgets what is older than it keeps', async () => {
    const now = vi.spyOn(performance, 'now').mockReturnValue(0);
    const shop = memory({ keep: 2 * HOUR });
    const [old, young] = [newMessage('old'), newMessage('young')];
    await handled(shop, old);
    now.mockReturnValue(HOUR + 1);
    await handled(shop, young);
    now.mockReturnValue(2 * HOUR);
    expect(await shop.inbox.clean()).toBe(1);
    expect([await handled(shop, old), await handled(shop, young)]).toEqual([true, false]);
  });

  it('does so by itself, once an hour, and handles messages whether it works or not', async () => {
    const now = vi.spyOn(performance, 'now').mockReturnValue(0);
    const errors: Error[] = [];
    const shop = memory({ errorLogger: { error: (error) => errors.push(error) } });
    const forgetting = vi.spyOn(shop.store, 'forgetReceived').mockRejectedValue(new Error('refused'));
    for (const [time, times] of [
      [0, 1],
      [HOUR - 1, 1],
      [HOUR, 2],
      [HOUR + 1, 2],
      [2 * HOUR, 3],
    ] as const) {
      now.mockReturnValue(time);
      expect(await handled(shop, newMessage('x'))).toBe(true);
      expect(forgetting, String(time)).toHaveBeenCalledTimes(times);
    }
    expect(errors.map(({ message }) => message)).toEqual(['refused', 'refused', 'refused']);
    expect(forgetting).toHaveBeenLastCalledWith(30 * 24 * HOUR, undefined);
  });

  it('stops between the parts of it', async () => {
    const { store } = await database();
    await store.migrate();
    const inbox = createInbox({
      store,
      consumer: 'billing',
      transaction: (_: (tx: pg.PoolClient) => Promise<void>) => Promise.resolve(),
    });
    await expect(inbox.clean({ signal: AbortSignal.abort(new Error('stop')) })).rejects.toThrow('stop');
  });
});

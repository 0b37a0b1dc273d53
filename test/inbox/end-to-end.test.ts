/**
 * From a transaction that stores a message to the transaction that has its effect, with everything that a broker may do
 * in between.
 */
import type pg from 'pg';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { createInbox } from '../../src/inbox/index.js';
import { defineOutbox, subscribe, type Inbox } from '../../src/index.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { memoryBroker } from '../../src/testing/index.js';
import { inTransaction } from '../support/database.js';
import { newPool } from './support.js';

const IDS = Array.from({ length: 40 }, (_, n) => `order-${String(n).padStart(2, '0')}`);
const quiet = { error: () => undefined };

/**
 * Every message is delivered three times, to three subscriptions at once, two of which belong to one consumer. The
 * first delivery of each fails after its effect.
 */
async function effects(inboxed: boolean): Promise<Record<string, string[]>> {
  const pool = await newPool();
  const store = new PostgresStore(pool);
  const outbox = defineOutbox({
    store,
    topics: { 'order.created': { schema: z.object({ id: z.string() }), key: ({ id }) => id } },
  });
  await outbox.migrate();
  await pool.query('CREATE TABLE effects (consumer text, id text)');
  const broker = memoryBroker({ duplicates: 2, maxDeliveries: 10 });
  const stop = new AbortController();
  const none: Inbox<pg.Pool> = {
    async once(_, work) {
      await work(pool);
      return true;
    },
  };
  const consume = (consumer: string) => {
    const failed = new Set<string>();
    const inbox: Inbox<pg.Pool | pg.PoolClient> = inboxed
      ? createInbox({ store, consumer, transaction: (fn) => inTransaction(pool, fn), errorLogger: quiet })
      : none;
    return subscribe(broker, {
      name: consumer,
      topics: outbox.topics,
      inbox,
      signal: stop.signal,
      handlers: {
        'order.created': async ({ id }, { tx }) => {
          await tx.query('INSERT INTO effects VALUES ($1, $2)', [consumer, id]);
          if (failed.has(id)) return;
          failed.add(id);
          throw new Error('the first time fails');
        },
      },
    });
  };
  const consuming = ['billing', 'billing', 'shipping'].map(consume);
  await inTransaction(pool, (client) =>
    outbox.sendAll(
      client,
      'order.created',
      IDS.map((id) => ({ id })),
    ),
  );
  expect(await outbox.drain({ publisher: broker })).toBe(IDS.length);
  await broker.idle();
  stop.abort();
  await Promise.all(consuming);
  expect(broker.dead).toEqual([]);
  const { rows } = await pool.query<{ consumer: string; id: string }>('SELECT * FROM effects ORDER BY consumer, id');
  const of = (consumer: string) => rows.filter((row) => row.consumer === consumer).map(({ id }) => id);
  return { billing: of('billing'), shipping: of('shipping') };
}

describe('from an outbox to an inbox', () => {
  it('gives each message its effect once, at each consumer', async () => {
    expect(await effects(true)).toEqual({ billing: IDS, shipping: IDS });
  });

  it('gives a message its effect again and again without the inbox', async () => {
    const { billing, shipping } = await effects(false);
    // Three deliveries, and one that failed after its effect. Billing has two subscriptions.
    expect([billing?.length, shipping?.length]).toEqual([IDS.length * 8, IDS.length * 4]);
  });
});

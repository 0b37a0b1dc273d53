import { type } from 'arktype';
import { sql } from 'drizzle-orm';
import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import type pg from 'pg';
import * as v from 'valibot';
import { describe, expectTypeOf, it } from 'vitest';
import { z } from 'zod';
import { defineOutbox, defineTopics, subscribe, type Subscriber } from '../../src/index.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { drizzleBridge } from '../../src/bridges/drizzle.js';

const Order = z.object({ id: z.string(), total: z.number(), at: z.coerce.date() });
const topics = defineTopics({
  'order.created': { schema: Order, key: (order) => order.id },
  'order.paid': { schema: v.object({ id: v.string() }), key: ({ id }) => id },
  'order.sent': { schema: type({ id: 'string' }), key: ({ id }) => id, version: 2, upcast: (old) => old },
});

// Checked by `tsc`, like everything here; nothing of it has to run.
const outboxOf = (pool: pg.Pool) =>
  defineOutbox({ store: new PostgresStore(pool, { bridge: drizzleBridge(sql) }), topics });

describe('typed topics', () => {
  it('accept the input of their schemas', () => {
    const calls = (pool: pg.Pool, db: NodePgDatabase) => {
      const outbox = outboxOf(pool);
      return db.transaction(async (tx) => {
        await outbox.send(tx, 'order.created', { id: '1', total: 1, at: new Date() });
        await outbox.send(tx, 'order.created', { id: '1', total: 1, at: '2026-01-01' });
        await outbox.send(tx, 'order.paid', { id: '1' });
        await outbox.send(tx, 'order.sent', { id: '1' });
        await outbox.sendAll(tx, 'order.paid', [{ id: '1' }]);
        await outbox.statement('order.paid', { id: '1' });
        // @ts-expect-error no such topic
        await outbox.send(tx, 'order.creatd', { id: '1', total: 1, at: new Date() });
        // @ts-expect-error a total is a number
        await outbox.send(tx, 'order.created', { id: '1', total: '1', at: new Date() });
        // @ts-expect-error something is missing
        await outbox.send(tx, 'order.paid', {});
        // @ts-expect-error nobody reads that
        await outbox.send(tx, 'order.paid', { id: '1', extra: true });
        // @ts-expect-error no transaction
        await outbox.send('order.paid', { id: '1' });
        // @ts-expect-error a db commits every query by itself
        await outbox.send(db, 'order.paid', { id: '1' });
        // @ts-expect-error so does a pool
        await outbox.send(pool, 'order.paid', { id: '1' });
      });
    };
    expectTypeOf(calls).toBeFunction();
  });

  it('give their handlers the output of their schemas', () => {
    const calls = (subscriber: Subscriber, signal: AbortSignal) => [
      subscribe(subscriber, {
        name: 'billing',
        topics,
        signal,
        handlers: {
          'order.created': (order, { message }) => {
            expectTypeOf(order).toEqualTypeOf<{ id: string; total: number; at: Date }>();
            expectTypeOf(message.id).toBeString();
          },
          'order.paid': ({ id }) => {
            expectTypeOf(id).toBeString();
          },
        },
      }),
      subscribe(subscriber, {
        name: 'billing',
        topics,
        signal,
        handlers: {
          // @ts-expect-error an order is no number
          'order.created': (order: number) => order,
        },
      }),
      subscribe(subscriber, {
        name: 'billing',
        topics,
        signal,
        handlers: {
          // @ts-expect-error no such topic
          'order.creatd': () => undefined,
        },
      }),
    ];
    expectTypeOf(calls).toBeFunction();
  });
});

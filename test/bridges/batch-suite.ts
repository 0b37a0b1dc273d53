import pg from 'pg';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { z } from 'zod';
import { defineOutbox, Messenger, newMessage, type Message } from '../../src/index.js';
import { ACKNOWLEDGED } from '../../src/adapter.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { newDatabase } from '../support/database.js';
import { causesOf, ORDERS } from './suite.js';

/** The statement that a store or an outbox makes for a batch. */
export interface Statement {
  readonly text: string;
  readonly values: string[];
}

/** A library that sends a transaction as one batch, to a database with the table of `ORDERS`. */
export interface Batches {
  /** Runs statements, and then inserts orders with the library's own means, all in one transaction. */
  readonly batch: (statements: readonly Statement[], orders: readonly string[]) => Promise<unknown>;
  readonly close: () => Promise<unknown>;
}

const Order = z.object({ id: z.string(), total: z.number() });

/** Tests of `statement` in the batches of a library, on a real PostgreSQL. */
export function batchSuite(name: string, open: (url: string) => Promise<Batches>): void {
  describe(name, () => {
    let library: Batches;
    let pool: pg.Pool;
    let store: PostgresStore;
    beforeAll(async () => {
      const url = await newDatabase(inject('postgres')[17]);
      pool = new pg.Pool({ connectionString: url, max: 5 });
      await pool.query(ORDERS);
      library = await open(url);
      store = new PostgresStore(pool);
      await store.migrate();
    });
    afterAll(async () => {
      await store.close();
      await library.close();
      await pool.end();
    });

    /** Relays all stored messages, and returns them. */
    async function relayed(): Promise<Message[]> {
      const published: Message[] = [];
      const publisher = {
        batchKeepsKeyOrder: true,
        publish: () => Promise.resolve(),
        publishBatch: (batch: readonly Message[]) => {
          published.push(...batch);
          return Promise.resolve(batch.map(() => ACKNOWLEDGED));
        },
      };
      const messenger = new Messenger(store, publisher, { publishBatchSize: 1_000 });
      while ((await messenger.publish()) > 0);
      return published;
    }
    const orders = async () => (await pool.query<{ id: string }>('SELECT id FROM orders')).rows.map(({ id }) => id);
    const textOf = ({ payload }: Message) => Buffer.from(payload).toString();

    it('commits messages with the data, and relays them unchanged', async () => {
      const message = newMessage('grüße 😀 "\'\\ $1 ? :name ;--', {
        topic: 'order.created',
        key: 'kéy $2 ?',
        metadata: { tenant: "acme's ?", empty: '' },
      });
      await library.batch([store.statement(message)], ['order-1']);
      expect(await orders()).toEqual(['order-1']);
      const [found, ...more] = await relayed();
      expect(more).toEqual([]);
      expect(found).toMatchObject({ id: message.id, topic: 'order.created', key: 'kéy $2 ?', at: message.at });
      expect(found?.metadata).toEqual(message.metadata);
      expect(found && textOf(found)).toBe(textOf(message));
    });

    it('keeps every byte, and leaves absent fields absent', async () => {
      const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
      await library.batch([store.statement(bytes)], []);
      const [found] = await relayed();
      expect(found?.payload).toEqual(Buffer.from(bytes));
      expect([found?.topic, found?.key, found?.deliverAt]).toEqual([undefined, undefined, undefined]);
    });

    it('accepts what an outbox makes of a topic and its payload', async () => {
      const outbox = defineOutbox({ store, topics: { 'order.created': { schema: Order, key: ({ id }) => id } } });
      await library.batch([await outbox.statement('order.created', { id: 'order-2', total: 42 })], []);
      const [found] = await relayed();
      expect(found).toMatchObject({ topic: 'order.created', key: 'order-2' });
      expect(found && JSON.parse(textOf(found))).toEqual({ id: 'order-2', total: 42 });
    });

    it('leaves no message if another statement fails, and rejects with the library’s own error', async () => {
      const before = await orders();
      const failed = library.batch([store.statement('never')], ['order-3', 'order-3']);
      const error = await failed.then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      expect(error).toBeInstanceOf(Error);
      expect(causesOf(error)).toContain('23505');
      expect(await relayed()).toEqual([]);
      expect(await orders()).toEqual(before);
    });

    it('leaves no data if the statement itself fails', async () => {
      const other = new PostgresStore(pool, { schema: 'not_there' });
      const statements = [store.statement('never'), other.statement('never')];
      await expect(library.batch(statements, ['order-4'])).rejects.toBeInstanceOf(Error);
      expect(await relayed()).toEqual([]);
      expect(await orders()).not.toContain('order-4');
    });

    it('stores ten thousand messages in order, with one statement and with several', async () => {
      const messages = Array.from({ length: 10_000 }, (_, i) => newMessage(`message ${i}`, { key: `key-${i % 7}` }));
      await library.batch([store.statement(messages)], []);
      const more = ['first', 'second', 'third'].map((text) => newMessage(text, { key: 'k' }));
      await library.batch(
        more.map((message) => store.statement(message)),
        [],
      );
      expect((await relayed()).map(({ id }) => id)).toEqual([...messages, ...more].map(({ id }) => id));
    });
  });
}

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Hono } from 'hono';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished } from 'vitest';
import { z } from 'zod';
import { drainHandler, drainTask } from '../../src/frameworks/serverless.js';
import { defineOutbox, type Message, type Publisher } from '../../src/index.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { newDatabase } from '../support/database.js';
import { held, shop } from './support.js';

const url = 'https://shop.example/cron';
const bearer = (secret: string) => ({ headers: { authorization: `Bearer ${secret}` } });

function open() {
  const { publisher, published, release } = held();
  release();
  return { publisher, published };
}

describe('drainHandler', () => {
  it('publishes stored messages as a route of Hono, for callers who know the secret', async () => {
    const { outbox, send, waiting } = shop();
    const { publisher, published } = open();
    const handler = drainHandler(outbox, { publisher, budget: 5_000, secret: 's3cret' });
    const app = new Hono().get('/cron', (context) => handler(context.req.raw));
    await send('1');
    await send('2');
    const response = await app.request(url, bearer('s3cret'));
    expect([response.status, await response.json()]).toEqual([200, { published: 2 }]);
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(published).toHaveLength(2);
    expect(await waiting()).toBe(0);
    expect(await (await app.request(url, bearer('s3cret'))).json()).toEqual({ published: 0 });
  });

  it.each([{}, bearer('other'), bearer(''), bearer('s3cret2'), { headers: { authorization: 's3cret' } }])(
    'refuses %o',
    async (init) => {
      const { outbox, send, waiting } = shop();
      await send('1');
      const handler = drainHandler(outbox, { publisher: open().publisher, secret: 's3cret' });
      const response = await handler(new Request(url, init));
      expect([response.status, await response.json()]).toEqual([401, { error: 'unauthorized' }]);
      expect(await waiting()).toBe(1);
    },
  );

  it.each([undefined, ''])('refuses everybody while the secret is %o, and logs that', async (secret) => {
    const { outbox, send, waiting, errors, errorLogger } = shop();
    await send('1');
    const handler = drainHandler(outbox, { publisher: open().publisher, errorLogger, secret });
    for (const init of [{}, bearer('undefined'), bearer('')]) {
      expect((await handler(new Request(url, init))).status).toBe(401);
    }
    expect(errors).toHaveLength(3);
    expect(errors[0]).toMatchObject({ code: 'INVALID_OPTION' });
    expect(await waiting()).toBe(1);
  });

  it('asks authorize, and accepts nothing but true', async () => {
    const { outbox, errors, errorLogger } = shop();
    const { publisher } = open();
    const statuses: number[] = [];
    for (const verdict of [true, Promise.resolve(true), false, Promise.resolve(false), 'yes' as never]) {
      const handler = drainHandler(outbox, { publisher, authorize: () => verdict });
      statuses.push((await handler(new Request(url))).status);
    }
    expect(statuses).toEqual([200, 200, 401, 401, 401]);
    const failure = new Error('the identity provider is down');
    const failing = drainHandler(outbox, { publisher, errorLogger, authorize: () => Promise.reject(failure) });
    expect((await failing(new Request(url))).status).toBe(500);
    expect(errors).toEqual([failure]);
  });

  it('needs exactly one of secret and authorize', () => {
    const { outbox } = shop();
    const { publisher } = open();
    expect(() => drainHandler(outbox, { publisher } as never)).toThrow('one of the secret and authorize options');
    const both = { publisher, secret: 'x', authorize: () => true };
    expect(() => drainHandler(outbox, both)).toThrow('one of the secret and authorize options');
  });

  it('answers 500 if something could not be published, and shows the details only in the log', async () => {
    const { outbox, send, waiting, errors, errorLogger } = shop();
    await send('1');
    const publisher: Publisher = { publish: () => Promise.reject(new Error('the password is hunter2')) };
    const handler = drainHandler(outbox, { publisher, errorLogger, secret: 's3cret' });
    const response = await handler(new Request(url, bearer('s3cret')));
    expect(response.status).toBe(500);
    expect(await response.text()).toBe('{"error":"failed: see the log"}');
    expect(errors.at(-1)).toMatchObject({ code: 'PUBLISH_FAILED' });
    expect(await waiting()).toBe(1);
  });
});

describe('drainTask', () => {
  it('publishes, and never rejects', async () => {
    const { outbox, send, waiting, lose, errors, errorLogger } = shop();
    const task = drainTask(outbox, { publisher: open().publisher, errorLogger });
    await send('1');
    await task();
    expect(await waiting()).toBe(0);
    lose();
    await task();
    expect(errors).toEqual([expect.objectContaining({ message: 'refused' })]);
  });
});

describe('on PostgreSQL', () => {
  let pool: pg.Pool;
  let store: PostgresStore;

  beforeAll(async () => {
    pool = new pg.Pool({ connectionString: await newDatabase(inject('postgres')[17]), max: 5 });
    store = new PostgresStore(pool);
    await store.migrate();
  });
  afterAll(async () => {
    await store.close();
    await pool.end();
  });

  it('gives the lease back before it answers, so that another relay works at once', async () => {
    const outbox = defineOutbox({ store, topics: { 'order.created': { schema: z.object({ id: z.string() }) } } });
    const send = async (id: string) => {
      const client = await pool.connect();
      await client.query('BEGIN');
      await outbox.send(client, 'order.created', { id });
      await client.query('COMMIT');
      client.release();
    };
    const others: Message[] = [];
    const other: Publisher = { publish: (message) => Promise.resolve(void others.push(message)) };
    const { publisher, inFlight, release } = held();
    await send('1');
    const handler = drainHandler(outbox, { publisher, secret: 's3cret' });
    const response = handler(new Request(url, bearer('s3cret')));
    await inFlight;
    // A drain while the lease is held gets nothing, and does not wait.
    expect(await outbox.drain({ publisher: other })).toBe(0);
    release();
    expect(await (await response).json()).toEqual({ published: 1 });
    await send('2');
    expect(await outbox.drain({ publisher: other })).toBe(1);
    expect(others).toHaveLength(1);
  });

  it('drains all messages that are to be retried, however many pages they fill, and none once it has to end', async () => {
    const outbox = defineOutbox({ store, topics: { 'order.created': { schema: z.object({ id: z.string() }) } } });
    const client = await pool.connect();
    await client.query('BEGIN');
    await outbox.sendAll(
      client,
      'order.created',
      Array.from({ length: 8 }, (_, i) => ({ id: String(i) })),
    );
    await client.query('COMMIT');
    client.release();
    const failing: Publisher = {
      publish: ({ payload }) => {
        const { id } = JSON.parse(Buffer.from(payload).toString()) as { id: string };
        return Number(id) % 2 === 0 ? Promise.reject(new Error('busy')) : Promise.resolve();
      },
    };
    const retry = { minDelay: 1, maxDelay: 1 };
    await expect(outbox.drain({ publisher: failing, concurrency: 1, retry, publishBatchSize: 100 })).rejects.toThrow(
      'published, but others failed',
    );
    const left = async () => (await store.admin.destinations())[0]?.parked ?? 0;
    expect(await left()).toBe(4);
    const { publisher } = open();
    expect(await outbox.drain({ publisher, signal: AbortSignal.abort() })).toBe(0);
    expect(await outbox.drain({ publisher, publishBatchSize: 1 })).toBe(4);
    expect(await left()).toBe(0);
  });

  it('holds nothing for longer than its lease when it freezes, and changes nothing when it thaws', async () => {
    const at = await newDatabase(inject('postgres')[17]);
    const own = new pg.Pool({ connectionString: at, max: 3 });
    onTestFinished(() => own.end());
    const outbox = defineOutbox({
      store: new PostgresStore(own, { lease: 1_000 }),
      topics: { 'order.created': { schema: z.object({ id: z.string() }) } },
    });
    await outbox.migrate();
    const send = async (id: string) => {
      const client = await own.connect();
      await client.query('BEGIN');
      await outbox.send(client, 'order.created', { id });
      await client.query('COMMIT');
      client.release();
    };
    await send('1');
    const program = fileURLToPath(new URL('drain-process.ts', import.meta.url));
    const frozen = spawn(process.execPath, ['--import', 'tsx', program, at], { stdio: ['pipe', 'pipe', 'inherit'] });
    onTestFinished(() => void frozen.kill('SIGKILL'));
    const lines = createInterface(frozen.stdout)[Symbol.asyncIterator]();
    expect((await lines.next()).value).toBe('publishing');
    frozen.kill('SIGSTOP');
    const published: string[] = [];
    const publisher: Publisher = {
      publish: ({ payload }) => Promise.resolve(void published.push(Buffer.from(payload).toString())),
    };
    while (published.length === 0) await outbox.drain({ publisher });
    frozen.kill('SIGCONT');
    frozen.stdin.end('go on\n');
    expect((await lines.next()).value).toBe('answered 500');
    await send('2');
    await outbox.drain({ publisher });
    expect(published).toEqual(['{"id":"1"}', '{"id":"2"}']);
  });
});

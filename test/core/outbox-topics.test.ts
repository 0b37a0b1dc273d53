/** What an outbox makes of its topics beside their schemas: versions, metadata, policies; and what it asks of a store. */
import pg from 'pg';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { z } from 'zod';
import { hasCode } from '../../src/core/errors.js';
import { destinationsOf } from '../../src/core/outbox/topics.js';
import type { WritableStore } from '../../src/core/outbox/outbox.js';
import type { FeedStore } from '../../src/core/contracts/store.js';
import { defineOutbox, defineTopics, newMessage, subscribe, type Message, type Topics } from '../../src/index.js';
import { MemoryStore } from '../../src/stores/memory/index.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { memoryBroker } from '../../src/testing/index.js';
import { until } from '../../src/testing/conformance/assert.js';
import { inTransaction, newDatabase } from '../support/database.js';
import { sleepingFor } from '../support/sleeping.js';
import { FAST, ListFeedStore, recordingLogger, scripted } from './scripted.js';

const Paid = z.object({ id: z.string() });
const first = defineTopics({ 'order.paid': { schema: Paid } });
const second = defineTopics({
  'order.paid': {
    schema: Paid.extend({ currency: z.string() }),
    version: 2,
    upcast: (old, version) => ({ ...(old as object), currency: `of version ${String(version)}` }),
  },
});

/** Has a subscriber with topics of its own handle what an outbox with these sends. */
async function handedOver(from: Topics, payload: unknown, to: Topics) {
  const store = new MemoryStore();
  const outbox = defineOutbox({ store, topics: from });
  await store.transaction((tx) => outbox.send(tx, 'order.paid', payload));
  const broker = memoryBroker({ maxDeliveries: 1, errorLogger: recordingLogger() });
  const handled: unknown[] = [];
  const stop = new AbortController();
  const subscribed = subscribe(broker, {
    name: 'billing',
    topics: to,
    signal: stop.signal,
    handlers: { 'order.paid': (paid) => handled.push(paid) },
  });
  await outbox.drain({ publisher: broker });
  await broker.idle();
  stop.abort();
  await subscribed;
  return { published: broker.published, handled, refused: broker.dead.map(({ error }) => error) };
}

describe('the version of a topic', () => {
  const payload = { id: '1', currency: 'CHF' };

  it('is stored with each message, from version 2 on', async () => {
    const metadataOf = async (topics: Topics) => (await handedOver(topics, payload, topics)).published[0];
    expect((await metadataOf(second))?.metadata).toMatchObject({ 'schema-version': '2' });
    expect((await metadataOf(first))?.metadata).not.toHaveProperty('schema-version');
  });

  it('is accepted by a subscriber of the same version, and refused by a subscriber of an older version', async () => {
    expect(await handedOver(second, payload, second)).toMatchObject({ handled: [payload], refused: [] });
    expect(await handedOver(second, payload, first)).toMatchObject({
      handled: [],
      refused: [
        {
          code: 'INVALID_MESSAGE',
          message: expect.stringMatching(/version 2, but this consumer has version 1/) as string,
        },
      ],
    });
  });

  it('lets a subscriber of a newer version upcast what an older outbox stored', async () => {
    const { handled, refused } = await handedOver(first, { id: '1' }, second);
    expect([handled, refused]).toEqual([[{ id: '1', currency: 'of version 1' }], []]);
  });
});

it('describes the payload in the metadata, even if the metadata of another message is passed on', async () => {
  const store = new MemoryStore();
  const outbox = defineOutbox({
    store,
    topics: { old: { schema: Paid }, new: { schema: Paid, version: 3 } },
  });
  const received = { 'schema-version': '2', 'content-type': 'text/plain', tenant: 'acme' };
  await store.transaction(async (tx) => {
    await outbox.send(tx, 'new', { id: '1' }, { metadata: received });
    await outbox.sendAll(tx, 'old', [{ id: '1' }], { metadata: received });
  });
  expect((await store.messages(10)).map(({ metadata }) => metadata)).toEqual([
    { 'schema-version': '3', 'content-type': 'application/json', tenant: 'acme' },
    { 'content-type': 'application/json', tenant: 'acme' },
  ]);
});

/** A store with feeds that can be written to: whatever the transaction is, it has committed. */
function listStore() {
  const list = new ListFeedStore();
  const store: WritableStore<undefined> & FeedStore = {
    add(_, messages) {
      const added = ([] as Message[]).concat(messages);
      list.log.push(...added);
      return Promise.resolve(added);
    },
    messages: () => list.messages(),
    published: () => list.published(),
    deletePublishedByExpiration: () => list.deletePublishedByExpiration(),
    openFeed: (options) => list.openFeed(options),
  };
  return { list, store };
}

describe('the failures of a topic', () => {
  const schema = z.object({ id: z.string(), n: z.number() });
  const key = ({ id }: { id: string }) => id;
  const textsOf = (id: string, ...numbers: readonly number[]) => numbers.map((n) => JSON.stringify({ id, n }));

  it('follow the topic’s `retry`, and for another topic the relay’s', async () => {
    const { list, store } = listStore();
    const retry = { maxAttempts: 2, onExhausted: 'block-key' } as const;
    const outbox = defineOutbox({ store, topics: { strict: { schema, key, retry }, other: { schema, key } } });
    for (const topic of ['strict', 'other'] as const) {
      await outbox.sendAll(undefined, topic, [
        { id: topic, n: 1 },
        { id: topic, n: 2 },
      ]);
    }
    const publisher = scripted((text) => {
      const { id, n } = JSON.parse(text) as { id: string; n: number };
      if (n === 1) throw new Error(`${id} is busy`);
    });
    const relay = await outbox.relay({
      ...FAST,
      publisher,
      retry: { ...FAST.retry, maxAttempts: 4 },
      errorLogger: recordingLogger(),
    });
    await until(() => list.parked.get(0)?.blocked === true && publisher.acknowledged.length > 0, 'both ends');
    await relay.stop();
    expect(list.parked.get(0)).toMatchObject({ attempts: 2, dead: false, blocked: true });
    expect(list.parked.get(2)).toMatchObject({ attempts: 4, dead: true });
    expect(publisher.acknowledged).toEqual(textsOf('other', 2));
  });

  it('hold up new messages once `maxParked` messages of the topic wait', async () => {
    const { list, store } = listStore();
    const outbox = defineOutbox({ store, topics: { tight: { schema, maxParked: 2 }, wide: { schema } } });
    const send = (topic: 'tight' | 'wide', n: number) => outbox.send(undefined, topic, { id: topic, n });
    await send('tight', 1);
    await send('tight', 2);
    await send('wide', 1);
    let mended = false;
    const publisher = scripted((text) => {
      if (text.includes('tight') && !mended) throw new Error(text.includes('1') ? 'busy' : 'late');
    });
    const relay = await outbox.relay({
      ...FAST,
      publisher,
      retry: { ...FAST.retry, maxAttempts: Infinity },
      errorLogger: recordingLogger(),
    });
    await until(() => list.parked.size === 2 && publisher.acknowledged.length === 1, 'those that wait');
    await send('tight', 3);
    await until(() => hasCode(relay.circuit.error, 'PARKING_LIMIT'), 'the limit');
    expect(relay.circuit.error?.message).toMatch(/^2 messages of topic "tight" wait to be tried again \(maxParked 2\)/);
    expect(publisher.sent).not.toContain(textsOf('tight', 3)[0]);
    mended = true;
    await until(() => list.isDone, 'all');
    await relay.stop();
    expect(publisher.acknowledged.sort()).toEqual([...textsOf('tight', 1, 2, 3), ...textsOf('wide', 1)]);
  });
});

describe('a store without optional methods', () => {
  it('rejects `statement` and `stored` as unsupported', async () => {
    const outbox = defineOutbox({ store: listStore().store, topics: first });
    await expect(outbox.statement('order.paid', { id: '1' })).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: 'this store cannot give a statement: call send with a transaction instead',
    });
    await expect(outbox.stored(undefined)).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: 'this store cannot list the messages that a transaction has stored',
    });
  });
});

describe('the destinations that publish topics', () => {
  const [plain, audited] = [{ schema: Paid }, { schema: Paid, destination: 'audit' }];

  it.each<[string, Topics, string[]]>([
    ['default alone if there are no topics', {}, ['default']],
    ['default alone if no topic names one', { a: plain, b: plain }, ['default']],
    ['those that all topics name, once each', { a: audited, b: audited }, ['audit']],
    ['default as well if only some topics name one', { a: audited, b: plain }, ['audit', 'default']],
  ])('are %s', (_, topics, destinations) => {
    expect(destinationsOf(topics)).toEqual(destinations);
  });
});

describe('migrate', () => {
  const migrating = (topics: Topics) => {
    const calls: unknown[][] = [];
    const store = {
      ...listStore().store,
      migrate: async (...args: unknown[]) => void calls.push(['migrate', ...args]),
      declareDestinations: async (...args: unknown[]) => void calls.push(['declare', ...args]),
    };
    return { outbox: defineOutbox({ store, topics }), calls };
  };
  const { signal } = new AbortController();

  it('creates the tables, and then the destinations of topics', async () => {
    const { outbox, calls } = migrating({ 'order.paid': { schema: Paid, destination: 'audit' } });
    await outbox.migrate({ signal });
    expect(calls).toEqual([
      ['migrate', { signal }],
      ['declare', ['audit'], { signal }],
    ]);
  });

  it('adds no destination if no topic has one', async () => {
    const { outbox, calls } = migrating(first);
    await outbox.migrate({ signal });
    expect(calls).toEqual([['migrate', { signal }]]);
  });

  it('does nothing for a store that needs no tables', async () => {
    const outbox = defineOutbox({ store: listStore().store, topics: first });
    await expect(outbox.migrate()).resolves.toBeUndefined();
  });
});

describe('stored', () => {
  it('lists what a transaction has stored with the store’s own method', async () => {
    const { store } = listStore();
    const stored = async (transaction: unknown) => [newMessage('x', { id: `of ${String(transaction)}` })];
    const outbox = defineOutbox({ store: { ...store, stored }, topics: first });
    expect((await outbox.stored('tx')).map(({ id }) => id)).toEqual(['of tx']);
  });
});

describe('transaction', () => {
  it('wakes the relays of this process after the commit, if nothing else wakes them', async () => {
    const pool = new pg.Pool({ connectionString: await newDatabase(inject('postgres')[17]), max: 5 });
    onTestFinished(() => pool.end());
    const outbox = defineOutbox({ store: new PostgresStore(pool, { listen: false, notify: false }), topics: first });
    await outbox.migrate();
    const interval = 600_000;
    const sleeps = sleepingFor(interval);
    const publisher = scripted();
    await using _ = await outbox.relay({ publisher, interval });
    await until(() => sleeps() > 0, 'its sleep');
    for (const id of ['1', '2', '3']) {
      const done = outbox.transaction(() =>
        inTransaction(pool, async (client) => {
          // Nobody knows of a bare function when its transaction is over.
          await outbox.send((text, values) => client.query(text, [...values]), 'order.paid', { id });
          return `done ${id}`;
        }),
      );
      expect(await done).toBe(`done ${id}`);
      await until(() => publisher.acknowledged.at(-1) === JSON.stringify({ id }), `message ${id}`);
    }
  });

  it('rejects with the reason of the rollback, even on a store that has no relays to wake', async () => {
    const store = new MemoryStore();
    const outbox = defineOutbox({ store, topics: first });
    const failure = new Error('the application changed its mind');
    const rolledBack = outbox.transaction(() =>
      store.transaction(async (tx) => {
        await outbox.send(tx, 'order.paid', { id: '1' });
        throw failure;
      }),
    );
    await expect(rolledBack).rejects.toBe(failure);
    expect(await store.messages(10)).toEqual([]);
    expect(
      await outbox.transaction(() => store.transaction((tx) => outbox.send(tx, 'order.paid', { id: '2' }))),
    ).toMatchObject({ topic: 'order.paid' });
  });
});

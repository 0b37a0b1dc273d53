/** Dead letters and blocked messages: listed complete, tried again in order while relays run, or discarded. */
import type { DeadLettersOptions } from '../../../src/core/contracts/admin.js';
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { describe, expect, inject, it } from 'vitest';
import { Messenger, newMessage, PublishError, type Message } from 'messenger-outbox';
import { PostgresStore, type DeadLetterSelection } from 'messenger-outbox/postgres';
import { inTransaction, newDatabase } from '../../support/database.js';
import { outermostVersions } from '../../support/embedded-postgres.js';
import type { ToPark } from '../../../src/core/contracts/feed.js';
import { createDatabase, inWorld, type TestRelay, type World } from './support.js';

/** Reads a page and gives up these messages of it. The rest is acknowledged. */
async function giveUp(relay: TestRelay, ids: readonly string[], state: 'dead' | 'blocked' = 'dead'): Promise<void> {
  const page = await relay.read();
  const failed = page.messages.filter(({ id }) => ids.includes(id));
  const behind = page.messages.filter(({ key }) => state === 'blocked' && failed.some((each) => each.key === key));
  await relay.settle(
    page,
    page.messages.flatMap((message): ToPark[] => {
      if (failed.includes(message)) {
        return [
          {
            message,
            attempts: 3,
            error: new Error(`no ${message.id}`),
            dead: state === 'dead',
            blocked: state === 'blocked',
          },
        ];
      }
      return behind.includes(message) ? [{ message, attempts: 0, dead: false }] : [];
    }),
  );
  relay.acknowledged.push(
    ...page.messages.filter((each) => !failed.includes(each) && !behind.includes(each)).map(({ id }) => id),
  );
}

/** As a relay that knows of blocked messages leaves it. */
async function block(world: World, ...ids: string[]): Promise<void> {
  await world.sql(
    `UPDATE ${world.names.parked} SET blocked_at = clock_timestamp(), next_at = NULL WHERE id = ANY($1)`,
    [ids],
  );
}

const waiting = (world: World) =>
  world.sql(`SELECT id, next_at IS NOT NULL FROM ${world.names.parked} WHERE dead_at IS NULL ORDER BY seq`);

describe.each(outermostVersions)('PostgreSQL %i', (version) => {
  const url = createDatabase(version, `requeue_${String(version)}_${String(process.pid)}`);
  const inNew = async <T>(play: (world: World) => Promise<T>) => inWorld(play, await url);

  it('lists messages that were given up, complete, page by page', async () => {
    await inNew(async (world) => {
      const { store, names } = world;
      await world.sql('BEGIN');
      const metadata = { a: 'b' };
      const [first] = await store.add(
        (text, values) => world.sql(text, [...values]),
        [
          newMessage('eins', { id: '1', key: 'k', topic: 't', metadata, at: new Date(1e12) }),
          newMessage('zwei', { id: '2', key: 'k' }),
          newMessage('drei', { id: '3', topic: 't' }),
        ],
      );
      await world.sql('COMMIT');
      await giveUp(await world.relay(), ['1', '2', '3']);
      const letters = await store.admin.deadLetters();
      expect(letters[0]).toMatchObject({
        ...{
          state: 'dead',
          error: 'no 1',
          attempts: 3,
          storedAt: expect.any(Date) as Date,
          givenUpAt: expect.any(Date) as Date,
        },
        message: { id: '1', key: 'k', topic: 't', metadata, at: first!.at },
      });
      expect(Buffer.from(letters[0]!.message.payload).toString()).toBe('eins');
      const ids = async (options: DeadLettersOptions) =>
        (await store.admin.deadLetters(options)).map(({ message }) => message.id);
      expect(await ids({ limit: 2 })).toEqual(['1', '2']);
      expect(await ids({ limit: 2, after: letters[1]!.seq })).toEqual(['3']);
      await world.sql(`UPDATE ${names.parked} SET dead_at = '2020-01-01', blocked_at = NULL WHERE id = '3'`);
      await world.sql(`UPDATE ${names.parked} SET dead_at = NULL, blocked_at = now() WHERE id = '2'`);
      expect(await ids({ topic: 't' })).toEqual(['1', '3']);
      expect(await ids({ key: 'k' })).toEqual(['1', '2']);
      expect(await ids({ key: 'k', state: 'blocked' })).toEqual(['2']);
      expect(await ids({ state: 'dead' })).toEqual(['1', '3']);
      expect(await ids({ error: 'o 3' })).toEqual(['3']);
      expect(await ids({ ids: ['3', '1', 'x'] })).toEqual(['1', '3']);
      expect(await ids({ until: new Date('2021-01-01') })).toEqual(['3']);
      expect(await ids({ since: new Date('2021-01-01') })).toEqual(['1', '2']);
      await expect(ids({ destination: 'other' })).rejects.toMatchObject({
        code: 'UNKNOWN_DESTINATION',
        message: 'there is no destination "other"; there are "default"',
      });
    });
  });

  it('has a running relay try them again in order, before the messages that it reads after that', async () => {
    await inNew(async (world) => {
      const { store } = world;
      const relay = await world.relay();
      await world.add('k:1', 'j:1', 'k:2', '3');
      await giveUp(relay, ['k:1', 'k:2', '3']);
      await world.add('k:4');
      expect(await relay.poll()).toBe(true);
      // Read ahead before the requeue, and published after it.
      await world.add('k:5', 'j:5');
      const ahead = await relay.read();
      expect(await store.admin.requeue({ ids: ['k:1', 'k:2'] })).toBe(2);
      const retries = await relay.feed.retries();
      expect(retries.messages.map(({ id }) => id)).toEqual(['k:1', 'k:2']);
      expect(retries.attempts).toEqual([0, 0]);
      await relay.settle(ahead, await relay.publish(ahead));
      expect(relay.acknowledged).toEqual(['j:1', 'k:4', 'j:5']);
      await relay.drain();
      expect(relay.acknowledged.slice(3)).toEqual(['k:1', 'k:2', 'k:5']);
      // When nothing of it is left, the key is published directly again.
      await world.add('k:6');
      const page = await relay.read();
      expect(await relay.publish(page)).toEqual([]);
      await relay.settle(page);
      expect((await store.admin.deadLetters()).map(({ message }) => message.id)).toEqual(['3']);
      expect(await store.admin.requeue({ all: true })).toBe(1);
      await relay.drain();
      expect(relay.acknowledged.at(-1)).toBe('3');
      expect(await waiting(world)).toEqual([]);
    });
  });

  it('requeues in order the messages selected by id, key, topic, state, error or time, and no others', async () => {
    await inNew(async (world) => {
      const { store, names } = world;
      const failed = ['a:1', 'b:1', 'a:2', 'c:1', 'd:1', 'e:1', 'd:2', 'f:1'];
      await world.add(...failed);
      const giver = await world.relay();
      await giveUp(giver, failed);
      await giver.close();
      await block(world, 'f:1');
      await world.sql(`UPDATE ${names.parked} SET dead_at = NULL WHERE id = 'f:1'`);
      await world.sql(`UPDATE ${names.parked} SET topic = 'orders' WHERE id IN ('b:1', 'c:1')`);
      await world.sql(`UPDATE ${names.parked} SET dead_at = '2020-01-01' WHERE key = 'd'`);
      const again = async (selection: DeadLetterSelection) => {
        await store.admin.requeue(selection);
        const relay = await world.relay();
        await relay.drain();
        await relay.close();
        return relay.acknowledged;
      };
      expect(await again({ topic: 'orders' })).toEqual(['b:1', 'c:1']);
      expect(await again({ topic: 'orders' })).toEqual([]);
      expect(await again({ until: new Date('2020-01-01') })).toEqual([]);
      expect(await again({ until: new Date('2021-01-01') })).toEqual(['d:1', 'd:2']);
      expect(await again({ since: new Date('2021-01-01'), key: 'x' })).toEqual([]);
      expect(await again({ since: new Date('2021-01-01'), error: 'no a:2' })).toEqual(['a:2']);
      expect(await again({ state: 'blocked' })).toEqual(['f:1']);
      expect(await again({ key: 'a' })).toEqual(['a:1']);
      expect(await again({ ids: ['e:1', 'a:1'] })).toEqual(['e:1']);
      expect(await store.admin.deadLetters()).toEqual([]);
    });
  });

  it('keeps the messages that a relay is parking when it learns of a requeue', async () => {
    await inNew(async (world) => {
      const relay = await world.relay({ acknowledge: ({ id }) => id !== 'b:1' });
      await world.add('a:1');
      await giveUp(relay, ['a:1']);
      await world.add('b:1');
      const page = await relay.read();
      const toPark = await relay.publish(page);
      expect(await world.store.admin.requeue({ key: 'a' })).toBe(1);
      // The settlement is not committed when the keys are read anew: the table does not know this one yet.
      const parking = world.gate.hold('park');
      const settled = relay.settle(page, toPark);
      await parking;
      expect((await relay.feed.retries()).messages.map(({ id }) => id)).toEqual(['a:1']);
      expect(relay.feed.isParked('b')).toBe(true);
      expect(relay.feed.isParked('a')).toBe(true);
      world.gate.open();
      await settled;
    });
  });

  it('continues a blocked key when its first message is tried again or discarded', async () => {
    await inNew(async (world) => {
      const { store } = world;
      const relay = await world.relay();
      await world.add('k:1', 'k:2', 'k:3', 'j:1', 'j:2');
      await giveUp(relay, ['k:1', 'j:1'], 'blocked');
      await block(world, 'k:1', 'j:1');
      expect((await store.admin.deadLetters()).map(({ message, state }) => [message.id, state])).toEqual([
        ['k:1', 'blocked'],
        ['j:1', 'blocked'],
      ]);
      expect((await store.admin.destinations())[0]).toMatchObject({ parked: 5, blocked: 2, dead: 0 });
      expect((await relay.feed.retries()).messages).toEqual([]);
      expect(await store.admin.discard({ key: 'k', state: 'blocked' })).toBe(1);
      expect(await store.admin.requeue({ key: 'j' })).toBe(1);
      expect(await waiting(world)).toEqual([
        ['k:2', true],
        ['k:3', false],
        ['j:1', true],
        ['j:2', false],
      ]);
      await relay.drain();
      expect(relay.acknowledged.filter((id) => id.startsWith('k'))).toEqual(['k:2', 'k:3']);
      expect(relay.acknowledged.filter((id) => id.startsWith('j'))).toEqual(['j:1', 'j:2']);
      expect(await waiting(world)).toEqual([]);
    });
  });

  it('retries a key only by its first message, whatever time a message behind it has', async () => {
    await inNew(async (world) => {
      const { names } = world;
      const relay = await world.relay({ acknowledge: ({ id }) => id !== 'k:1' });
      await world.add('k:1', 'k:2');
      const page = await relay.read();
      await relay.settle(page, await relay.publish(page));
      // As of a time when the second was the first: the first was requeued since, and waits for its next attempt.
      await world.sql(`UPDATE ${names.parked} SET next_at = now() + interval '1 hour' WHERE id = 'k:1'`);
      await world.sql(`UPDATE ${names.parked} SET next_at = now() WHERE id = 'k:2'`);
      expect((await relay.feed.retries()).messages).toEqual([]);
      await world.sql(`UPDATE ${names.parked} SET next_at = now() WHERE id = 'k:1'`);
      expect((await relay.feed.retries()).messages.map(({ id }) => id)).toEqual(['k:1', 'k:2']);
    });
  });

  it('leaves a requeued message behind a blocked one, and loses neither', async () => {
    await inNew(async (world) => {
      const { store, names } = world;
      const relay = await world.relay();
      await world.add('k:1', 'k:2', 'k:3');
      await giveUp(relay, ['k:1', 'k:2', 'k:3']);
      await world.sql(`UPDATE ${names.parked} SET dead_at = NULL, blocked_at = now() WHERE id = 'k:1'`);
      expect(await store.admin.requeue({ state: 'dead' })).toBe(2);
      expect(await waiting(world)).toEqual([
        ['k:1', false],
        ['k:2', false],
        ['k:3', false],
      ]);
      expect((await relay.feed.retries()).messages).toEqual([]);
      expect(await store.admin.requeue({ state: 'blocked' })).toBe(1);
      await relay.drain();
      expect(relay.acknowledged).toEqual(['k:1', 'k:2', 'k:3']);
    });
  });

  it('takes turns with a settlement of the same partition, so that neither misses what the other does to a key', async () => {
    await inNew(async (world) => {
      const { store } = world;
      const relay = await world.relay();
      await world.add('k:1', 'k:2', 'k:3');
      await giveUp(relay, ['k:1'], 'blocked');
      await block(world, 'k:1');
      await world.add('k:4');
      const page = await relay.read();
      const toPark = await relay.publish(page);
      // k:4 is being parked behind k:1, and is not committed, when k:1 is discarded with everything visible behind it.
      await world.sql(`DELETE FROM ${world.names.parked} WHERE id IN ('k:2', 'k:3')`);
      const parking = world.gate.hold('park');
      const settled = relay.settle(page, toPark);
      await parking;
      const discarding = store.admin.discard({ ids: ['k:1'] });
      await world.waiting('any');
      world.gate.open();
      await settled;
      expect(await discarding).toBe(1);
      expect(await waiting(world)).toEqual([['k:4', true]]);
    });
  });

  it('parks and requeues a message with the longest possible key', async () => {
    await inNew(async (world) => {
      // Text that cannot be compressed, at a destination whose name is long too.
      const [key, destination] = [randomBytes(1_000).toString('hex'), randomBytes(250).toString('hex')];
      const relay = await world.relay({ destination });
      await world.add(...[1, 2, 3].map((n) => `${key}:${String(n)}`));
      await giveUp(relay, [`${key}:1`], 'blocked');
      await block(world, `${key}:1`);
      await relay.reopen();
      expect(relay.feed.isParked(key)).toBe(true);
      expect(await world.store.admin.requeue({ destination, key })).toBe(1);
      await relay.drain();
      expect(relay.acknowledged).toEqual([1, 2, 3].map((n) => `${key}:${String(n)}`));
    });
  });

  it('changes many messages in order, and only the selected ones', async () => {
    await inNew(async (world) => {
      const { store, names } = world;
      const relay = await world.relay({ pageSize: 3_000 });
      await world.sql(
        `INSERT INTO ${names.messages} (id, key, payload) SELECT 'k' || n % 3 || ':' || n, 'k' || n % 3, 'x' FROM generate_series(1, 3000) n`,
      );
      const page = await relay.read();
      await relay.settle(
        page,
        page.messages.map((message) => ({ message, attempts: 1, error: new Error('no'), dead: true })),
      );
      expect(await store.admin.requeue({ key: 'k1' })).toBe(1_000);
      expect(await store.admin.requeue({ all: true })).toBe(2_000);
      expect(await store.admin.requeue({ all: true })).toBe(0);
      await relay.drain();
      for (const key of ['k0', 'k1', 'k2']) {
        const numbers = relay.acknowledged.filter((id) => id.startsWith(key)).map((id) => Number(id.slice(3)));
        expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
        expect(numbers).toHaveLength(1_000);
      }
      const relayed = await store.admin.destinations();
      expect(relayed[0]).toMatchObject({ parked: 0, dead: 0, pending: 0 });
    });
  });

  it('refuses an empty or nonsensical selection', async () => {
    await inNew(async (world) => {
      const { store } = world;
      await (await world.relay()).close();
      const wrong: unknown[] = [
        {},
        { destination: 'default' },
        { ids: [] },
        { ids: 'x' },
        { key: '' },
        { state: 'gone' },
      ];
      wrong.push({ since: new Date(NaN) }, { topics: ['x'] }, { until: 7 }, { error: 1 });
      for (const selection of wrong) {
        for (const call of [
          store.admin.requeue(selection as DeadLetterSelection),
          store.admin.discard(selection as DeadLetterSelection),
        ]) {
          await expect(call, JSON.stringify(selection)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
        }
      }
      await expect(store.admin.requeue({ destination: 'x', all: true })).rejects.toMatchObject({
        code: 'UNKNOWN_DESTINATION',
      });
    });
  });
});

it('lets a running relay publish requeued dead letters without a restart', async () => {
  const pool = new pg.Pool({ connectionString: await newDatabase(inject('postgres')[17]) });
  const stop = new AbortController();
  try {
    const store = new PostgresStore(pool);
    await store.migrate();
    const client = await pool.connect();
    await client.query('BEGIN');
    await store.add(client, [newMessage('1', { key: 'a' }), newMessage('2', { key: 'a' }), newMessage('3')]);
    await client.query('COMMIT');
    client.release();
    const published: string[] = [];
    let refuses = true;
    let refused = 0;
    let told = () => {};
    const publisher = {
      publish(message: Message): Promise<void> {
        const text = Buffer.from(message.payload).toString();
        // Each for a reason of its own, because equal failures would be taken for an outage of the broker.
        const reason = { 1: 'too large', 2: 'malformed', 3: 'unknown type' }[text];
        if (refuses) {
          refused += 1;
          return Promise.reject(new PublishError(String(reason), { kind: 'permanent' }));
        }
        published.push(text);
        if (published.length === 3) told();
        return Promise.resolve();
      },
    };
    const relay = new Messenger(store, publisher, { interval: 20, errorLogger: { error: () => {} } });
    const running = relay.start({ signal: stop.signal });
    while ((await store.admin.deadLetters()).length < 3);
    expect(refused).toBe(3);
    refuses = false;
    const done = new Promise<void>((resolve) => (told = resolve));
    expect(await store.admin.requeue({ all: true })).toBe(3);
    await done;
    stop.abort();
    await running;
    expect(published.filter((text) => text !== '3')).toEqual(['1', '2']);
    expect((await pool.query('SELECT FROM messenger.parked')).rowCount).toBe(0);
  } finally {
    stop.abort();
    await pool.end();
  }
});

it('lets a relay that waits at maxParked continue when the messages that it waits for are discarded', async () => {
  const pool = new pg.Pool({ connectionString: await newDatabase(inject('postgres')[17]) });
  const stop = new AbortController();
  try {
    // One partition, so that all of it is discarded at once: a relay that looks in between would see some of it left.
    const store = new PostgresStore(pool, { partitions: 1 });
    await store.migrate();
    let publishedOne!: (id: string) => void;
    const published = new Promise<string>((resolve) => (publishedOne = resolve));
    let paused!: (reason: string) => void;
    const held = new Promise<string>((resolve) => (paused = resolve));
    const publisher = {
      publish({ id }: Message): Promise<void> {
        // Each for a reason of its own, because equal failures would be taken for an outage of the broker.
        const reason = { a: 'too large', b: 'malformed', c: 'unknown type' }[id];
        if (reason !== undefined) return Promise.reject(new PublishError(reason, { kind: 'permanent' }));
        publishedOne(id);
        return Promise.resolve();
      },
    };
    const messenger = new Messenger(store, publisher, {
      interval: 20,
      maxParked: 3,
      retry: { onExhausted: 'block-key' },
      errorLogger: { error: () => {} },
      onEvent: (event) => {
        if (event.type === 'paused') paused(event.reason);
      },
    });
    const running = messenger.start({ signal: stop.signal });
    const add = (...ids: string[]) =>
      inTransaction(pool, (client) =>
        store.add(
          client,
          ids.map((id) => newMessage('x', { id, key: id, topic: 't' })),
        ),
      );
    await add('a', 'b', 'c');
    while ((await store.admin.deadLetters()).length < 3);
    await add('d');
    expect(await held).toBe('limit');
    expect(await store.admin.discard({ all: true })).toBe(3);
    expect(await published).toBe('d');
    expect(messenger.circuit.state).toBe('closed');
    stop.abort();
    await running;
  } finally {
    stop.abort();
    await pool.end();
  }
});

/** Messages that are addressed to one destination, and topics that have one. */
import pg from 'pg';
import { beforeAll, describe, expect, inject, it, onTestFinished } from 'vitest';
import { z } from 'zod';
import { defineOutbox, Messenger, newMessage, type Message, type Outbox, type Publisher } from 'messenger-outbox';
import { PostgresStore, rolesScript } from 'messenger-outbox/postgres';
import { outboxTesting } from 'messenger-outbox/testing';
import { inTransaction, newDatabase } from '../../support/database.js';
import { outermostVersions, type PostgresVersion } from '../../support/embedded-postgres.js';
import {
  createDatabase,
  inWorld,
  itHolds,
  mutantCleaning,
  mutantStatement,
  type Hazard,
  type World,
} from './support.js';

async function openPool(version: PostgresVersion, user?: string): Promise<pg.Pool> {
  return poolOf(await newDatabase(inject('postgres')[version]), user);
}

function poolOf(url: string, user?: string): pg.Pool {
  const connection = new URL(url);
  if (user !== undefined) connection.username = user;
  const pool = new pg.Pool({ connectionString: connection.href, max: 4 });
  onTestFinished(() => pool.end());
  return pool;
}

/** The connection string of a pool of `openPool`. */
function urlOf(pool: pg.Pool): string {
  return (pool.options as { connectionString: string }).connectionString;
}

const Text = z.string();
const shop = {
  order: { schema: Text, destination: 'kafka' },
  mail: { schema: Text, destination: 'queue' },
  note: { schema: Text },
};
type Shop = Outbox<pg.PoolClient, Record<'order' | 'mail' | 'note', typeof Text>>;

/** What a relay of the destination publishes, as text. */
async function drained(outbox: Shop, destination?: string): Promise<string[]> {
  const texts: string[] = [];
  const publisher: Publisher = {
    publish: ({ payload }: Message) => {
      texts.push(JSON.parse(Buffer.from(payload).toString()) as string);
      return Promise.resolve();
    },
  };
  await outbox.drain({ publisher, concurrency: 1, ...(destination !== undefined && { destination }) });
  return texts;
}

const send = (pool: pg.Pool, outbox: Shop, ...topics: readonly (keyof typeof shop)[]) =>
  inTransaction(pool, async (client) => {
    for (const topic of topics) await outbox.send(client, topic, topic);
  });

/** Stores messages. The part of an id before the colon, if there is one, is its destination. */
async function address(world: World, ...ids: string[]): Promise<void> {
  const session = await world.begin();
  await world.store.add(
    session.client,
    ids.map((id) => newMessage(id, { id, ...(id.includes(':') && { destination: id.split(':')[0] }) })),
  );
  await session.commit();
}

async function delivered(world: World, destination: string): Promise<string[]> {
  const relay = await world.relay({ destination });
  await relay.drain();
  await relay.close();
  return relay.acknowledged;
}

const hazards: Record<string, Hazard> = {
  'a destination publishes messages that are addressed to it, and none that are addressed to another': {
    async play(world) {
      await world.store.declareDestinations(['a', 'b', 'default']);
      await address(world, 'a:1', 'b:1', 'x', 'a:2');
      return [
        ...(await delivered(world, 'a')),
        ...(await delivered(world, 'b')),
        ...(await delivered(world, 'default')),
      ];
    },
    mutant: mutantStatement('read', [
      'coalesce(m.destination = $10::text, ',
      'coalesce(CASE WHEN $10::text IS NULL THEN true END, ',
    ]),
    right: ['a:1', 'a:2', 'b:1', 'x'],
    wrong: ['a:1', 'b:1', 'x', 'a:2'],
  },

  'a late message of a transaction that was running is told apart too': {
    async play(world) {
      await world.store.declareDestinations(['a', 'b']);
      const late = await world.begin();
      await world.store.add(late.client, [
        newMessage('1', { id: 'a:late', destination: 'a' }),
        newMessage('2', { id: 'b:late', destination: 'b' }),
      ]);
      await address(world, 'a:1', 'b:1');
      const first = await delivered(world, 'a');
      await late.commit();
      return [...first, ...(await delivered(world, 'a'))];
    },
    mutant: mutantStatement('read', ['coalesce(m.destination = $10::text, ', 'coalesce($10::text IS NOT NULL, ']),
    right: ['a:1', 'a:late'],
    wrong: ['a:1', 'b:1', 'a:late', 'b:late'],
  },

  'a slice is cleaned when its own destination has finished it, and not before': {
    async play(world) {
      await world.store.declareDestinations(['a', 'default']);
      await address(world, 'a:1', 'x');
      await delivered(world, 'default');
      const { kept } = await world.store.deletePublishedByExpiration(0);
      const destinations = kept.map(({ destination }) => destination ?? '');
      const published = await delivered(world, 'a');
      const { emptied } = await world.store.deletePublishedByExpiration(0);
      return [...destinations, ...published, String(emptied)];
    },
    mutant: mutantCleaning('unfinished', (text) =>
      text.replaceAll('coalesce(m.destination = c.destination, ', 'coalesce(NULL, '),
    ),
    right: ['a', 'a:1', '1'],
    wrong: ['0'],
  },
};

describe.each(outermostVersions)('PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, `addressed_${String(version)}_${String(process.pid)}`);
  });

  itHolds(() => url, hazards);

  it('counts for each destination the messages that are addressed to it', async () => {
    await inWorld(async (world) => {
      await world.store.declareDestinations(['a', 'b', 'default']);
      await address(world, 'a:1', 'a:2', 'b:1', 'x');
      const states = await world.store.admin.destinations();
      expect(states.map(({ name, pending, topics }) => [name, pending, topics])).toEqual([
        ['a', 2, []],
        ['b', 1, []],
        ['default', 1, null],
      ]);
    }, url);
  });

  it('leaves an existing destination unchanged, however often and by whomever it is declared', async () => {
    await inWorld(async (world) => {
      const { store } = world;
      await world.add('before');
      // A relay has added this destination by starting, so it publishes everything.
      expect(await delivered(world, 'made')).toEqual(['before']);
      await store.admin.addDestination('some', { from: 'end', topics: ['t'] });
      await Promise.all(Array.from({ length: 5 }, () => store.declareDestinations(['made', 'some', 'new', 'default'])));
      expect((await store.admin.destinations()).map(({ name, topics }) => [name, topics])).toEqual([
        ['default', null],
        ['made', null],
        ['new', []],
        ['some', ['t']],
      ]);
      await address(world, 'x', 'made:1', 'new:1', 'some:1');
      expect(await delivered(world, 'made')).toEqual(['x', 'made:1']);
      expect(await delivered(world, 'new')).toEqual(['new:1']);
      expect(await delivered(world, 'some')).toEqual(['some:1']);
      expect(await delivered(world, 'default')).toEqual(['before', 'x']);
    }, url);
  });

  it('declares many destinations at once, from many processes', async () => {
    const pool = await openPool(version);
    await new PostgresStore(pool).migrate();
    const names = Array.from({ length: 20 }, (_, n) => `n${String(n).padStart(2, '0')}`);
    const declared = Array.from({ length: 5 }, () => new PostgresStore(poolOf(urlOf(pool))).declareDestinations(names));
    await Promise.all(declared);
    expect((await new PostgresStore(pool).admin.destinations()).map(({ name }) => name)).toEqual(names);
  });

  it.each(['READ COMMITTED', 'REPEATABLE READ'])(
    'does not remove a destination while a transaction stores for it, nor store for it once it is removed (%s)',
    async (isolation) => {
      const pool = await openPool(version);
      const store = new PostgresStore(pool);
      await store.migrate();
      await store.declareDestinations(['a', 'b']);
      const [storing, early] = [await pool.connect(), await pool.connect()];
      for (const client of [storing, early]) {
        await client.query(`BEGIN ISOLATION LEVEL ${isolation}`);
        await client.query('SELECT pg_current_snapshot()');
      }
      await store.add(storing, newMessage('x', { destination: 'a' }));
      await expect(store.admin.removeDestination('a')).rejects.toMatchObject({
        code: 'CONFLICT',
        message: expect.stringMatching(/^open transactions have stored messages for destination "a"/) as string,
      });
      await storing.query('COMMIT');
      storing.release();
      await expect(store.admin.removeDestination('a')).rejects.toThrow('"a" has not published 1 messages');
      await store.admin.removeDestination('b');
      // Its snapshot may be older than the removal.
      await expect(store.add(early, newMessage('x', { destination: 'b' }))).rejects.toMatchObject({
        code: isolation === 'READ COMMITTED' ? 'UNKNOWN_DESTINATION' : '40001',
      });
      await early.query('ROLLBACK');
      early.release();
    },
  );

  it('does not bring back a destination that is limited or declared while it is removed', async () => {
    const pool = await openPool(version);
    const store = new PostgresStore(pool);
    await store.migrate();
    for (let round = 0; round < 20; round++) {
      await store.declareDestinations(['a']);
      await Promise.allSettled([
        store.admin.updateDestination('a', { forgetAfter: 60_000 }),
        store.admin.removeDestination('a'),
        store.admin.updateDestination('a', { forgetAfter: null }),
      ]);
      const { rows } = await pool.query(`SELECT name FROM messenger.destinations d
        WHERE NOT EXISTS (SELECT FROM messenger.cursors c WHERE c.destination = d.name)`);
      expect(rows).toEqual([]);
    }
  });

  it('does not remove a destination while it may have more to publish than is counted', async () => {
    const pool = await openPool(version);
    const store = new PostgresStore(pool);
    await store.migrate();
    await store.declareDestinations(['a']);
    await inTransaction(pool, async (client) => {
      await store.add(client, newMessage('x', { destination: 'a' }));
      await store.add(
        client,
        Array.from({ length: 10_001 }, () => newMessage('y')),
      );
    });
    expect(await store.admin.destinations()).toMatchObject([
      { name: 'a', pending: 0, morePending: true },
      // Messages that are addressed to nobody wait for the first relay of `default`.
      { name: 'default', pending: 10_000, morePending: true },
    ]);
    await expect(store.admin.removeDestination('a')).rejects.toMatchObject({ code: 'CONFLICT' });
    expect(await store.admin.removeDestination('a', { discard: true })).toMatchObject({ morePending: true });
  });

  it('does not store for a forgotten destination, and adds it again as it was', async () => {
    const pool = await openPool(version);
    const store = new PostgresStore(pool);
    await store.migrate();
    await store.declareDestinations(['a']);
    await store.admin.updateDestination('a', { forgetAfter: 60_000 });
    await pool.query(`UPDATE messenger.destinations SET created_at = '2020-01-01'`);
    await store.deletePublishedByExpiration(0);
    const added = inTransaction(pool, (client) => store.add(client, newMessage('x', { destination: 'a' })));
    await expect(added).rejects.toThrow(
      /^destination "a" was forgotten, and has to be removed and made anew, and a message is addressed to it: /,
    );
    await expect(store.openFeed({ destination: 'a', pageSize: 1, relay: 'r' })).rejects.toThrow(
      '{ from: …, topics: [] }',
    );
  });

  it('moves a straggler only to the side table of its destination', async () => {
    const pool = await openPool(version);
    const store = new PostgresStore(pool, { retention: 60_000 });
    await store.migrate();
    await store.declareDestinations(['a', 'b', 'default']);
    await inTransaction(pool, (client) =>
      store.add(client, [newMessage('1', { id: 'for-a', destination: 'a' }), newMessage('2', { id: 'for-all' })]),
    );
    await pool.query(`UPDATE messenger.messages SET stored_at = stored_at - interval '1 hour'`);
    expect(await store.deletePublishedByExpiration(0)).toMatchObject({ emptied: 1, moved: 2 });
    const { rows } = await pool.query('SELECT destination, id FROM messenger.parked ORDER BY destination');
    expect(rows).toEqual([
      { destination: 'a', id: 'for-a' },
      { destination: 'default', id: 'for-all' },
    ]);
  });

  it('refuses a message for a destination that does not exist, and stores nothing of the call', async () => {
    const pool = await openPool(version);
    const store = new PostgresStore(pool);
    await store.migrate();
    const add = (...destinations: (string | undefined)[]) =>
      inTransaction(pool, (client) =>
        store.add(
          client,
          destinations.map((destination) => newMessage('x', { destination })),
        ),
      );
    await expect(add(undefined, 'nowhere')).rejects.toMatchObject({ code: 'UNKNOWN_DESTINATION' });
    const { text, values } = store.statement(newMessage('x', { destination: 'no "where' }));
    await expect(pool.query(text, values)).rejects.toThrow(String.raw`there is no destination "no \"where"`);
    expect((await pool.query('SELECT FROM messenger.messages')).rowCount).toBe(0);
    await store.declareDestinations(['nowhere']);
    await add(undefined, 'nowhere');
    await store.admin.removeDestination('nowhere', { discard: true });
    await expect(add('nowhere')).rejects.toMatchObject({ code: 'UNKNOWN_DESTINATION' });
    await expect(store.declareDestinations(['ok', ''])).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    expect(() => newMessage('x', { destination: '' })).toThrow('message destination must be a non-empty string');
  });

  it('stores an addressed message as completely as any other', async () => {
    const pool = await openPool(version);
    const store = new PostgresStore(pool, { jsonPayload: true });
    await store.migrate();
    await store.declareDestinations(['a']);
    const deliverAt = new Date('2001-01-01T00:00:00.000Z');
    const message = newMessage('{"a":"名"}', {
      topic: 't',
      key: '\\k',
      metadata: { m: '"' },
      deliverAt,
      destination: 'a',
    });
    await inTransaction(pool, (client) => store.add(client, message));
    const got: Message[] = [];
    const publisher: Publisher = {
      publish: (each) => {
        got.push(each);
        return Promise.resolve();
      },
    };
    await new Messenger(store, publisher, { destination: 'a' }).publish();
    const { id, payload, topic, key, metadata, at } = message;
    expect(got).toEqual([expect.objectContaining({ id, topic, key, metadata, at, deliverAt })]);
    expect(Buffer.from(got[0]!.payload)).toEqual(Buffer.from(payload));
  });

  describe('topics with a destination', () => {
    it('are published only by that destination, from the first message on', async () => {
      const pool = await openPool(version);
      const outbox: Shop = defineOutbox({ store: new PostgresStore(pool), topics: shop });
      await outbox.migrate();
      await send(pool, outbox, 'order', 'mail', 'note', 'order');
      expect(await drained(outbox, 'queue')).toEqual(['mail']);
      expect(await drained(outbox)).toEqual(['note']);
      expect(await drained(outbox, 'kafka')).toEqual(['order', 'order']);
      expect(await drained(outbox, 'kafka')).toEqual([]);
    });

    it('keep messages for the former destination when the code names another', async () => {
      const pool = await openPool(version);
      const store = new PostgresStore(pool);
      const before: Shop = defineOutbox({ store, topics: shop });
      await before.migrate();
      await send(pool, before, 'order');
      const after: Shop = defineOutbox({ store, topics: { ...shop, order: { schema: Text, destination: 'stream' } } });
      await after.migrate();
      await send(pool, after, 'order', 'mail');
      expect(await drained(after, 'stream')).toEqual(['order']);
      expect(await drained(after, 'kafka')).toEqual(['order']);
      expect(await drained(after, 'queue')).toEqual(['mail']);
    });

    it('are declared by a relay if nobody has declared them before', async () => {
      const pool = await openPool(version);
      const store = new PostgresStore(pool);
      await store.migrate();
      const outbox: Shop = defineOutbox({ store, topics: shop });
      await expect(send(pool, outbox, 'order')).rejects.toMatchObject({ code: 'UNKNOWN_DESTINATION' });
      expect(await drained(outbox, 'kafka')).toEqual([]);
      await send(pool, outbox, 'order');
      expect(await drained(outbox, 'kafka')).toEqual(['order']);
      // Each its own.
      await expect(send(pool, outbox, 'mail')).rejects.toMatchObject({ code: 'UNKNOWN_DESTINATION' });
    });

    it('are declared again by whoever needs them after one was removed', async () => {
      const pool = await openPool(version);
      const store = new PostgresStore(pool);
      const outbox: Shop = defineOutbox({ store, topics: shop });
      await outbox.migrate();
      await store.admin.removeDestination('kafka');
      await outbox.migrate();
      await send(pool, outbox, 'order', 'note');
      await store.admin.removeDestination('queue');
      expect(await drained(outbox, 'queue')).toEqual([]);
      expect(await drained(outbox, 'kafka')).toEqual(['order']);
    });

    it('let a relay end quietly if it was stopped before it began', async () => {
      const pool = await openPool(version);
      const outbox: Shop = defineOutbox({ store: new PostgresStore(pool), topics: shop });
      await outbox.migrate();
      const publisher: Publisher = { publish: () => Promise.resolve() };
      const relay = await outbox.relay({ publisher, destination: 'kafka', signal: AbortSignal.abort() });
      await relay.ended;
      const unmade: Shop = defineOutbox({ store: new PostgresStore(pool, { schema: 'none' }), topics: shop });
      await expect(unmade.relay({ publisher, destination: 'kafka' })).rejects.toMatchObject({ code: 'FATAL' });
    });

    it('are all drained by a test', async () => {
      const pool = await openPool(version);
      const outbox: Shop = defineOutbox({ store: new PostgresStore(pool), topics: shop });
      await outbox.migrate();
      const testing = outboxTesting(outbox);
      await send(pool, outbox, 'order', 'mail', 'note');
      expect((await testing.drained({ destination: 'queue' })).map(({ topic }) => topic)).toEqual(['mail']);
      expect((await testing.drained()).map(({ topic }) => topic).toSorted()).toEqual(['note', 'order']);
    });

    it('require that a relay names its destination if none is left for the other topics', async () => {
      const pool = await openPool(version);
      const outbox = defineOutbox({ store: new PostgresStore(pool), topics: { order: shop.order, mail: shop.mail } });
      await outbox.migrate();
      const publisher: Publisher = { publish: () => Promise.resolve() };
      const why = 'needs the destination option, because every topic has a destination: pass one of "kafka", "queue"';
      await expect(outbox.relay({ publisher })).rejects.toThrow(`relay ${why}`);
      await expect(outbox.drain({ publisher })).rejects.toThrow(`drain ${why}`);
      expect((await new PostgresStore(pool).admin.destinations()).map(({ name }) => name)).toEqual(['kafka', 'queue']);
    });
  });

  it('works with the fewest rights, and says what is missing if a relay may not declare', async () => {
    const at = await newDatabase(inject('postgres')[version]);
    const admin = poolOf(at);
    const store = new PostgresStore(admin);
    await store.migrate();
    const role = (kind: string) => `addressed_${kind}_${String(process.pid)}`;
    const [writer, relay] = [role('writer'), role('relay')];
    const [consumer, migrator] = [role('consumer'), role('migrator')];
    await admin.query(rolesScript({ writer, relay, consumer, migrator }));
    for (const role of [writer, relay]) await admin.query(`ALTER ROLE ${role} LOGIN`);
    onTestFinished(async () => {
      const cleaner = new pg.Client({ connectionString: at });
      await cleaner.connect();
      for (const role of [writer, relay, consumer, migrator])
        await cleaner.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
      await cleaner.end();
    });
    const [writers, relays] = [poolOf(at, writer), poolOf(at, relay)];
    const outboxOf = (pool: pg.Pool): Shop => defineOutbox({ store: new PostgresStore(pool), topics: shop });
    await expect(drained(outboxOf(relays), 'kafka')).rejects.toMatchObject({
      code: 'UNKNOWN_DESTINATION',
      message: expect.stringMatching(
        /this role may not add it: run `await outbox.migrate\(\)`.* kafka --addressed`/,
      ) as string,
    });
    await outboxOf(admin).migrate();
    await send(writers, outboxOf(writers), 'order', 'note');
    expect(await drained(outboxOf(relays), 'kafka')).toEqual(['order']);
    expect(await drained(outboxOf(relays))).toEqual(['note']);
  });
});

/**
 * Destinations: where they begin, what the states say about them, and what is removed with them. The interleavings run
 * on servers of their own, because which transactions a snapshot lists depends on every transaction of the server.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { MessengerEvent } from '../../../src/core/contracts/events.js';
import { newMessage } from '../../../src/core/contracts/message.js';
import { Messenger } from '../../../src/core/relay/messenger.js';
import type { PostgresStore } from '../../../src/stores/postgres/index.js';
import { until } from '../../../src/testing/conformance/assert.js';
import { outermostVersions, startPostgres, type EmbeddedPostgres } from '../../support/embedded-postgres.js';
import { inWorld, itHolds, mutantText, NotSetUp, type Hazard, type World } from './support.js';

/** The messages that a relay of the destination delivers. */
async function delivered(world: World, destination: string): Promise<string[]> {
  const relay = await world.relay({ destination });
  await relay.drain();
  return relay.acknowledged;
}

/** A moment after all that was stored, once the server's clock has come to it: a `Date` has whole milliseconds. */
async function now(world: World): Promise<Date> {
  const clock = async () => Number(await world.value(`SELECT date_part('epoch', clock_timestamp()) * 1000`));
  const next = Math.floor(await clock()) + 1;
  while ((await clock()) < next);
  return new Date(next);
}

async function stateOf(store: PostgresStore, name: string) {
  return (await store.admin.destinations()).find((each) => each.name === name)!;
}

const hazards: Record<string, Hazard> = {
  'at the end: messages of a transaction that is open meanwhile are delivered': {
    async play(world, isMutant) {
      await world.add('old');
      const t = await world.begin();
      const xid = await t.xid();
      await t.add('t');
      await world.store.admin.addDestination('late', { from: 'end' });
      // Another transaction of the server, such as autovacuum's, may have completed a later id.
      if (isMutant && !(await world.isUnlisted(xid))) throw new NotSetUp('the snapshot lists the transaction');
      await t.commit();
      await world.add('new');
      return delivered(world, 'late');
    },
    // Without an id that was completed, the snapshot does not list the transaction.
    mutant: mutantText('xid', 'pg_current_xact_id()::text', `''`),
    right: ['t', 'new'],
    wrong: ['new'],
  },

  'at the end: so are those of an unlisted transaction that began after the last completed id': {
    async play(world) {
      await world.add('old');
      const completing = world.gate.hold('xid');
      const adding = world.store.admin.addDestination('late', { from: 'end' });
      await completing;
      const t = await world.begin();
      const xid = await t.xid();
      await t.add('t');
      world.gate.open();
      await adding;
      expect(await world.isUnlisted(xid)).toBe(true);
      await t.commit();
      await world.add('new');
      return delivered(world, 'late');
    },
    // The sequence is looked at with the snapshot, and not before it.
    mutant: mutantText('add_cursors', '$3::bigint AS low', `$3::bigint + 1 AS low`),
    right: ['t', 'new'],
    wrong: ['new'],
  },

  'at a time: messages stored later are delivered, in whichever order they commit': {
    async play(world) {
      await world.add('old');
      const early = await world.begin();
      await early.add('early');
      const from = new Date((await now(world)).getTime() + 1);
      while ((await now(world)) <= from);
      const t = await world.begin();
      await t.add('t');
      await world.add('m1', 'm2');
      await world.store.admin.addDestination('since', { from });
      await t.commit();
      await early.commit();
      await world.add('new');
      return delivered(world, 'since');
    },
    // As if everything below the first visible message were delivered.
    mutant: mutantText(
      'add_cursors',
      'CASE WHEN first IS NOT NULL THEN pg_current_snapshot() END, coalesce(first - 1, 0), CASE WHEN first IS NULL THEN low ELSE 0 END, low, low',
      'NULL::pg_snapshot, 0, first - 1, first - 1, first - 1',
    ),
    // Messages of transactions that were open when it was added come too, however old they are.
    right: ['m1', 'm2', 'early', 't', 'new'],
    wrong: ['m1', 'm2', 'new'],
  },
};

describe.each(outermostVersions)('PostgreSQL %i', (version) => {
  let server: EmbeddedPostgres;
  beforeAll(async () => {
    server = await startPostgres(version);
  });
  afterAll(() => server.remove());
  const inNew = <T>(play: (world: World) => Promise<T>) => inWorld(play, server.url());

  itHolds(() => server.url(), hazards);

  it('starts a destination at the beginning, at the end, or at a time, over several pages', async () => {
    await inNew(async (world) => {
      await world.add('1', '2', '3');
      const from = await now(world);
      await world.add('4', '5', '6');
      await world.store.admin.addDestination('beginning', { from: 'beginning' });
      await world.store.admin.addDestination('end', { from: 'end' });
      await world.store.admin.addDestination('time', { from });
      await world.store.admin.addDestination('epoch', { from: new Date(0) });
      await world.store.admin.addDestination('just now', { from: await now(world) });
      await world.add('7');
      const all = ['1', '2', '3', '4', '5', '6', '7'];
      const expected = { beginning: all, end: ['7'], time: all.slice(3), epoch: all, 'just now': ['7'], default: all };
      for (const [destination, messages] of Object.entries(expected)) {
        const relay = await world.relay({ destination, pageSize: 2 });
        await relay.poll();
        await relay.reopen();
        await relay.drain();
        expect(relay.acknowledged, destination).toEqual(messages);
        await relay.close();
      }
    });
  });

  it('shows the lag of each destination, who works on it, and since when nobody does', async () => {
    await inNew(async (world) => {
      const { store } = world;
      await store.admin.addDestination('a', { from: 'beginning', topics: ['t1', 't2'], forgetAfter: 90_000 });
      expect(await store.admin.destinations()).toEqual([
        {
          ...{ name: 'a', topics: ['t1', 't2'], partitions: 8, held: 0, relays: 0, pending: 0, morePending: false },
          ...{ oldestPending: null, parked: 0, blocked: 0, dead: 0, createdAt: expect.any(Date) as Date },
          ...{ activeAt: null, stalledSince: null, forgetAfter: 90_000, forgottenAt: null },
        },
      ]);
      await world.sql('BEGIN');
      await world.store.add(
        (text, values) => world.sql(text, [...values]),
        [
          newMessage('1', { topic: 't1' }),
          newMessage('2', { topic: 't3' }),
          newMessage('3', { topic: 't2' }),
          newMessage('4'),
        ],
      );
      await world.sql('COMMIT');
      const a = await stateOf(store, 'a');
      expect(a).toMatchObject({ pending: 2, morePending: false });
      expect(a.oldestPending).toBeGreaterThan(0);
      expect(a.stalledSince).toEqual(a.createdAt);

      const relay = await world.relay({ destination: 'b', acknowledge: ({ payload }) => payload[0] !== 0x34 });
      expect(await stateOf(store, 'b')).toMatchObject({
        pending: 4,
        held: 8,
        relays: 1,
        createdAt: null,
        stalledSince: null,
      });
      // In one page of it, of which one is refused.
      const page = await relay.read();
      await relay.settle(page, await relay.publish(page));
      await world.add('5');
      expect(await stateOf(store, 'b')).toMatchObject({ pending: 1, parked: 1, dead: 0, blocked: 0, topics: null });
      await relay.close();
      const b = await stateOf(store, 'b');
      expect(b).toMatchObject({ held: 0, relays: 0 });
      expect(b.stalledSince).toEqual(b.activeAt);
      expect(Math.abs(b.activeAt!.getTime() - (await now(world)).getTime())).toBeLessThan(60_000);
    });
  });

  it('counts correctly in an open window, with partitions at different places, and with late commits far back', async () => {
    await inNew(async (world) => {
      const { store, names } = world;
      const relay = await world.relay({ pageSize: 3 });
      const t = await world.begin();
      await t.add('k:t');
      await world.add(...Array.from({ length: 10 }, (_, n) => `k${String(n)}:m`));
      await relay.poll();
      await world.add('later');
      await t.commit();
      // 10 - 3 of the window, and two after it.
      expect(await stateOf(store, 'default')).toMatchObject({ pending: 9, morePending: false });
      await relay.drain();
      expect(await stateOf(store, 'default')).toMatchObject({ pending: 0, oldestPending: null });
      await relay.close();

      const old = await world.begin();
      await old.add('old:t');
      await world.add('x');
      await relay.reopen();
      await relay.drain();
      // More than are looked at from the end of the log.
      await world.sql(
        `INSERT INTO ${names.messages} (id, payload) SELECT 'bulk' || n, 'x' FROM generate_series(1, 10000) n`,
      );
      await old.commit();
      const state = await stateOf(store, 'default');
      expect(state).toMatchObject({ pending: 10_000, morePending: true });
      await relay.drain();
      await relay.close();
      expect(await stateOf(store, 'default')).toMatchObject({ pending: 0, parked: 0 });
      // As if one partition had stood still.
      await world.sql(`UPDATE ${names.cursors} SET from_snapshot = '1:1:', to_snapshot = NULL, low = 0, after = 0, high = 0,
        written_by = pg_current_xact_id() WHERE partition = 3`);
      const all = await world.value(`SELECT count(*)::int FROM ${names.messages} WHERE key_hash % 8 = 3`);
      const recent = await world.value(
        `SELECT count(*)::int FROM (SELECT * FROM ${names.messages} ORDER BY seq DESC LIMIT 10000) m WHERE key_hash % 8 = 3`,
      );
      expect(all).toBeGreaterThan(recent as number);
      expect(await stateOf(store, 'default')).toMatchObject({ pending: recent, morePending: true });
    });
  });

  it('removes a destination with everything of it on request, and never under a relay', async () => {
    await inNew(async (world) => {
      const { store, names } = world;
      await world.add('k:1', 'k:2', '3');
      const relay = await world.relay({ destination: 'gone', acknowledge: ({ id }) => id !== 'k:1' });
      await relay.poll();
      await world.add('4');
      const other = await world.relay();
      await other.drain();
      await expect(store.admin.removeDestination('gone', { discard: true })).rejects.toMatchObject({
        code: 'CONFLICT',
        message: expect.stringContaining('stop its relays first') as string,
      });
      await relay.close();
      await world.sql(`UPDATE ${names.parked} SET dead_at = now(), next_at = NULL WHERE id = 'k:2'`);
      await expect(store.admin.removeDestination('gone')).rejects.toMatchObject({
        code: 'CONFLICT',
        message: expect.stringMatching(
          /not published 1 messages, 1 more wait to be tried again, and 1 are dead letters.*\{ discard: true \}/,
        ) as string,
      });
      // Whoever is known to be there, and has no partition yet, would make it anew.
      await world.sql(`INSERT INTO ${names.relays} VALUES ('gone', 'r', now() + interval '1 minute')`);
      await expect(store.admin.removeDestination('gone', { discard: true })).rejects.toMatchObject({
        code: 'CONFLICT',
      });
      await world.sql(`UPDATE ${names.relays} SET expires_at = now()`);
      // Nor while a relay is about to settle.
      const settling = await world.begin();
      await settling.query(`SELECT FROM ${names.cursors} WHERE destination = 'gone' AND partition = 5 FOR UPDATE`);
      await expect(store.admin.removeDestination('gone', { discard: true })).rejects.toMatchObject({
        code: 'CONFLICT',
      });
      await settling.commit();
      expect(await store.admin.removeDestination('gone', { discard: true })).toEqual({
        ...{ pending: 1, morePending: false, parked: 1, dead: 1 },
      });
      for (const table of [names.cursors, names.claims, names.parked, names.relays]) {
        expect(await world.value(`SELECT count(*)::int FROM ${table} WHERE destination = 'gone'`), table).toBe(0);
      }
      expect((await store.admin.destinations()).map(({ name }) => name)).toEqual(['default']);
      await expect(store.admin.removeDestination('gone')).rejects.toMatchObject({
        code: 'UNKNOWN_DESTINATION',
        message: expect.stringContaining('are "default"') as string,
      });
      await other.close();
      expect(await store.admin.removeDestination('default')).toMatchObject({ pending: 0, parked: 0, dead: 0 });
      await store.admin.addDestination('default', { from: 'end' });
      expect(await delivered(world, 'default')).toEqual([]);
    });
  });

  it('publishes at one destination while the broker of another accepts nothing', async () => {
    await inNew(async (world) => {
      const { store, names } = world;
      await store.admin.addDestination('down', { from: 'beginning' });
      await store.admin.addDestination('up', { from: 'beginning' });
      const published = { up: [] as string[], down: [] as string[] };
      const stop = new AbortController();
      let isDown = true;
      const running = (['up', 'down'] as const).map((destination) =>
        new Messenger(
          world.another(),
          {
            publish: ({ id }) => {
              if (destination === 'down' && isDown)
                return Promise.reject(Object.assign(new Error('no broker'), { code: 'ECONNREFUSED' }));
              published[destination].push(id);
              return Promise.resolve();
            },
          },
          { destination, interval: 20, publishBatchSize: 10, cleanUp: 0, errorLogger: { error: () => undefined } },
        ).start({ signal: stop.signal }),
      );
      const ids: string[] = [];
      for (let n = 1; n <= 30; n++) {
        const batch = Array.from({ length: 10 }, (_, i) => `k${i}:${n}`);
        await world.add(...batch);
        ids.push(...batch);
        await until(() => published.up.length === ids.length, 'the other has what was just stored');
      }
      expect(published).toEqual({ up: expect.arrayContaining(ids) as unknown, down: [] });
      // What was acknowledged last is settled within a moment.
      await expect.poll(() => stateOf(store, 'up')).toMatchObject({ pending: 0, parked: 0, dead: 0 });
      expect(await stateOf(store, 'down')).toMatchObject({ pending: 300, parked: 0, dead: 0 });
      expect(await world.value(`SELECT count(*)::int FROM ${names.messages}`), 'nothing is cleaned away').toBe(300);
      isDown = false;
      await until(() => published.down.length === ids.length, 'the one that was down has all');
      stop.abort();
      await Promise.all(running);
      for (const each of Object.values(published)) {
        for (let key = 0; key < 10; key++) {
          const own = (all: string[]) => all.filter((id) => id.startsWith(`k${key}:`));
          expect(own(each)).toEqual(own(ids));
        }
      }
    });
  });

  it('forgets, when cleaning, destinations on which nobody has worked for longer than their limit, and then refuses them', async () => {
    await inNew(async (world) => {
      const { store, names } = world;
      const left = () => world.value(`SELECT count(*)::int FROM ${names.messages}`);
      await store.admin.addDestination('slow', { from: 'beginning' });
      await world.add('1');
      expect(await delivered(world, 'default')).toEqual(['1']);
      await store.deletePublishedByExpiration(0);
      expect(await left()).toBe(1);
      await store.admin.updateDestination('slow', { forgetAfter: 60_000 });
      const age = (by: string) => world.sql(`UPDATE ${names.destinations} SET created_at = now() - interval '${by}'`);
      await age('59 s');
      await store.deletePublishedByExpiration(0);
      expect(await left()).toBe(1);
      await age('1 h');
      const relay = await world.relay({ destination: 'slow' });
      await relay.reopen();
      await store.deletePublishedByExpiration(0);
      expect(await left(), 'while a relay holds it').toBe(1);
      await relay.close();
      await store.deletePublishedByExpiration(0);
      expect(await left(), 'just after it left').toBe(1);
      await world.sql(
        `UPDATE ${names.cursors} SET expires_at = now() - interval '1 h', written_by = pg_current_xact_id() WHERE destination = 'slow'`,
      );
      // A relay that waits for its share works on it too.
      await world.sql(`INSERT INTO ${names.relays} VALUES ('slow', 'r', now() + interval '1 minute')`);
      await store.deletePublishedByExpiration(0);
      expect(await left(), 'while a relay waits').toBe(1);
      await world.sql(`DELETE FROM ${names.relays}`);
      // So does a relay that is claiming it at this moment.
      const claiming = await world.begin();
      await claiming.query(`SELECT FROM ${names.cursors} WHERE destination = 'slow' AND partition = 0 FOR UPDATE`);
      await store.deletePublishedByExpiration(0);
      expect(await left(), 'while it is claimed').toBe(1);
      await claiming.commit();
      // Cleaned by a relay's engine: somebody is told of what was never published and goes.
      const told: unknown[] = [];
      const errorLogger = { error: ({ message }: Error) => void told.push(message) };
      const onEvent = (event: MessengerEvent) => void told.push(event);
      await new Messenger(store, { publish: () => Promise.resolve() }, { cleanUp: 0, errorLogger, onEvent }).clean();
      expect(await left()).toBe(0);
      expect(told).toEqual([
        expect.objectContaining({ report: expect.objectContaining({ forgotten: ['slow'] }) as unknown }),
        expect.stringContaining('destination "slow"'),
      ]);
      expect((await store.deletePublishedByExpiration(0)).forgotten).toBeUndefined();
      expect((await stateOf(store, 'slow')).forgottenAt).toEqual(expect.any(Date));
      await expect(store.openFeed({ destination: 'slow', pageSize: 1 })).rejects.toMatchObject({
        code: 'DESTINATION_FORGOTTEN',
        message: expect.stringMatching(/removeDestination\("slow".*addDestination\("slow"/) as string,
      });
      await store.admin.removeDestination('slow');
      await store.admin.addDestination('slow', { from: 'end' });
      await world.add('2');
      expect(await delivered(world, 'slow')).toEqual(['2']);
    });
  });

  it.each(['a slice', 'another destination'])(
    'reports a forgotten destination even if %s fails in the same cleaning',
    async (what) => {
      await inNew(async ({ store, names, sql }) => {
        if (what !== 'a slice') {
          await store.admin.addDestination('stuck', { from: 'end' });
          await store.admin.updateDestination('stuck', { forgetAfter: 60_000 });
          await sql(`ALTER TABLE ${names.destinations} ADD CHECK (name <> 'stuck' OR forgotten_at IS NULL)`);
        }
        await store.admin.addDestination('slow', { from: 'end' });
        await store.admin.updateDestination('slow', { forgetAfter: 60_000 });
        await sql(`UPDATE ${names.destinations} SET created_at = now() - interval '1 h'`);
        if (what === 'a slice') await sql(`ALTER TABLE ${names.slice(3)} RENAME TO gone`);
        const told: unknown[] = [];
        const errorLogger = { error: ({ message }: Error) => void told.push(message) };
        const onEvent = (event: MessengerEvent) => void told.push(event);
        const publisher = { publish: () => Promise.resolve() };
        const cleaning = new Messenger(store, publisher, { cleanUp: 0, errorLogger, onEvent }).clean();
        await expect(cleaning).rejects.toMatchObject({
          code: 'CLEANING_FAILED',
          cause: expect.objectContaining({ code: what === 'a slice' ? 'SCHEMA_MISMATCH' : '23514' }) as unknown,
        });
        expect(told).toEqual([
          expect.objectContaining({
            error: expect.objectContaining({ code: 'CLEANING_FAILED' }) as unknown,
            report: expect.objectContaining({ forgotten: ['slow'] }) as unknown,
          }),
          expect.stringContaining('destination "slow"'),
        ]);
      });
    },
  );

  it('fences a relay that slept through the end of its lease when its destination is forgotten', async () => {
    await inNew(async (world) => {
      const { store, names } = world;
      await store.admin.addDestination('slow', { from: 'beginning', forgetAfter: 60_000 });
      await world.add('1');
      const relay = await world.relay({ destination: 'slow' });
      const page = await relay.read();
      await world.sql(`UPDATE ${names.destinations} SET created_at = now() - interval '1 h'`);
      await world.sql(`WITH old AS (SELECT destination, partition FROM ${names.cursors} WHERE destination = 'slow')
        SELECT FROM old`);
      const before = await world.value(`SELECT epoch FROM ${names.cursors} LIMIT 1`);
      await world.sql(
        `UPDATE ${names.cursors} SET expires_at = now() - interval '1 h', written_by = pg_current_xact_id()`,
      );
      await store.deletePublishedByExpiration(0);
      expect(
        await world.value(`SELECT count(*)::int FROM ${names.cursors} WHERE owner IS NULL AND epoch > $1`, [before]),
      ).toBe(8);
      await expect(relay.settle(page)).rejects.toMatchObject({ code: 'LEASE_LOST' });
    });
  });

  it('refuses options that make no sense', async () => {
    await inNew(async (world) => {
      const { store } = world;
      await (await world.relay()).close();
      await store.admin.addDestination('there', { from: 'end' });
      for (const name of ['there', 'default']) {
        await expect(store.admin.addDestination(name, { from: 'beginning' })).rejects.toMatchObject({
          code: 'CONFLICT',
        });
      }
      expect((await store.admin.destinations()).map(({ name }) => name)).toEqual(['default', 'there']);
      const wrong: [unknown, unknown][] = [
        ['', { from: 'end' }],
        [7, { from: 'end' }],
        ['x', {}],
        ['x', { from: 'now' }],
        ['x', { from: new Date(NaN) }],
        ['x', { from: new Date(Date.now() + 3_600_000) }],
        ['x', { from: 'end', topics: 'a' }],
        ['x'.repeat(501), { from: 'end' }],
        ['x', { from: 'end', forgetAfter: 59_999 }],
        ['x', { from: 'end', forgetafter: 1 }],
      ];
      for (const [name, options] of wrong) {
        const adding = store.admin.addDestination(name as string, options as { from: 'end' });
        await expect(adding, JSON.stringify([name, options])).rejects.toMatchObject({ code: 'INVALID_OPTION' });
      }
      await expect(store.admin.updateDestination('x', { forgetAfter: null })).rejects.toMatchObject({
        code: 'UNKNOWN_DESTINATION',
      });
      expect(await store.admin.destinations()).toHaveLength(2);
    });
  });
});

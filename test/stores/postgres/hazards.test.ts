/**
 * One interleaving for each hazard of reading by a snapshot, played step by step with a few sessions: once on the store
 * as it is, and once on a mutant that is broken in just that place, which shows that the test can fail.
 *
 * They run on servers of their own, because which transactions a snapshot lists depends on every transaction of the
 * server, including those of autovacuum and of other tests.
 */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { newMessage } from '../../../src/core/contracts/message.js';
import { postgresVersions, startPostgres, type EmbeddedPostgres } from '../../support/embedded-postgres.js';
import {
  itHolds,
  mutantStatement,
  swapColumns,
  type Hazard,
  type Mutant,
  type Session,
  type World,
} from './support.js';

/** Two transactions: one is delivered while `t`, which was stored before it, is running unlisted in the snapshot. */
async function storeAcross(world: World, ids = ['m']): Promise<{ t: Session; xid: string }> {
  const a = await world.begin();
  const t = await world.begin();
  await a.xid();
  const xid = await t.xid();
  await t.add('t');
  await a.add(...ids);
  await a.commit();
  return { t, xid };
}

/** Delivers, restarts if told to, and lets the late transaction commit. */
async function commitLate(world: World, restart: boolean): Promise<string[]> {
  const relay = await world.relay();
  const { t, xid } = await storeAcross(world);
  await relay.poll();
  expect(await world.isUnlisted(xid)).toBe(true);
  if (restart) await relay.reopen();
  await t.commit();
  await relay.drain();
  return relay.acknowledged;
}

/** A default that waits for the lock 1, in sessions that ask for it, before or after the transaction has its id. */
async function pauseAtXid(world: World, when: 'before' | 'after'): Promise<Session> {
  const { messages, schema } = world.names;
  const wait = `IF current_setting('test.pause', true) = 'on' THEN PERFORM pg_advisory_xact_lock_shared(1); END IF;`;
  const id = 'PERFORM pg_current_xact_id();';
  await world.sql(`CREATE FUNCTION ${schema}.pause() RETURNS xid8 LANGUAGE plpgsql AS $$ BEGIN
    ${when === 'before' ? wait + id : id + wait} RETURN pg_current_xact_id(); END $$`);
  await world.sql(`ALTER TABLE ${messages} ALTER COLUMN xid SET DEFAULT ${schema}.pause()`);
  const controller = await world.begin();
  await controller.query('SELECT pg_advisory_xact_lock(1)');
  return controller;
}

/** A message whose insert stops between the two columns, while another message is stored, delivered and settled. */
async function storeInTwoSteps(world: World, when: 'before' | 'after'): Promise<string[]> {
  const relay = await world.relay();
  // The first value of a sequence is written to the WAL, which by itself gives a transaction its id.
  await world.add('first');
  const controller = await pauseAtXid(world, when);
  const t = await world.begin();
  await t.query(`SET test.pause = 'on'`);
  const storing = t.add('t');
  await world.waiting(t);
  await world.add('m');
  await relay.poll();
  await relay.poll();
  await controller.commit();
  await storing;
  await t.commit();
  await relay.drain();
  return relay.acknowledged;
}

const hazards: Record<string, Hazard> = {
  'low is not high: a transaction that the snapshot did not list commits late': {
    play: (world) => commitLate(world, false),
    mutant: {
      cursor: ({ closed }) => ({ closed: (cursor, passed) => ({ ...closed(cursor, passed), low: cursor.high }) }),
    },
    right: ['m', 't'],
    wrong: ['m'],
  },

  'low is not high after a restart either': {
    play: (world) => commitLate(world, true),
    mutant: mutantStatement('lockFree', [' low::text', ' high::text']),
    right: ['m', 't'],
    wrong: ['m'],
  },

  'low survives a restart in the middle of a window, as next_low': {
    async play(world) {
      const relay = await world.relay({ pageSize: 2 });
      const { t, xid } = await storeAcross(world, ['m1', 'm2', 'm3']);
      await world.sql('SELECT 1');
      await relay.poll();
      expect(await world.isUnlisted(xid, 'to_snapshot')).toBe(true);
      await relay.reopen();
      await relay.poll();
      await t.commit();
      await relay.drain();
      return relay.acknowledged;
    },
    mutant: mutantStatement('lockFree', ['next_low::text', 'high::text']),
    right: ['m1', 'm2', 'm3', 't'],
    wrong: ['m1', 'm2', 'm3'],
  },

  'to survives a restart in the middle of a window': {
    async play(world) {
      const relay = await world.relay({ pageSize: 1 });
      const t = await world.begin();
      await t.add('t');
      await world.add('m1', 'm2');
      await relay.poll();
      await relay.reopen();
      await t.commit();
      await relay.drain();
      return relay.acknowledged;
    },
    mutant: mutantStatement('lockFree', ['to_snapshot::text', 'NULL::text']),
    right: ['m1', 'm2', 't'],
    wrong: ['m1', 'm2'],
  },

  'next_low is what was acknowledged, not what is being settled': {
    async play(world) {
      const relay = await world.relay();
      const { t } = await storeAcross(world);
      const page = await relay.read();
      const toPark = await relay.publish(page);
      expect((await relay.read()).messages).toEqual([]);
      await relay.settle(page, toPark);
      await t.commit();
      await relay.drain();
      return relay.acknowledged;
    },
    mutant: {
      reader: (original) => {
        class Hasty extends original.Reader {
          #high = { read: 0 };
          constructor(...[database, statements, positions, options]: ConstructorParameters<typeof original.Reader>) {
            const high = { read: positions[0]!.cursor.high };
            super(database, statements, positions, { ...options, acknowledgedHigh: () => high.read });
            this.#high = high;
          }
          override async next(signal?: AbortSignal) {
            const page = await super.next(signal);
            if (page) this.#high.read = page.cursor().high;
            return page;
          }
        }
        return { Reader: Hasty };
      },
    },
    right: ['m', 't'],
    wrong: ['m'],
  },

  'next_low is what was acknowledged before the statement, not when it returns': {
    async play(world) {
      const relay = await world.relay();
      const { t } = await storeAcross(world);
      const page = await relay.read();
      const toPark = await relay.publish(page);
      const taken = world.gate.hold('read');
      const reading = relay.read();
      await taken;
      await relay.settle(page, toPark);
      world.gate.open();
      expect((await reading).messages).toEqual([]);
      await t.commit();
      await relay.drain();
      return relay.acknowledged;
    },
    mutant: (() => {
      let now = () => 0;
      return {
        reader: (original) => ({
          Reader: class extends original.Reader {
            constructor(...args: ConstructorParameters<typeof original.Reader>) {
              super(...args);
              now = args[3].acknowledgedHigh;
            }
          },
        }),
        cursor: ({ opened }) => ({ opened: (cursor, to) => opened(cursor, to, now()) }),
      } satisfies Mutant;
    })(),
    right: ['m', 't'],
    wrong: ['m'],
  },

  'xid stands before seq: a seq is drawn after the transaction has its id': {
    play: (world, broken) => storeInTwoSteps(world, broken ? 'before' : 'after'),
    mutant: { schema: () => ({ verifySchema: async () => {} }) },
    brokenTables: swapColumns,
    right: ['first', 'm', 't'],
    wrong: ['first', 'm'],
  },

  'the sequence has no cache: no message is lost': {
    async play(world, broken) {
      const relay = await world.relay();
      if (broken) await cacheSequence(world);
      const [one, other] = [await world.session(), await world.session()];
      await store(one, 'k:0');
      await store(other, 'k:1');
      await relay.poll();
      await relay.poll();
      await store(one, 'k:2');
      await relay.drain();
      return relay.acknowledged;
    },
    right: ['k:0', 'k:1', 'k:2'],
    wrong: ['k:0', 'k:1'],
  },

  'the sequence has no cache: no message overtakes another': {
    async play(world, broken) {
      const relay = await world.relay();
      if (broken) await cacheSequence(world);
      const [one, other] = [await world.session(), await world.session()];
      await store(one, 'k:0');
      await store(other, 'k:1');
      await store(one, 'k:2');
      await relay.drain();
      return relay.acknowledged;
    },
    right: ['k:0', 'k:1', 'k:2'],
    wrong: ['k:0', 'k:2', 'k:1'],
  },

  'the order is that of seq: an older transaction may store later': {
    async play(world) {
      const relay = await world.relay({ pageSize: 1 });
      const older = await world.begin();
      await older.xid();
      await world.add('k:1');
      await older.add('k:2');
      await older.commit();
      await relay.drain();
      return relay.acknowledged;
    },
    mutant: mutantStatement('read', ['ORDER BY m.seq', 'ORDER BY m.xid']),
    right: ['k:1', 'k:2'],
    wrong: ['k:2'],
  },

  'late rows are found by the transactions that the snapshot lists': {
    async play(world) {
      const relay = await world.relay();
      const t = await world.begin();
      await t.add('t');
      await world.add('m');
      await relay.poll();
      // Its settlement is acknowledged, so the next window may close with a low above the late message.
      await relay.poll();
      await relay.poll();
      await t.commit();
      await relay.drain();
      return relay.acknowledged;
    },
    mutant: mutantStatement('read', [
      'pg_snapshot_xip($1::pg_snapshot)',
      "pg_snapshot_xip(CASE WHEN $1::pg_snapshot IS NULL THEN $1 ELSE '1:1:' END)",
    ]),
    right: ['m', 't'],
    wrong: ['m'],
  },

  'of the transactions that the snapshot lists, only those that have ended in the window are late in it': {
    async play(world) {
      const relay = await world.relay({ pageSize: 1 });
      const [ended, t] = [await world.begin(), await world.begin()];
      await ended.add('ended');
      await t.add('t');
      await world.add('m1');
      await relay.drain();
      await world.add('m2');
      await relay.drain();
      expect(await world.value(`SELECT min(low)::int FROM ${world.names.cursors}`)).toBe(3);
      await ended.commit();
      // Anew, so that a page is read by a statement of its own: `t` commits between the two of one window.
      await relay.reopen();
      const opened = world.gate.hold('read');
      const reading = relay.read();
      await opened;
      await t.commit();
      world.gate.open();
      const page = await reading;
      await relay.settle(page, await relay.publish(page));
      await relay.drain();
      return relay.acknowledged;
    },
    mutant: mutantStatement('read', [' WHERE pg_visible_in_snapshot(xid, (SELECT until FROM w))\n', '\n']),
    right: ['m1', 'm2', 'ended', 't'],
    wrong: ['m1', 'm2', 'ended', 't', 't'],
  },

  'as many messages are read as fit when they suddenly grow': {
    async play(world) {
      const relay = await world.relay({ pageSize: 1_000 });
      const session = await world.begin();
      const ids = ['1', '2', '3', '4', '5', '6', '7', '8', '9'];
      const large = new Uint8Array(1024 * 1024);
      await world.store.add(
        session.client,
        ids.map((id) => newMessage(large, { id })),
      );
      await session.commit();
      const pages: string[] = [];
      for (let page = await relay.read(); page.messages.length > 0; page = await relay.read()) {
        pages.push(page.messages.map(({ id }) => id).join(''));
        await relay.settle(page);
      }
      return pages;
    },
    mutant: mutantStatement('read', ['$9::integer', 'greatest($9::integer, 2000000000)']),
    right: ['1234', '567', '89'],
    wrong: ['123456789'],
  },

  'as many messages are read as fit when their metadata suddenly grow': {
    async play(world) {
      const relay = await world.relay({ pageSize: 1_000 });
      const session = await world.begin();
      // Letters that cannot be compressed: 400 times 60 KiB are more than the 16 MiB that are read at once.
      const metadata = { n: randomBytes(45 * 1024).toString('base64') };
      const ids = Array.from({ length: 400 }, (_, n) => String(n));
      await world.store.add(
        session.client,
        ids.map((id) => newMessage('x', { id, metadata })),
      );
      await session.commit();
      const pages: number[] = [];
      for (let page = await relay.read(); page.messages.length > 0; page = await relay.read()) {
        pages.push(page.messages.length);
        await relay.settle(page);
      }
      return {
        isAll: pages.reduce((sum, count) => sum + count, 0) === ids.length,
        isBounded: Math.max(...pages) < 300,
      };
    },
    mutant: mutantStatement('read', ['$9::integer', 'greatest($9::integer, 2000000000)']),
    right: { isAll: true, isBounded: true },
    wrong: { isAll: true, isBounded: false },
  },

  'a long transaction delays only its own messages': {
    async play(world) {
      const other = new URL(world.url);
      other.pathname = '/postgres';
      const relay = await world.relay();
      const elsewhere = await world.begin(other.href);
      await elsewhere.xid();
      const here = await world.begin();
      await here.add('t');
      await world.add('m');
      await relay.drain();
      return relay.acknowledged;
    },
    mutant: mutantStatement('read', [
      'pg_visible_in_snapshot(m.xid, (SELECT until FROM w))',
      'm.xid < pg_snapshot_xmin((SELECT until FROM w))',
    ]),
    right: ['m'],
    wrong: [],
  },
};

async function cacheSequence(world: World): Promise<void> {
  const sequence = (await world.value(`SELECT pg_get_serial_sequence($1, 'seq')`, [world.names.messages])) as string;
  await world.sql(`ALTER SEQUENCE ${sequence} CACHE 10`);
}

async function store(session: Session, id: string): Promise<void> {
  await session.query('BEGIN');
  await session.add(id);
  await session.commit();
}

describe.each(postgresVersions)('PostgreSQL %i', (version) => {
  let server: EmbeddedPostgres;
  let url: string;
  beforeAll(async () => {
    server = await startPostgres(version, { autovacuum: 'off', fsync: 'off' });
    url = await server.createDatabase('hazards');
  });
  afterAll(() => server.remove());

  itHolds(() => url, hazards);
});

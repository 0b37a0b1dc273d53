/**
 * One interleaving for each hazard of cleaning: a slice that is looked at before it is locked, or with an old snapshot;
 * a lock that waits; stragglers that a relay has in hand. Each runs on the store, and on a mutant of it.
 */
import { beforeAll, describe } from 'vitest';
import { postgresVersions } from '../../support/embedded-postgres.js';
import {
  createDatabase,
  itHolds,
  mutantCleaning,
  mutantStatement,
  type Hazard,
  type Session,
  type World,
} from './support.js';

const DAY = 86_400_000;

/** Stores messages in a slice, as old as told; keys as in `World.add`. */
async function put(
  world: World,
  slice: number,
  ids: readonly string[],
  age = 2 * DAY,
  via?: Pick<Session, 'query'>,
): Promise<void> {
  await (via ?? { query: world.sql }).query(
    `INSERT INTO ${world.names.messages} (slice, stored_at, id, key, payload)
      SELECT $1, clock_timestamp() - $2 * interval '1 ms', id, CASE WHEN id LIKE '%:%' THEN split_part(id, ':', 1) END, 'x' FROM unnest($3::text[]) AS id`,
    [slice, age, ids],
  );
}

/** Delivers everything. */
async function deliver(world: World): Promise<void> {
  const relay = await world.relay();
  await relay.drain();
  await relay.close();
}

/** The messages that the next relay delivers. */
async function delivered(world: World): Promise<string[]> {
  const relay = await world.relay();
  await relay.drain();
  return relay.acknowledged;
}

/** Resolves to the result of whichever comes first. The other ends too. */
async function first<T>(...works: readonly ((signal: AbortSignal) => Promise<T>)[]): Promise<T> {
  const over = new AbortController();
  const running = works.map((work) => work(over.signal));
  const result = await Promise.race(running);
  over.abort();
  return result;
}

/** Resolves when so many sessions wait for a lock, or when it is over. */
async function waiters(world: World, count: number, over: AbortSignal): Promise<string> {
  while (!over.aborted) {
    const found = await world.value(
      `SELECT count(*)::int FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()`,
    );
    if (found === count) break;
  }
  return 'waits';
}

const hazards: Record<string, Hazard> = {
  'a slice is locked before it is looked at': {
    async play(world) {
      await put(world, 1, ['a']);
      await deliver(world);
      // Between the look that decides and the truncation.
      const locking = world.gate.hold('slice');
      const cleaning = world.store.deletePublishedByExpiration(0);
      await locking;
      const looking = world.gate.hold('unfinished');
      await looking;
      const writer = await world.session();
      const storing = put(world, 1, ['late'], 2 * DAY, writer);
      await first(
        () => storing.then(() => 'stored'),
        (over) => waiters(world, 1, over),
      );
      world.gate.open();
      await Promise.all([cleaning, storing]);
      return delivered(world);
    },
    // TRUNCATE then takes the lock, after the look.
    mutant: mutantCleaning('lock', () => 'SELECT'),
    right: ['late'],
    wrong: [],
  },

  'a slice is looked at again once it is locked': {
    async play(world) {
      await put(world, 1, ['a']);
      const early = await world.begin();
      await early.xid();
      await deliver(world);
      const looking = world.gate.hold('unfinished');
      const cleaning = world.store.deletePublishedByExpiration(0);
      await looking;
      await put(world, 1, ['early'], 2 * DAY, early);
      await early.commit();
      world.gate.open();
      await cleaning;
      return delivered(world);
    },
    mutant: {
      cleaning: (original) => ({
        cleaningOf: (names, n) => {
          const all = original.cleaningOf(names, n);
          // What the first look found is believed: as if it were the only one.
          const found = new Map<string, unknown>();
          return Object.defineProperty({ ...all }, 'unfinished', {
            get: () => {
              if (found.has('looked'))
                return { name: 'messenger_believed', text: 'SELECT NULL WHERE $1::bigint IS NULL' };
              found.set('looked', true);
              return all.unfinished;
            },
          });
        },
      }),
    },
    right: ['early'],
    wrong: [],
  },

  'the look after the lock has a snapshot of its own': {
    async play(world) {
      await put(world, 1, ['a']);
      const early = await world.begin();
      await early.xid();
      await deliver(world);
      const looking = world.gate.hold('unfinished');
      const cleaning = world.store.deletePublishedByExpiration(0);
      await looking;
      const beginning = world.gate.hold('begin');
      await beginning;
      await put(world, 1, ['early'], 2 * DAY, early);
      await early.commit();
      world.gate.open();
      await cleaning;
      return delivered(world);
    },
    mutant: {
      database: ({ preamble }) => ({
        // Anew: whether a transaction was left open is asked before, and nothing can change the isolation after that.
        preamble: (timeout, ...more) =>
          `ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; ${preamble(timeout, ...more)}; SELECT pg_current_snapshot()`,
      }),
    },
    right: ['early'],
    wrong: [],
  },

  'cleaning does not wait for a lock, so that polls continue': {
    async play(world) {
      await put(world, 1, ['a']);
      await deliver(world);
      const relay = await world.relay();
      const dump = await world.begin();
      await dump.query(`SELECT FROM ${world.names.slice(1)}`);
      const cleaning = world.store.deletePublishedByExpiration(0);
      const cleaned = await first(
        () => cleaning.then(({ kept }) => kept[0]?.reason),
        (over) => waiters(world, 1, over),
      );
      const polling = relay.poll();
      const polled = await first(
        () => polling.then(() => 'goes on'),
        (over) => waiters(world, 2, over),
      );
      await dump.commit();
      await Promise.all([cleaning, polling]);
      return { cleaned, polled };
    },
    mutant: mutantCleaning('lock', (text) => text.replace(' NOWAIT', '')),
    right: { cleaned: 'in use', polled: 'goes on' },
    wrong: { cleaned: 'waits', polled: 'waits' },
  },

  'messages that a relay may have in hand are not moved': {
    async play(world) {
      const relay = await world.relay();
      await put(world, 1, ['k:1']);
      await put(world, 2, ['k:2'], 0);
      await world.store.deletePublishedByExpiration(0);
      // The mutant's ends with its lease, when it settles: what it has published by then counts.
      await relay.drain().catch(() => undefined);
      return relay.acknowledged;
    },
    mutant: {
      cleaning: (original) => ({
        cleaningOf: (names, n) => {
          const all = original.cleaningOf(names, n);
          const changed = (['unfinished', 'fence'] as const).map((kind) => [
            kind,
            { ...all[kind], text: all[kind].text.replace('c.owner IS NOT NULL', 'false') },
          ]);
          return { ...all, ...(Object.fromEntries(changed) as object) };
        },
      }),
    },
    right: ['k:1', 'k:2'],
    wrong: ['k:2'],
  },

  'a relay whose lease has expired settles none of the moved messages': {
    async play(world) {
      await put(world, 1, ['k:1', 'k:2']);
      const relay = await world.relay();
      const page = await relay.read();
      await relay.publish(page);
      await world.expireLease();
      await world.store.deletePublishedByExpiration(0);
      const ended = await relay.settle(page).then(
        () => 'settled',
        (error: unknown) => (error as { code: string }).code,
      );
      const high = await world.value(`SELECT max(high)::int FROM ${world.names.cursors}`);
      return { ended, high };
    },
    // Locked, but left as they are; and found wherever they are, since making a lease run out moves them.
    mutant: {
      ...mutantStatement('settle', [
        'c.ctid = ANY($1::text::tid[]) AND c.ctid = (SELECT $1::text::tid[])[c.partition + 1]',
        '$1::text IS NOT NULL',
      ]),
      cleaning: (original) => ({
        cleaningOf: (names, n) => {
          const { fence, move, ...rest } = original.cleaningOf(names, n);
          return {
            ...rest,
            fence: { ...fence, text: `SELECT FROM ${names.cursors} FOR UPDATE NOWAIT` },
            move: { ...move, text: move.text.replace('c.written_by = pg_current_xact_id()', 'true') },
          };
        },
      }),
    },
    right: { ended: 'LEASE_LOST', high: 0 },
    wrong: { ended: 'settled', high: 2 },
  },

  'later messages of a key wait for its moved messages': {
    async play(world) {
      await put(world, 1, ['k:1', 'k:2', 'x']);
      await (await world.relay()).close();
      await put(world, 2, ['k:3'], 0);
      await world.store.deletePublishedByExpiration(0);
      let up = false;
      const relay = await world.relay({ acknowledge: ({ id }) => up || id !== 'k:1' });
      await relay.poll();
      await relay.poll();
      up = true;
      await relay.drain();
      return relay.acknowledged;
    },
    mutant: mutantCleaning('move', (text) =>
      text.replace('THEN greatest(clock_timestamp(), m.deliver_at) END', 'THEN NULL::timestamptz END'),
    ),
    right: ['x', 'k:1', 'k:2', 'k:3'],
    wrong: ['k:1', 'k:2', 'k:3'],
  },
};

describe.each(postgresVersions)('PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, 'hazards_clean');
  });

  itHolds(() => url, hazards);
});

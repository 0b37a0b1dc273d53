/** Sleeping relays, and what wakes them. A sleep lasts ten minutes, so whatever ends it has woken the relay. */
import { PGlite } from '@electric-sql/pglite';
import pg from 'pg';
import { beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { Messenger } from '../../../src/core/relay/messenger.js';
import { newMessage } from '../../../src/core/contracts/message.js';
import type { TransactionBridge } from '../../../src/adapter.js';
import type { PostgresFeed } from '../../../src/stores/postgres/relay/feed.js';
import { wakeKeys, type WakeKeys } from '../../../src/stores/postgres/write/wake-locks.js';
import { PostgresStore } from '../../../src/stores/postgres/store.js';
import { Waker } from '../../../src/stores/postgres/relay/waker.js';
import { outermostVersions } from '../../support/embedded-postgres.js';
import { createDatabase, inWorld, Session, type World } from './support.js';

const LONG = 600_000;

const keysOf = (world: World, partitions = 8): WakeKeys => wakeKeys(world.names, partitions);

/** Who holds the locks of relays and writers, or waits for them. */
async function locks(world: World, mode: 'ExclusiveLock' | 'ShareLock' = 'ExclusiveLock', granted = true) {
  const rows = await world.sql(
    `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND classid::bigint = $1 AND objsubid = 2 AND mode = $2 AND granted = $3`,
    [keysOf(world).lock >>> 0, mode, granted],
  );
  return rows.map(([pid]) => pid as number);
}

interface Sleeper {
  readonly feed: PostgresFeed;
  /** The errors that it was told. */
  readonly told: Error[];
}

async function openSleeper(world: World, store = world.store, destination = 'default'): Promise<Sleeper> {
  const told: Error[] = [];
  const feed = await store.openFeed({ destination, pageSize: 100, tell: (error) => told.push(error) });
  if (feed === null) throw new Error('the destination is held by another relay');
  return { feed, told };
}

/** What a relay does before it sleeps: it takes the locks, and looks once more. */
async function fallAsleep({ feed }: Sleeper): Promise<void> {
  await feed.idle(LONG);
  expect((await feed.read()).messages).toEqual([]);
}

async function idsOf({ feed }: Sleeper): Promise<string[]> {
  const page = await feed.read();
  await feed.settle(page, []);
  return page.messages.map(({ id }) => id);
}

/** Sleeps until there are messages. A relay that is not sure to be woken looks every second. */
async function news(sleeper: Sleeper): Promise<string[]> {
  for (;;) {
    await sleeper.feed.idle(LONG);
    const ids = await idsOf(sleeper);
    if (ids.length > 0) return ids;
  }
}

/** Listens for the notifications of writers. With `asleep`, writers take it for a sleeping relay. */
async function openListener(world: World, asleep: boolean): Promise<{ heard: string[]; session: Session }> {
  const session = await world.session();
  const { channel, lock, slots } = keysOf(world);
  const heard: string[] = [];
  session.client.on('notification', ({ payload }) => heard.push(payload ?? ''));
  await session.query(`LISTEN ${channel}`);
  if (asleep) await session.query('SELECT pg_advisory_lock($1, n) FROM generate_series(0, $2 - 1) n', [lock, slots]);
  return { heard, session };
}

/** Resolves when every earlier notification has been heard. */
async function allHeard({ session }: { session: Session }): Promise<void> {
  await session.query('SELECT 1');
}

describe.each(outermostVersions)('a sleeping relay, on PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, 'wake');
  });

  const play = (work: (world: World) => Promise<void>, ...args: Parameters<typeof inWorld>[2][]) =>
    inWorld(work, url, ...(args as []));

  it('is woken by a commit on another connection, as often as it sleeps', () =>
    play(async (world) => {
      const sleeper = await openSleeper(world, world.another());
      for (const id of ['k:1', 'k:2', '3']) {
        await fallAsleep(sleeper);
        expect(await locks(world)).toHaveLength(8);
        const slept = sleeper.feed.idle(LONG);
        await world.add(id);
        await slept;
        expect(await idsOf(sleeper)).toEqual([id]);
        // Given back on the listening connection, beside what is settled: in one round trip, which may be over first.
        await expect.poll(() => locks(world)).toEqual([]);
      }
      expect(sleeper.told).toEqual([]);
      await sleeper.feed.close();
    }));

  it('takes no locks during a short pause', () =>
    play(async (world) => {
      const sleeper = await openSleeper(world);
      await sleeper.feed.idle(2);
      await sleeper.feed.idle(9);
      expect(await locks(world)).toEqual([]);
      await sleeper.feed.close();
    }));

  it('sleeps for its interval if it is sure to be woken, and no longer than a second if it is not', () =>
    play(async (world) => {
      const sleeper = await openSleeper(world);
      await fallAsleep(sleeper);
      const slept = sleeper.feed.idle(10, { interval: LONG });
      // What 10 ms would have ended long before it is through.
      for (let i = 0; i < 100; i++) await world.sql('SELECT 1');
      expect(await Promise.race([slept.then(() => 'awake'), Promise.resolve('asleep')])).toBe('asleep');
      await world.add('k:1');
      await slept;
      expect(await idsOf(sleeper)).toEqual(['k:1']);
      // Another relay sleeps, and may stop without saying so.
      await openListener(world, true);
      await sleeper.feed.idle(LONG);
      await sleeper.feed.idle(LONG);
      await sleeper.feed.close();
    }));

  it('is woken when a transaction ends that was open when the relay fell asleep', () =>
    play(async (world) => {
      const writer = await world.begin();
      await writer.add('k:1');
      expect(await locks(world, 'ShareLock')).toHaveLength(1);
      const sleeper = await openSleeper(world, world.another());
      await fallAsleep(sleeper);
      expect(await locks(world)).toHaveLength(7);
      // Other messages of its key are notified, because the relay waits for the lock.
      await world.waiting('any');
      await writer.commit();
      // The relay gets it without asking again.
      await expect.poll(() => locks(world)).toHaveLength(8);
      await sleeper.feed.idle(LONG);
      expect(await idsOf(sleeper)).toEqual(['k:1']);
      await sleeper.feed.close();
    }));

  it('holds no snapshot for long while it waits', () =>
    play(async (world) => {
      const writer = await world.begin();
      await writer.add('k:1');
      const sleeper = await openSleeper(world, world.another());
      await fallAsleep(sleeper);
      const [pid] = await locks(world);
      const horizon = () => world.value('SELECT backend_xmin::text FROM pg_stat_activity WHERE pid = $1', [pid]);
      await expect.poll(horizon, { interval: 1 }).not.toBeNull();
      const seen = await horizon();
      await world.add('k:2');
      await expect.poll(horizon, { interval: 1 }).not.toBe(seen);
      expect(await locks(world)).toHaveLength(7);
      await writer.commit();
      await sleeper.feed.close();
    }));

  it('is not notified of what was rolled back, completely or to a savepoint', () =>
    play(async (world) => {
      const listener = await openListener(world, true);
      const writer = await world.begin();
      await writer.add('k:1');
      await writer.query('ROLLBACK');
      await writer.query('BEGIN');
      await writer.query('SAVEPOINT s');
      await writer.add('k:2');
      await writer.query('ROLLBACK TO SAVEPOINT s');
      await writer.commit();
      await allHeard(listener);
      expect(listener.heard).toEqual([]);
      await writer.query('BEGIN');
      await writer.query('SAVEPOINT s');
      await writer.add('k:3');
      await writer.query('ROLLBACK TO SAVEPOINT s');
      await writer.add('k:4', 'k:5');
      await writer.commit();
      await allHeard(listener);
      expect(listener.heard).toHaveLength(1);
    }));

  it('is not notified while it is awake', () =>
    play(async (world) => {
      const listener = await openListener(world, false);
      await world.add('k:1');
      const sleeper = await openSleeper(world);
      await sleeper.feed.idle(2);
      await world.add('k:2');
      await allHeard(listener);
      expect(listener.heard).toEqual([]);
      await sleeper.feed.close();
    }));

  it.each([1, 8, 1_000])('is notified of the slots of %i partitions, whatever the keys are', (partitions) =>
    inWorld(
      async (world) => {
        const keys = keysOf(world, partitions);
        const { session, heard } = await openListener(world, false);
        await session.query('SELECT pg_advisory_lock($1, n) FROM generate_series(0, $2 - 1) n', [
          keys.lock,
          keys.slots,
        ]);
        const ids = ['k', 'grüße 😀', '\\', "'", '\\x41', 'a\\\\b', '"', '{}', ' ', ...Array.from('abcdefghijkl')];
        const writer = await world.session();
        for (const id of ids) {
          await writer.query('BEGIN');
          await world.store.add(writer.client, newMessage('x', { id, key: id === 'k' ? undefined : id }));
          await writer.query('COMMIT');
        }
        await session.query('SELECT 1');
        const slots = await world.sql(`SELECT (key_hash % $1 % $2)::text FROM ${world.names.messages} ORDER BY seq`, [
          partitions,
          keys.slots,
        ]);
        expect(heard).toEqual(slots.map(([slot]) => slot));
        expect(new Set(heard).size).toBeGreaterThan(partitions === 1 ? 0 : 4);
      },
      url,
      {},
      { partitions },
    ),
  );

  it('takes nothing away from what is stored, and is notified only once per slot', () =>
    play(async (world) => {
      const listener = await openListener(world, true);
      const ids = Array.from({ length: 1_000 }, (_, n) => `${String(n)}:`);
      await world.add(...ids);
      await allHeard(listener);
      expect(listener.heard.toSorted()).toEqual(['0', '1', '2', '3', '4', '5', '6', '7']);
      await listener.session.query('SELECT pg_advisory_unlock_all()');
      await world.add(...ids.map((id) => `${id}again`));
      expect(await world.value(`SELECT count(*)::int FROM ${world.names.messages}`)).toBe(2_000);
    }));

  it('is not notified by writers with `notify: false`, which can prepare their transactions', () =>
    inWorld(
      async (world) => {
        const sleeper = await openSleeper(world);
        await fallAsleep(sleeper);
        const listener = await openListener(world, false);
        const writer = await world.begin();
        await writer.add('k:1');
        await writer.query("PREPARE TRANSACTION 'wake'");
        await writer.query("COMMIT PREPARED 'wake'");
        await allHeard(listener);
        expect(listener.heard).toEqual([]);
        expect(await idsOf(sleeper)).toEqual(['k:1']);
        await sleeper.feed.close();
      },
      url,
      {},
      { notify: false },
    ));

  it('makes PostgreSQL refuse to prepare a transaction that notifies, but not while it is awake', () =>
    play(async (world) => {
      const writer = await world.begin();
      await writer.add('k:1');
      await writer.query("PREPARE TRANSACTION 'awake'");
      const sleeper = await openSleeper(world);
      await fallAsleep(sleeper);
      await writer.query("COMMIT PREPARED 'awake'");
      await expect.poll(() => locks(world)).toHaveLength(8);
      await writer.query('BEGIN');
      await writer.add('k:2');
      await expect(writer.query("PREPARE TRANSACTION 'asleep'")).rejects.toMatchObject({
        code: '0A000',
        message: expect.stringMatching(/NOTIFY/) as string,
      });
      expect(await idsOf(sleeper)).toEqual(['k:1']);
      await sleeper.feed.close();
    }));

  it('polls when its connection is lost, reports that once, and is woken again when it is back', () =>
    play(async (world) => {
      const sleeper = await openSleeper(world, world.another());
      await fallAsleep(sleeper);
      const slept = sleeper.feed.idle(LONG);
      const [pid] = await locks(world);
      await world.sql('SELECT pg_terminate_backend($1)', [pid]);
      await slept;
      expect(sleeper.told).toMatchObject([{ code: 'WAKE_FAILED' }]);
      await world.add('k:1');
      expect(await idsOf(sleeper)).toEqual(['k:1']);
      while ((await locks(world)).length < 8) await sleeper.feed.idle(100);
      const again = news(sleeper);
      await world.add('k:2');
      expect(await again).toEqual(['k:2']);
      expect(sleeper.told).toHaveLength(1);
      await sleeper.feed.close();
    }));

  it('keeps polling if a pooler is in between, reports that once per store, and leaves nothing there', () =>
    play(async (world) => {
      const pool = new pg.Pool({ connectionString: url, max: 3 });
      // A pooler names a backend that it has made up.
      pool.on('connect', (client) => {
        (client as unknown as { processID: number }).processID += 1;
      });
      const store = new PostgresStore(pool, { schema: world.names.schema });
      const sleeper = await openSleeper(world, store);
      await sleeper.feed.idle(LONG);
      expect(sleeper.told).toMatchObject([{ code: 'WAKE_FAILED', cause: { code: 'UNSUPPORTED' } }]);
      await sleeper.feed.idle(20);
      expect(await locks(world)).toEqual([]);
      await world.add('k:1');
      expect(await idsOf(sleeper)).toEqual(['k:1']);
      await sleeper.feed.close();
      const next = await openSleeper(world, store);
      await next.feed.idle(20);
      expect(next.told).toEqual([]);
      await next.feed.close();
      await pool.end();
    }));

  it('polls if it gets no connection, and is woken once it has one', () =>
    play(async (world) => {
      const listen = new pg.Pool({ connectionString: url, max: 1 });
      const taken = await listen.connect();
      const store = new PostgresStore(world.pool, { schema: world.names.schema, listen });
      const sleeper = await openSleeper(world, store);
      await sleeper.feed.idle(20);
      await world.add('k:1');
      expect(await idsOf(sleeper)).toEqual(['k:1']);
      taken.release();
      while ((await locks(world)).length < 8) await sleeper.feed.idle(100);
      await sleeper.feed.close();
      await listen.end();
    }));

  it('is woken at each of two destinations', () =>
    play(async (world) => {
      const sleepers = [
        await openSleeper(world, world.another(), 'one'),
        await openSleeper(world, world.another(), 'two'),
      ];
      for (const sleeper of sleepers) await fallAsleep(sleeper);
      const slept = sleepers.map(news);
      await world.add('k:1');
      expect(await Promise.all(slept)).toEqual([['k:1'], ['k:1']]);
      await Promise.all(sleepers.map(({ feed }) => feed.close()));
    }));

  it('takes over the locks of a relay that has stopped', () =>
    play(async (world) => {
      const first = await openSleeper(world, world.another(), 'one');
      const second = await openSleeper(world, world.another(), 'two');
      await fallAsleep(first);
      await fallAsleep(second);
      const [pid] = await locks(world);
      await first.feed.close();
      while ((await locks(world)).length < 8) await second.feed.idle(LONG);
      expect(await locks(world)).not.toContain(pid);
      const slept = news(second);
      await world.add('k:1');
      expect(await slept).toEqual(['k:1']);
      await second.feed.close();
    }));

  it('leaves no lock and no connection behind', () =>
    play(async (world) => {
      const pool = new pg.Pool({ connectionString: url, max: 3 });
      const sleeper = await openSleeper(world, new PostgresStore(pool, { schema: world.names.schema }));
      await fallAsleep(sleeper);
      const slept = sleeper.feed.idle(LONG);
      const [pid] = await locks(world);
      await sleeper.feed.close();
      await slept;
      expect(await locks(world)).toEqual([]);
      const session = () => world.value('SELECT count(*)::int FROM pg_stat_activity WHERE pid = $1', [pid]);
      await expect.poll(session).toBe(0);
      expect(pool.totalCount).toBe(pool.idleCount);
      await pool.end();
    }));

  it('affects neither the plain contract nor publishing once', () =>
    play(async (world) => {
      const pool = new pg.Pool({ connectionString: url, max: 3 });
      const store = new PostgresStore(pool, { schema: world.names.schema });
      const listening = () =>
        world.value(`SELECT count(*)::int FROM pg_stat_activity WHERE query LIKE '%LISTEN ' || $1`, [
          keysOf(world).channel,
        ]);
      await world.add('k:1', 'k:2');
      const [first] = await store.messages(1);
      await store.published(first!);
      await store.close();
      const published: string[] = [];
      const publisher = { publish: ({ id }: { id: string }) => Promise.resolve(void published.push(id)) };
      expect(await new Messenger(store, publisher).publish()).toBe(1);
      expect(published).toEqual(['k:2']);
      expect(await listening()).toBe(0);
      expect(await locks(world)).toEqual([]);
      await pool.end();
    }));

  it.each([
    ['listening', {}],
    ['polling', { listen: false, notify: false }],
  ] as const)('publishes everything, %s', (how, options) =>
    inWorld(
      async (world) => {
        const stop = new AbortController();
        const errors: Error[] = [];
        const published: string[] = [];
        const publisher = { publish: ({ id }: { id: string }) => Promise.resolve(void published.push(id)) };
        const relay = new Messenger(world.another(), publisher, {
          interval: how === 'listening' ? LONG : 20,
          errorLogger: { error: (error) => errors.push(error) },
        }).start({ signal: stop.signal });
        const ids = Array.from({ length: 10 }, (_, n) => `k:${String(n)}`);
        for (const [n, id] of ids.entries()) {
          if (how === 'listening' && n % 3 === 0) await expect.poll(() => locks(world)).toHaveLength(8);
          await world.add(id);
          await expect.poll(() => published).toEqual(ids.slice(0, n + 1));
        }
        stop.abort();
        await relay;
        expect(errors).toEqual([]);
        expect(await locks(world)).toEqual([]);
      },
      url,
      {},
      options,
    ),
  );

  it('is woken in its own process without a notification when a transaction of `pg` has ended', () =>
    inWorld(
      async (world) => {
        const sleeper = await openSleeper(world);
        const slept = sleeper.feed.idle(LONG);
        await world.add('k:1');
        await slept;
        expect(await idsOf(sleeper)).toEqual(['k:1']);
        // And of anything else when it is told.
        const told = sleeper.feed.idle(LONG);
        world.store.wake();
        await told;
        await sleeper.feed.close();
      },
      url,
      {},
      { listen: false, notify: false },
    ));

  it('does not poll again for messages that it read before their commit was reported, or since', () =>
    inWorld(async (world) => {
      // However long the test takes: a relay remembers what it has read only for a while.
      vi.useFakeTimers({ toFake: ['performance'] });
      onTestFinished(() => void vi.useRealTimers());
      const tell: (() => void)[] = [];
      const bridge: TransactionBridge<Session> = {
        handleName: 'a session of the test',
        isHandle: (handle) => handle instanceof Session,
        execute: (session, text, values) => session.query(text, [...values]),
        onCommit: (_, callback) => tell.push(callback),
      };
      const store = new PostgresStore(world.pool, { schema: world.names.schema, bridge, listen: false, notify: false });
      const sleeper = await openSleeper(world, store);
      const writer = await world.session();
      /** Commits messages one by one, without reporting the commits yet. */
      const commit = async (...ids: string[]) => {
        for (const id of ids) {
          await writer.query('BEGIN');
          await store.add(writer, newMessage('x', { id }));
          await writer.commit();
        }
      };
      const tellOne = () => tell.shift()?.();
      let isAwake = true;
      const sleep = () => {
        isAwake = false;
        return sleeper.feed.idle(LONG).then(() => (isAwake = true));
      };

      // Its writers do report: this one first.
      let slept = sleep();
      await commit('1', '2', '3');
      tellOne();
      await slept;
      expect(await idsOf(sleeper)).toEqual(['1', '2', '3']);
      slept = sleep();
      tellOne();
      tellOne();
      await commit('4', '5');
      expect(isAwake).toBe(false);
      tellOne();
      await slept;
      // While it looks.
      tellOne();
      expect(await idsOf(sleeper)).toEqual(['4', '5']);
      slept = sleep();
      await commit('6');
      expect(isAwake).toBe(false);
      // Nobody says for which messages.
      store.wake();
      await slept;
      expect(await idsOf(sleeper)).toEqual(['6']);
      // Another message may have the id of one that was read long ago, and never reported.
      tell.shift();
      slept = sleep();
      vi.advanceTimersByTime(100);
      await commit('6');
      expect(isAwake).toBe(false);
      tellOne();
      await slept;
      expect(await idsOf(sleeper)).toEqual(['6']);
      await sleeper.feed.close();
    }, url));

  it('is woken by a transaction that stores again and again, once that has ended', () =>
    inWorld(async (world) => {
      const store = new PostgresStore(world.pool, { schema: world.names.schema, listen: false, notify: false });
      const sleeper = await openSleeper(world, store);
      const writer = await world.session();
      const told = vi.spyOn(Waker.prototype, 'told');
      onTestFinished(() => {
        told.mockRestore();
      });
      const slept = sleeper.feed.idle(LONG);
      await writer.query('BEGIN');
      const ids = Array.from({ length: 250 }, (_, n) => String(n));
      for (const id of ids) await store.add(writer.client, newMessage('x', { id }));
      await writer.commit();
      await slept;
      // Not once for each, because a writer of half a million messages would keep as many callbacks until the end.
      expect(told.mock.calls).toHaveLength(101);
      const read: string[] = [];
      while (read.length < ids.length) read.push(...(await idsOf(sleeper)));
      expect(read).toEqual(ids);
      await sleeper.feed.close();
    }, url));

  it('polls by itself after at most 2 ms while the writers of its process report their commits', () =>
    inWorld(
      async (world) => {
        // Time stands still, except for the database.
        vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
        try {
          const sleeper = await openSleeper(world);
          const polls = () => world.gate.counts.get('read') ?? 0;
          const elsewhere = await world.session();
          const addElsewhere = async (id: string) => {
            await elsewhere.query('BEGIN');
            await world.another().add(elsewhere.client, newMessage('x', { id }));
            await elsewhere.commit();
          };
          /** The next page. The relay polls for it only once this has happened, and then without any more time. */
          const readOnce = async (happens?: () => unknown) => {
            const before = polls();
            const reading = idsOf(sleeper);
            if (happens) {
              for (let i = 0; i < 20; i++) await world.sql('SELECT 1');
              expect(polls()).toBe(before);
              await happens();
            }
            for (let i = 0; i < 5_000 && polls() === before; i++) await world.sql('SELECT 1');
            expect(polls()).toBe(before + 1);
            return reading;
          };
          const slept = sleeper.feed.idle(LONG);
          await world.add('told:1');
          await slept;
          expect(await idsOf(sleeper)).toEqual(['told:1']);
          expect(await readOnce(() => world.add('told:2'))).toEqual(['told:2']);
          await addElsewhere('untold:1');
          expect(await readOnce(() => vi.advanceTimersByTime(2))).toEqual(['untold:1']);
          // They have reported nothing for a while.
          await addElsewhere('untold:2');
          vi.advanceTimersByTime(100);
          expect(await readOnce()).toEqual(['untold:2']);
          await sleeper.feed.close();
        } finally {
          vi.useRealTimers();
        }
      },
      url,
      {},
      { listen: false, notify: false },
    ));
});

describe('a sleeping relay on PGlite', () => {
  it('is woken by every transaction that stores', async () => {
    const db = await PGlite.create();
    const store = new PostgresStore(db);
    await store.migrate();
    const feed = await store.openFeed({ destination: 'default', pageSize: 10 });
    expect((await feed!.read()).messages).toEqual([]);
    const slept = feed!.idle(LONG).then(() => feed!.read());
    await db.transaction(async (transaction) => {
      await store.add(transaction, newMessage('one'));
      await transaction.query('SELECT 1');
    });
    expect((await slept).messages).toHaveLength(1);
    await feed!.close();
    await db.close();
  });
});

describe('the options for waking', () => {
  it('are refused if they are wrong', () => {
    const pool = new pg.Pool();
    const code = 'INVALID_OPTION';
    for (const options of [{ notify: 1 }, { listen: true }, { listen: 'postgres://x' }, { listen: new pg.Client() }]) {
      const [name] = Object.keys(options);
      expect(() => new PostgresStore(pool, options as never)).toThrow(
        expect.objectContaining({ code, message: expect.stringContaining(name!) as string }) as Error,
      );
    }
  });
});

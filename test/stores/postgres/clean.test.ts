import pg from 'pg';
import { afterEach, beforeAll, beforeEach, describe, expect, inject, it, onTestFinished } from 'vitest';
import { hasCode } from '../../../src/core/errors.js';
import { newMessage } from '../../../src/core/contracts/message.js';
import { defineOutbox, type MessengerEvent } from '../../../src/index.js';
import { Messenger } from '../../../src/core/relay/messenger.js';
import { isAbort } from '../../../src/core/util/async.js';
import { PostgresStore } from '../../../src/stores/postgres/index.js';
import { outermostVersions } from '../../support/embedded-postgres.js';

const HOUR = 3_600_000;
/** Older than the tables' retention, a day. */
const OLD = 48 * HOUR;

describe.each(outermostVersions)('cleaning on PostgreSQL %i', (version) => {
  const url = inject('postgres')[version];
  const schema = 'clean_test';
  let pool: pg.Pool;
  let store: PostgresStore;

  beforeAll(async () => {
    const admin = new pg.Client(url);
    await admin.connect();
    await admin.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`);
    await admin.end();
  });
  beforeEach(async () => {
    pool = new pg.Pool({ connectionString: url, max: 6 });
    store = new PostgresStore(pool, { schema });
    await store.migrate();
    await pool.query(
      ['messages', 'parked', 'cursors', 'claims', 'destinations']
        .map((name) => `TRUNCATE ${schema}.${name}`)
        .join('; '),
    );
  });
  afterEach(async () => {
    await store.close();
    await pool.end();
  });

  it('cleans by default after the retention of the tables, whatever it is', async () => {
    expect(await store.retention()).toBe(24 * HOUR);
    const errors: Error[] = [];
    const events: MessengerEvent[] = [];
    const outbox = defineOutbox({ store, topics: {} });
    const relay = await outbox.relay({
      publisher: () => Promise.resolve(),
      errorLogger: { error: (error) => void errors.push(error) },
      onEvent: (event) => void events.push(event),
    });
    await expect.poll(() => events.some(({ type }) => type === 'cleaned')).toBe(true);
    await relay.stop();
    // Through a pooler the relay cannot be woken, and says so.
    expect(errors.filter((error) => !hasCode(error, 'WAKE_FAILED'))).toEqual([]);
  });

  /** Puts messages into a slice. They are two hours old, or have the given age in milliseconds. */
  async function put(
    slice: number,
    ids: readonly string[],
    age = 2 * HOUR,
    via: pg.Pool | pg.ClientBase = pool,
  ): Promise<void> {
    await via.query(
      `INSERT INTO ${schema}.messages (slice, stored_at, id, key, payload)
         SELECT $1::smallint, clock_timestamp() - $2 * interval '1 ms', id, id, 'x' FROM unnest($3::text[]) AS id`,
      [slice, age, ids],
    );
  }

  /** The ids in the log, as slice:id. */
  async function log(): Promise<string[]> {
    const { rows } = await pool.query<{ place: string }>(
      `SELECT slice || ':' || id AS place FROM ${schema}.messages ORDER BY slice, seq`,
    );
    return rows.map(({ place }) => place);
  }

  /** Publishes everything at the default destination, except these messages. */
  async function publish(...except: readonly string[]): Promise<void> {
    const listed = await store.messages(1_000);
    await store.published(...listed.filter(({ id }) => !except.includes(id)));
  }

  async function relayAll(destination: string): Promise<string[]> {
    const feed = await store.openFeed({ destination, pageSize: 2 });
    const ids: string[] = [];
    for (;;) {
      const page = await feed!.read();
      if (page.messages.length === 0) break;
      ids.push(...page.messages.map(({ id }) => id));
      await feed!.settle(page, []);
    }
    await feed!.close();
    return ids;
  }

  async function other(): Promise<pg.Client> {
    const client = new pg.Client(url);
    await client.connect();
    onTestFinished(() => client.end());
    return client;
  }

  it('empties only slices in which every message is published and has expired', async () => {
    await put(1, ['a', 'b']);
    await put(2, ['c', 'young'], 0);
    await put(3, ['d']);
    await put(4, ['old']);
    await put(4, ['new'], HOUR / 2);
    await put(5, ['last']);
    await publish('last');
    await store.deletePublishedByExpiration(HOUR);
    expect(await log()).toEqual(['2:c', '2:young', '4:old', '4:new', '5:last']);
    await store.deletePublishedByExpiration(0);
    expect(await log()).toEqual(['5:last']);
    await publish();
    await store.deletePublishedByExpiration(0);
    expect(await log()).toEqual([]);
  });

  it('empties nothing if no relay has ever run', async () => {
    await put(1, ['a']);
    await store.deletePublishedByExpiration(0);
    expect(await log()).toEqual(['1:a']);
  });

  it('empties nothing of a destination whose cursor another cluster wrote', async () => {
    await put(1, ['a'], OLD);
    await publish();
    await store.close();
    // As after a dump was restored: the row is new, but says that another transaction wrote it.
    await pool.query(`UPDATE ${schema}.cursors SET low = low WHERE partition = 3`);
    const kept = [{ slice: 'messages_1', reason: 'unfinished', destination: 'default' }];
    expect(await store.deletePublishedByExpiration(0)).toMatchObject({ emptied: 0, kept });
    await put(1, ['b'], OLD);
    expect(await store.deletePublishedByExpiration(0)).toMatchObject({ emptied: 0, moved: 0, kept });
    expect(await log()).toEqual(['1:a', '1:b']);
    await expect(store.messages(1)).rejects.toMatchObject({ code: 'SCHEMA_MISMATCH' });
  });

  it('keeps parked messages complete when their slice is emptied', async () => {
    await put(1, ['a', 'b', 'c']);
    await publish('a', 'b');
    await store.deletePublishedByExpiration(0);
    expect(await log()).toEqual([]);
    const left = await store.messages(10);
    expect(left.map(({ id, key, payload }) => [id, key, Buffer.from(payload).toString()])).toEqual([
      ['a', 'a', 'x'],
      ['b', 'b', 'x'],
    ]);
  });

  it('keeps a slice with a message in an open window', async () => {
    await put(1, ['a', 'b', 'c']);
    await put(2, ['d']);
    const feed = await store.openFeed({ destination: 'default', pageSize: 2 });
    const page = await feed!.read();
    await feed!.read();
    await feed!.settle(page, []);
    await store.deletePublishedByExpiration(0);
    expect(await log()).toEqual(['1:a', '1:b', '1:c', '2:d']);
    await feed!.close();
    expect(await relayAll('default')).toEqual(['c', 'd']);
    await store.deletePublishedByExpiration(0);
    expect(await log()).toEqual([]);
  });

  it('keeps messages that another destination has not finished, even in a single partition', async () => {
    await put(1, ['a', 'b', 'c', 'd']);
    await publish();
    const second = await store.openFeed({ destination: 'second', pageSize: 1 });
    await second!.close();
    await store.deletePublishedByExpiration(0);
    expect(await log()).toEqual(['1:a', '1:b', '1:c', '1:d']);
    expect(await relayAll('second')).toEqual(['a', 'b', 'c', 'd']);
    // One partition of eight is put back to the beginning, so its messages keep the slice.
    await pool.query(
      `UPDATE ${schema}.cursors SET from_snapshot = '1:1:', to_snapshot = NULL, written_by = pg_current_xact_id()
         WHERE destination = 'second' AND partition = (SELECT key_hash % 8 FROM ${schema}.messages WHERE id = 'c')`,
    );
    await store.deletePublishedByExpiration(0);
    expect(await log()).toHaveLength(4);
    await pool.query(`DELETE FROM ${schema}.cursors WHERE destination = 'second'`);
    await store.deletePublishedByExpiration(0);
    expect(await log()).toEqual([]);
  });

  it('skips a slice with an open writer at once, makes nobody wait, and loses nothing', async () => {
    await put(1, ['a']);
    await put(2, ['b']);
    await publish();
    const writer = await other();
    await writer.query('BEGIN');
    await put(1, ['late'], 2 * HOUR, writer);
    const started = performance.now();
    const cleaning = store.deletePublishedByExpiration(0);
    // Writers and readers of the slice continue while it is looked at.
    await put(1, ['meanwhile'], 0);
    await cleaning;
    expect(performance.now() - started).toBeLessThan(5_000);
    expect(await log()).toEqual(['1:a', '1:meanwhile']);
    await writer.query('COMMIT');
    await store.deletePublishedByExpiration(0);
    expect(await log()).toEqual(['1:a', '1:late', '1:meanwhile']);
    const left = await store.messages(10);
    expect(left.map(({ id }) => id).sort()).toEqual(['late', 'meanwhile']);
  });

  it('skips a slice that a reader such as pg_dump holds, and never waits in its queue', async () => {
    await put(1, ['a']);
    await publish();
    const reader = await other();
    await reader.query(`BEGIN; SELECT FROM ${schema}.messages_1`);
    const started = performance.now();
    await store.deletePublishedByExpiration(0);
    expect(performance.now() - started).toBeLessThan(5_000);
    const { rows } = await pool.query(
      `SELECT mode FROM pg_locks WHERE relation = '${schema}.messages_1'::regclass AND mode = 'AccessExclusiveLock'`,
    );
    expect(rows).toEqual([]);
    await reader.query('COMMIT');
    await store.deletePublishedByExpiration(0);
    expect(await log()).toEqual([]);
  });

  it.each(['before the lock', 'while the lock is held by nobody yet, uncommitted'])(
    'loses no message of a transaction that began earlier and stores into an old slice %s',
    async (when) => {
      await put(1, ['a']);
      await put(2, ['b']);
      const early = await other();
      await early.query('BEGIN; SELECT pg_current_xact_id()');
      await publish();
      /** Runs between the first look at a slice, which finds it finished, and the lock. */
      let between: (() => Promise<unknown>) | undefined = async () => {
        await put(1, ['early'], 2 * HOUR, early);
        if (when === 'before the lock') await early.query('COMMIT');
      };
      const hooked = new PostgresStore(new HookedPool({ connectionString: url, max: 2 }), { schema });
      HookedPool.before = async (text) => {
        if (!text.startsWith('LOCK TABLE') || between === undefined) return;
        const run = between;
        between = undefined;
        await run();
      };
      await hooked.deletePublishedByExpiration(0);
      expect(between).toBeUndefined();
      if (when !== 'before the lock') await early.query('COMMIT');
      expect(await log()).toEqual(['1:a', '1:early']);
      const left = await store.messages(10);
      expect(left.map(({ id }) => id)).toEqual(['early']);
      await store.published(...left);
      await store.deletePublishedByExpiration(0);
      expect(await log()).toEqual([]);
    },
  );

  it('refuses an expiration that is longer than the retention of the tables', async () => {
    const small = new PostgresStore(pool, { schema: 'clean_small', retention: 60_000 });
    await pool.query('DROP SCHEMA IF EXISTS clean_small CASCADE');
    await small.migrate();
    await small.deletePublishedByExpiration(60_000);
    await expect(small.deletePublishedByExpiration(60_001)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringMatching(/60001 ms is longer than the 60000 ms.*retention/) as string,
    });
  });

  it('reports what it emptied, and why it kept the rest', async () => {
    await put(0, ['a', 'b', 'c']);
    await put(1, ['old', 'young'], HOUR / 2);
    await put(2, ['d']);
    await put(3, ['e']);
    await put(4, ['f', 'g']);
    expect(await store.deletePublishedByExpiration(HOUR)).toEqual({
      emptied: 0,
      rows: 0,
      moved: 0,
      kept: [0, 1, 2, 3, 4].map((n) => ({ slice: `messages_${n}`, reason: n === 1 ? 'not expired' : 'unfinished' })),
    });
    await publish();
    await put(3, ['later']);
    const reader = await other();
    await reader.query(`BEGIN; SELECT FROM ${schema}.messages_2`);
    expect(await store.deletePublishedByExpiration(HOUR)).toEqual({
      emptied: 2,
      rows: 5,
      moved: 0,
      kept: [
        { slice: 'messages_1', reason: 'not expired' },
        { slice: 'messages_2', reason: 'in use' },
        { slice: 'messages_3', reason: 'unfinished', destination: 'default' },
      ],
    });
  });

  describe('stragglers', () => {
    /** A destination that was relayed up to now, and whose relay has gone. */
    async function gone(destination: string): Promise<void> {
      await relayAll(destination);
    }

    const parked = async (): Promise<string[]> => {
      const { rows } = await pool.query<{ place: string }>(
        `SELECT concat(destination, ':', id, ' ', reason) AS place FROM ${schema}.parked ORDER BY destination, seq`,
      );
      return rows.map(({ place }) => place);
    };

    it('of an old slice move to the side tables of their destinations, and are delivered from there in order', async () => {
      await gone('first');
      await gone('second');
      await pool.query(
        `INSERT INTO ${schema}.messages (slice, stored_at, id, topic, key, metadata, payload)
           SELECT 1, clock_timestamp() - interval '2 days', 'k' || n, 't', 'k', '{"a":"b"}', 'x' FROM generate_series(1, 3) n`,
      );
      await put(1, ['alone'], OLD);
      await put(2, ['young']);
      await relayAll('second');
      expect(await store.deletePublishedByExpiration(HOUR)).toEqual({
        emptied: 1,
        rows: 4,
        moved: 4,
        kept: [{ slice: 'messages_2', reason: 'unfinished', destination: 'first' }],
      });
      expect(await log()).toEqual(['2:young']);
      expect(await parked()).toEqual(['k1', 'k2', 'k3', 'alone'].map((id) => `first:${id} straggler`));
      await pool.query(`INSERT INTO ${schema}.messages (id, key, payload) VALUES ('k4', 'k', 'x')`);
      const feed = await store.openFeed({ destination: 'first', pageSize: 10 });
      expect(feed!.isParked('k')).toBe(true);
      const retries = await feed!.retries();
      expect(retries.messages.map(({ id }) => id)).toEqual(['k1', 'k2', 'k3', 'alone']);
      expect(retries.messages[0]).toMatchObject({ topic: 't', key: 'k', metadata: { a: 'b' } });
      await feed!.settle(retries, []);
      expect((await feed!.read()).messages.map(({ id }) => id)).toEqual(['young', 'k4']);
      await feed!.close();
      expect(await relayAll('second')).toEqual(['k4']);
    });

    it.each([
      ['a relay holds them', OLD, 1, true],
      ['they are younger than the retention', 20 * HOUR, 1, false],
      ['there are more than a thousand', OLD, 1_001, false],
    ])('stay where they are when %s', async (_, age, count, held) => {
      await gone('default');
      const ids = Array.from({ length: count }, (_, n) => `m${n}`);
      await put(1, ids, age);
      const feed = held ? await store.openFeed({ destination: 'default', pageSize: 10 }) : null;
      expect(await store.deletePublishedByExpiration(HOUR)).toEqual({
        emptied: 0,
        rows: 0,
        moved: 0,
        kept: [{ slice: 'messages_1', reason: 'unfinished', destination: 'default' }],
      });
      expect(await log()).toHaveLength(count);
      expect(await parked()).toEqual([]);
      await feed?.close();
      expect(await relayAll('default')).toEqual(ids);
    });

    it('a thousand move at once', async () => {
      await gone('default');
      const ids = Array.from({ length: 1_000 }, (_, n) => `m${n}`);
      await put(1, ids, OLD);
      expect(await store.deletePublishedByExpiration(HOUR)).toMatchObject({ emptied: 1, moved: 1_000, kept: [] });
      expect(await parked()).toHaveLength(1_000);
    });

    it('that were partly read in an open window move from there on', async () => {
      await put(1, ['a', 'b', 'c', 'd'], OLD);
      const feed = await store.openFeed({ destination: 'default', pageSize: 2 });
      const page = await feed!.read();
      await feed!.settle(page, [{ message: page.messages[1]!, attempts: 1, error: new Error('no'), dead: true }]);
      await feed!.close();
      expect(await store.deletePublishedByExpiration(HOUR)).toMatchObject({ emptied: 1, moved: 2 });
      expect((await parked()).map((each) => each.slice(8, 9))).toEqual(['b', 'c', 'd']);
      expect((await store.messages(10)).map(({ id }) => id)).toEqual(['c', 'd']);
    });

    it('that the destination does not publish do not move, and do not keep a slice', async () => {
      await gone('default');
      await pool.query(`INSERT INTO ${schema}.destinations (name, topics) VALUES ('default', '{wanted}')`);
      await pool.query(
        `INSERT INTO ${schema}.messages (slice, stored_at, id, topic, payload)
           SELECT 1, clock_timestamp() - interval '2 days', topic, topic, 'x' FROM unnest('{wanted,other}'::text[]) topic`,
      );
      await put(1, ['none'], OLD);
      expect(await store.deletePublishedByExpiration(HOUR)).toMatchObject({ emptied: 1, moved: 1, kept: [] });
      expect(await parked()).toEqual(['default:wanted straggler']);
    });

    it('that are delivered later wait for their time', async () => {
      await gone('default');
      await pool.query(
        `INSERT INTO ${schema}.messages (slice, stored_at, id, key, payload, deliver_at, hold_key)
           SELECT 1, clock_timestamp() - interval '2 days', id, key, 'x', clock_timestamp() + at * interval '1 hour', hold
             FROM (VALUES ('a1', 'a', 1, false), ('a2', 'a', NULL, false), ('b1', 'b', 1, true), ('b2', 'b', NULL, false), ('c', NULL, -1, false)) v (id, key, at, hold)`,
      );
      expect(await store.deletePublishedByExpiration(HOUR)).toMatchObject({ emptied: 1, moved: 5 });
      const feed = await store.openFeed({ destination: 'default', pageSize: 10 });
      expect((await feed!.retries()).messages.map(({ id }) => id)).toEqual(['a2', 'c']);
      expect(['a', 'b'].map((key) => feed!.isParked(key))).toEqual([true, true]);
      // Nor do these count towards maxParked, but a2, b2 and c do.
      expect(feed!.waiting(undefined)).toBe(3);
      await feed!.close();
    });

    it('wait for nobody, and leave a row that a relay is changing for the next time', async () => {
      await gone('default');
      await put(1, ['a'], OLD);
      const claiming = await other();
      await claiming.query(`BEGIN; SELECT FROM ${schema}.cursors FOR UPDATE`);
      expect(await store.deletePublishedByExpiration(HOUR)).toMatchObject({
        emptied: 0,
        kept: [{ slice: 'messages_1', reason: 'in use' }],
      });
      await claiming.query('COMMIT');
      expect(await store.deletePublishedByExpiration(HOUR)).toMatchObject({ emptied: 1, moved: 1 });
    });
  });

  it('empties the other slices if one fails, and then throws its error', async () => {
    await put(2, ['done']);
    await relayAll('default');
    // As an older version stored it: no index takes this key, so it cannot move to the side table.
    await pool.query(`ALTER TABLE ${schema}.messages DROP CONSTRAINT key_at_most_2000_bytes`);
    await pool.query(
      `INSERT INTO ${schema}.messages (slice, stored_at, id, key, payload)
         SELECT 1, clock_timestamp() - interval '2 days', 'long', string_agg(md5(n::text), ''), 'x' FROM generate_series(1, 128) n`,
    );
    await put(3, ['straggler'], OLD);
    const cleaning = store.deletePublishedByExpiration(HOUR);
    await expect(cleaning).rejects.toMatchObject({
      code: 'CLEANING_FAILED',
      message: expect.stringMatching(/^cleaning did not finish: .*index row size/) as string,
      cause: expect.objectContaining({ code: '54000' }) as unknown,
      report: { emptied: 2, rows: 2, moved: 1, kept: [] },
    });
    expect(await log()).toEqual(['1:long']);
    expect((await store.messages(10)).map(({ id }) => id)).toEqual(['straggler', 'long']);
  });

  it('stops when its signal is aborted', async () => {
    await put(1, ['a']);
    await publish();
    await expect(store.deletePublishedByExpiration(0, { signal: AbortSignal.abort() })).rejects.toThrow();
    expect(await log()).toEqual(['1:a']);
  });

  it('that is stopped reports why it was stopped, and what was done', async () => {
    await put(1, ['a']);
    await put(2, ['b']);
    await publish();
    const stop = new AbortController();
    const reason = new Error('enough');
    const hooked = new PostgresStore(new HookedPool({ connectionString: url, max: 2 }), { schema });
    let emptied = 0;
    HookedPool.before = (text) => {
      if (text.startsWith('TRUNCATE') && ++emptied === 2) stop.abort(reason);
      return Promise.resolve();
    };
    const told: unknown[] = [];
    const messenger = new Messenger(
      hooked,
      { publish: () => Promise.resolve() },
      {
        cleanUp: 0,
        onEvent: (event) => void told.push(event),
      },
    );
    const report = { emptied: 1, rows: 1, moved: 0, kept: [] };
    const error = await messenger.clean({ signal: stop.signal }).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'CLEANING_FAILED', report });
    expect(isAbort(error, stop.signal)).toBe(true);
    expect(told).toEqual([expect.objectContaining({ type: 'cleaned', report, error })]);
    // It has not done anything yet, so there is nothing to report.
    await expect(messenger.clean({ signal: stop.signal })).rejects.toThrow();
    expect(told).toHaveLength(1);
    await hooked.close();
  });

  it('updates and deletes no row of the log, whatever happens to its messages', async () => {
    const own = 'clean_stats';
    await pool.query(`DROP SCHEMA IF EXISTS ${own} CASCADE`);
    const workers = new pg.Pool({ connectionString: url, max: 3 });
    const target = new PostgresStore(workers, { schema: own });
    await target.migrate();
    const client = await workers.connect();
    for (let round = 0; round < 3; round++) {
      await client.query('BEGIN');
      await target.add(
        client,
        Array.from({ length: 40 }, (_, i) => newMessage('x', { key: `k${String(i % 3)}` })),
      );
      await client.query('COMMIT');
      const listed = await target.messages(30);
      await target.published(...listed.filter((_, i) => i % 2 === 1));
      await target.close();
      const feed = await target.openFeed({ destination: 'default', pageSize: 20 });
      const page = await feed!.read();
      await feed!.settle(page, [{ message: page.messages[0]!, attempts: 1, error: new Error('no'), dead: true }]);
      const retries = await feed!.retries();
      await feed!.settle(retries, [
        { message: retries.messages[0]!, attempts: 1, error: new Error('no'), dead: false, retryIn: 1 },
      ]);
      await feed!.close();
      await target.deletePublishedByExpiration(0);
    }
    for (;;) {
      const listed = await target.messages(100);
      if (listed.length === 0) break;
      await target.published(...listed);
    }
    await target.deletePublishedByExpiration(0);
    await target.close();
    client.release();
    // A connection reports its statistics when it ends.
    await workers.end();
    const changes = async () => {
      const { rows } = await pool.query<{ inserted: string; changed: string; kept: string }>(
        `SELECT sum(n_tup_ins) AS inserted, sum(n_tup_upd + n_tup_del) AS changed, (SELECT count(*) FROM ${own}.messages) AS kept
           FROM pg_stat_all_tables WHERE schemaname = '${own}' AND relname ~ '^messages_[0-7]$'`,
      );
      return rows[0];
    };
    await expect.poll(changes, { timeout: 20_000 }).toEqual({ inserted: '120', changed: '0', kept: '0' });
  });
});

/** A pool whose connections run a hook before each statement. */
class HookedPool extends pg.Pool {
  static before: (text: string) => Promise<void>;

  override connect(): Promise<pg.PoolClient>;
  override connect(
    callback: (error: Error | undefined, client: pg.PoolClient | undefined, done: () => void) => void,
  ): void;
  override connect(callback?: unknown): Promise<pg.PoolClient> | undefined {
    if (callback !== undefined) throw new Error('not used');
    return super.connect().then((client) => {
      const query = client.query.bind(client) as (statement: unknown) => Promise<unknown>;
      const hooked = async (statement: string | { text: string }): Promise<unknown> => {
        await HookedPool.before(typeof statement === 'string' ? statement : statement.text);
        return query(statement);
      };
      return new Proxy(client, {
        get: (from, name) => (name === 'query' ? hooked : (Reflect.get(from, name, from) as unknown)),
      });
    });
  }
}

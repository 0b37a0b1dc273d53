/** A replica takes the place of a PostgreSQL that is gone: relays go on, and nothing that exists is lost. */
import pg from 'pg';
import { expect, it } from 'vitest';
import { FatalError, Messenger } from '../../src/index.js';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { outermostVersions } from '../support/embedded-postgres.js';
import { Outbox as Steps } from '../stores/postgres/moved-support.js';
import { Pair } from './pair.js';
import { eventually, GRACEFUL, NOTHING, Outbox, PAGE, report } from './support.js';

it.each(outermostVersions)('goes on when a replica of PostgreSQL %i is promoted, and not before', async (version) => {
  await Pair.run(version, async (pair) => {
    await Outbox.run(pair.primary.url(), {}, async (outbox) => {
      const { broker } = outbox;
      broker.latency = () => 3;
      // What is committed is on the replica.
      await outbox.sql(`ALTER SYSTEM SET synchronous_standby_names = '*'`);
      await outbox.sql('SELECT pg_reload_conf()');
      const relay = outbox.relay('relay');
      outbox.startWriting();
      await eventually('it works', () => broker.count > 5 * PAGE);

      const pool = new pg.Pool({ connectionString: pair.standby.url(), max: 2 });
      pool.on('error', () => {});
      const early = new Messenger(new PostgresStore(pool), { publish: () => Promise.reject(new Error('published')) });
      const refusal = await early.start().catch((error: unknown) => error);
      expect(refusal).toBeInstanceOf(FatalError);
      expect(refusal).toMatchObject({
        cause: { code: 'UNSUPPORTED', message: expect.stringContaining('standby') as string },
      });
      await pool.end();

      const before = broker.count;
      await pair.replace();
      await eventually('the relay asks the replica', () => relay.events.some(({ code }) => code === 'UNSUPPORTED'));
      await pair.promote();
      await eventually('it works again', () => broker.count > before + 5 * PAGE);
      await outbox.stopWriting();
      await outbox.drained();
      expect(await relay.ended('SIGTERM')).toEqual(GRACEFUL);
      expect(await outbox.wrong()).toEqual(NOTHING);
      report(`${broker.count} messages, 1 failover: repeated ${broker.duplicates().length}`);
    });
  });
});

it('loses nothing that exists when the promoted replica never saw what had been published', async () => {
  await Pair.run(17, async (pair) => {
    await Outbox.run(pair.primary.url(), {}, async (outbox) => {
      const { broker } = outbox;
      broker.latency = () => 3;
      const relay = outbox.relay('relay');
      outbox.startWriting();
      await eventually('it works', () => broker.count > 5 * PAGE);
      await pair.caughtUp();
      await pair.standby.stop();
      const alone = performance.now();
      const publishedSince = () => broker.firsts().filter((id) => outbox.commitSentAt.get(id)! > alone).length;
      await eventually('it goes on alone', () => publishedSince() > 10 * PAGE);
      const ahead = await pair.counters();
      await pair.replace();
      const back = await pair.counters();
      expect(back.xid).toBeLessThan(ahead.xid);
      expect(back.seq).toBeLessThan(ahead.seq);
      await pair.promote();
      const before = broker.count;
      await eventually('it works again', () => broker.count > before + 10 * PAGE);
      await outbox.stopWriting();
      await outbox.drained();
      expect(await relay.ended('SIGTERM')).toEqual(GRACEFUL);
      // What was published and never came to the replica is nowhere but at the broker.
      const { phantom, ...rest } = await outbox.wrong();
      expect({ ...rest, phantom: [] }).toEqual(NOTHING);
      expect(phantom.length).toBeGreaterThan(0);
      report(`${broker.count} messages; xids back by ${ahead.xid - back.xid}, seq by ${ahead.seq - back.seq}`);
    });
  });
});

it('claims anew after a promotion that the pooler hid: what was read before means nothing there', async () => {
  await Pair.run(17, async (pair) => {
    const outbox = await Steps.at(pair.primary.url());
    await outbox.add('a:1', 'b:1');
    const feed = await outbox.store.openFeed({ destination: 'default', pageSize: 10 });
    await feed!.settle(await feed!.read(), []);
    await pair.caughtUp();
    await pair.standby.stop();
    // The tail that gets lost: the transaction ids and numbers of these are handed out again.
    for (let n = 0; n < 20; n++) await outbox.add(`lost:${n}`);
    const page = await feed!.read();
    expect(page.messages.length).toBeGreaterThan(0);
    await pair.replace();
    await pair.promote();
    // The pool connects anew, which no error has told the feed.
    await eventually('the pool answers', () => outbox.value('SELECT 1').then(Boolean, () => false));
    expect(await outbox.value('SELECT count(*)::int FROM messenger.claims')).toBe(0);
    const kept = Array.from({ length: 10 }, (_, n) => `kept:${String(n)}`);
    for (const id of kept) await outbox.add(id);
    await expect(feed!.settle(page, [])).rejects.toMatchObject({ code: 'LEASE_LOST' });
    await feed!.close();
    await outbox.pool.query(`UPDATE messenger.cursors SET expires_at = '-infinity', written_by = pg_current_xact_id()`);
    expect(await outbox.relay()).toEqual(kept);
    await outbox.close();
  });
});

it.each(outermostVersions)('polls no standby of PostgreSQL %i that its pool leads to later on', async (version) => {
  await Pair.run(version, async (pair) => {
    const outbox = await Steps.at(pair.primary.url());
    const standby = new pg.Pool({ connectionString: pair.standby.url(), max: 2 });
    standby.on('error', () => {});
    // As where a name is resolved anew, or a balancer chooses: the one that answers is another one now.
    let isElsewhere = false;
    const pool = new Proxy(outbox.pool, {
      get(primary, name) {
        const from = isElsewhere ? standby : primary;
        const value = Reflect.get(from, name) as unknown;
        return typeof value === 'function' ? (value.bind(from) as unknown) : value;
      },
    });
    const store = new PostgresStore(pool, { partitions: 3, lease: 600_000 });
    const feed = await store.openFeed({ destination: 'default', pageSize: 10 });
    const ids = async () => {
      const page = await feed!.read();
      await feed!.settle(page, []);
      return page.messages.map(({ id }) => id);
    };
    await outbox.add('a:1');
    expect(await ids()).toEqual(['a:1']);

    // There, this transaction seems to be over, and its message delivered.
    const running = await outbox.begin();
    await outbox.addTo(running, 'b:1');
    await outbox.add('a:2');
    await pair.caughtUp();
    isElsewhere = true;
    await expect(feed!.read()).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('this server is a standby') as string,
    });
    isElsewhere = false;
    expect(await ids()).toEqual(['a:2']);
    await running.query('COMMIT');
    expect(await ids()).toEqual(['b:1']);
    await feed!.close();
    await standby.end();
    await outbox.close();
  });
});

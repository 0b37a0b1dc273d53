/**
 * A PostgreSQL that crashes and comes back, or does not, under relays that work. With `POSTGRES_POOLER=pgbouncer`
 * the relays and the writers reach it through a PgBouncer, which outlives the crash; the test itself does not.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { startPostgres, type EmbeddedPostgres } from '../support/embedded-postgres.js';
import { startPgBouncer } from '../support/pgbouncer.js';
import { Outbox as Steps } from '../stores/postgres/moved-support.js';
import { BOUND, eventually, GRACEFUL, NOTHING, Outbox, PAGE, report, type RelaySettings } from './support.js';
import { Wire } from './wire.js';

/** Runs a test on a server of its own, and tells it where relays and writers find that. */
async function withServer(
  flags: Parameters<typeof startPostgres>[1],
  test: (url: string, server: EmbeddedPostgres) => Promise<void>,
): Promise<void> {
  // The machine does not crash: what the server has written is there.
  const server = await startPostgres(17, { fsync: 'off', ...flags });
  try {
    const pooler = process.env['POSTGRES_POOLER'] === 'pgbouncer' ? await startPgBouncer(server.port) : undefined;
    try {
      await test(pooler?.through(server.url()) ?? server.url(), server);
    } finally {
      await pooler?.remove();
    }
  } finally {
    await server.remove();
  }
}

/** The same on an outbox. */
function onServer(
  settings: RelaySettings,
  test: (outbox: Outbox, server: EmbeddedPostgres) => Promise<void>,
  flags: Parameters<typeof startPostgres>[1] = {},
): Promise<void> {
  return withServer(flags, (url, server) => Outbox.run(url, settings, (outbox) => test(outbox, server)));
}

/** Starts the server again; a pooler says for a while that it is still gone. */
async function startAgain(server: EmbeddedPostgres, select1: () => Promise<unknown>): Promise<void> {
  await server.start();
  await eventually('it answers', () => select1().then(Boolean, () => false));
}

/**
 * Since when what was committed may not be on the disk: PostgreSQL says within three `wal_writer_delay`s, of which
 * a busy machine knows nothing. So it is asked, on and on: a place of the log, and whether it was written since.
 */
async function watchDisk(outbox: Outbox, server: EmbeddedPostgres): Promise<() => Promise<number>> {
  const session = await outbox.session(server.url());
  const placesOf = async () => {
    const { rows } = await session.query<{ added: string; written: string }>(
      `SELECT pg_current_wal_insert_lsn() - '0/0' AS added, pg_current_wal_flush_lsn() - '0/0' AS written`,
    );
    return { added: BigInt(rows[0]!.added), written: BigInt(rows[0]!.written) };
  };
  let written = -Infinity;
  let [since, { added }] = [performance.now(), await placesOf()];
  const watching = (async () => {
    for (;;) {
      await sleep(5);
      const now = performance.now();
      const places = await placesOf();
      if (places.written < added) continue;
      written = since;
      [since, added] = [now, places.added];
    }
  })().catch(() => undefined);
  return async () => {
    await watching;
    return written;
  };
}

it.each(['async', 'sync'] as const)(
  'comes back by itself, having lost nothing, when the server crashes (%s)',
  async (settle) => {
    await onServer({ store: { settle } }, async (outbox, server) => {
      const { broker } = outbox;
      broker.latency = () => 3;
      const relay = outbox.relay('relay');
      outbox.startWriting();
      let onDisk = await watchDisk(outbox, server);
      const crashes: Crash[] = [];
      const crash = async () => {
        const from = broker.count;
        await eventually('it works', () => broker.count > from + 5 * PAGE);
        const at = performance.now();
        await server.stop('immediate');
        crashes.push({ at, settledBy: settle === 'sync' ? at : await onDisk() });
        await startAgain(server, () => outbox.sql('SELECT 1'));
        onDisk = await watchDisk(outbox, server);
      };
      await crash();
      // And while nothing but the relay itself writes, so that nobody else's commits take its own to the disk.
      await outbox.stopWriting();
      await outbox.write(Array.from({ length: 20 * PAGE }, () => undefined));
      await crash();
      await outbox.drained();
      expect(await relay.ended('SIGTERM')).toEqual(GRACEFUL);

      expect(await outbox.wrong()).toEqual(NOTHING);
      // The same process has seen both crashes, and told so.
      expect(relay.events.some(({ event }) => event === 'error')).toBe(true);
      const { repeated, tooOld } = repeatedAfter(outbox, crashes);
      report(`${settle}: ${broker.count} messages, 2 crashes of the server: repeated ${repeated.join(', ')}`);
      // Beyond what is in flight, only what was settled and not on the disk.
      expect(Math.max(...tooOld)).toBeLessThanOrEqual(BOUND);
    });
  },
);

/** A crash, and until when what was settled before it was on the disk. */
interface Crash {
  readonly at: number;
  readonly settledBy: number;
}

/**
 * How much was repeated after each crash; and how much of it had last been published while what is settled was on the
 * disk: it may have been published before an earlier crash, too.
 */
function repeatedAfter({ broker }: Outbox, crashes: readonly Crash[]): { repeated: number[]; tooOld: number[] } {
  const [repeated, tooOld]: [number[], number[]] = [[], []];
  for (const [i, { at, settledBy }] of crashes.entries()) {
    const next = crashes[i + 1]?.at ?? Infinity;
    const last = new Map(broker.acknowledgements.filter((each) => each.at <= at).map((each) => [each.id, each.at]));
    const duplicates = broker.duplicates().filter((each) => each.at > at && each.at < next);
    repeated.push(duplicates.length);
    tooOld.push(duplicates.filter(({ id }) => (last.get(id) ?? at) < settledBy).length);
  }
  return { repeated, tooOld };
}

/** What a relay says when it settles: the statement's name, or its text where it is not prepared. */
const SETTLEMENT = /messenger_settle_|SET from_snapshot/;

/** Locks the rows of the cursors, and resolves when a settlement waits for them: it does until the server is gone. */
async function untilItSettles(outbox: Outbox, server: EmbeddedPostgres): Promise<undefined> {
  const [lock, watch] = [await outbox.session(server.url()), await outbox.session(server.url())];
  const { rows } = await lock.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  for (;;) {
    await lock.query('BEGIN');
    await lock.query('SELECT FROM messenger.cursors FOR UPDATE');
    const waiting: string[] = [];
    await eventually('a relay waits for its rows', async () => {
      const found = await watch.query<{ query: string }>(
        'SELECT query FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))',
        [rows[0]!.pid],
      );
      return waiting.push(...found.rows.map(({ query }) => query)) > 0;
    });
    if (waiting.some((query) => SETTLEMENT.test(query))) return undefined;
    // It renews its lease, before which it settles nothing.
    await lock.query('ROLLBACK');
  }
}

/** Whether so many relays have claimed the same number of partitions, since the last crash: no token is older. */
async function isShared(outbox: Outbox, relays: number): Promise<boolean> {
  const shares = await outbox.sql(`SELECT count(*)::int AS partitions FROM messenger.cursors
    JOIN messenger.claims USING (destination, partition, epoch) GROUP BY owner`);
  return shares.length === relays && shares.every(({ partitions }) => partitions === 8 / relays);
}

/** Nothing goes to the disk by itself: what was committed asynchronously since the last checkpoint is lost in a crash. */
const NOT_BY_ITSELF = { wal_writer_delay: 10_000, wal_writer_flush_after: '1GB' };

it.each([
  ['async', 1],
  ['async', 2],
  ['sync', 2],
] as const)(
  'loses nothing that is left of what asynchronous writers committed, with a settlement in flight (%s, relays: %i)',
  async (settle, count) => {
    const test = async (outbox: Outbox, server: EmbeddedPostgres) => {
      const { broker } = outbox;
      const wire = await Wire.to(outbox.url);
      try {
        broker.latency = () => 3;
        outbox.synchronousCommit = 'off';
        const relays = Array.from({ length: count }, (_, n) =>
          outbox.relay(`relay-${n}`, { url: wire.through(outbox.url) }),
        );
        outbox.startWriting();
        const crashes: Crash[] = [];
        let over = Infinity;
        const publishedSince = (time: number) =>
          broker.firsts().filter((id) => outbox.commitSentAt.get(id)! > time).length;
        const crashOnce = async (inFlight: () => Promise<(() => void) | undefined>) => {
          // From here on nobody claims anything, which would take everything to the disk.
          await eventually('each has its share', () => isShared(outbox, count));
          const from = broker.count;
          await eventually('they work', () => broker.count > from + 5 * PAGE);
          const settledBy = performance.now();
          await outbox.sql('CHECKPOINT');
          const checkpoint = performance.now();
          await eventually('what is not on the disk is published', () => publishedSince(checkpoint) > 2 * PAGE);
          const goesOn = await inFlight();
          const at = performance.now();
          crashes.push({ at, settledBy: settle === 'sync' ? at : settledBy });
          await server.stop('immediate');
          over = performance.now();
          goesOn?.();
          await startAgain(server, () => outbox.sql('SELECT 1'));
          outbox.forgetBacklog();
        };
        await crashOnce(() => untilItSettles(outbox, server));
        // Committed, and whoever asked for it is told so when that is no longer true: by a pooler, and else never.
        await crashOnce(() => wire.holdCommit(SETTLEMENT));
        await outbox.stopWriting();
        await outbox.drained();
        expect(await Promise.all(relays.map((relay) => relay.ended('SIGTERM')))).toEqual(relays.map(() => GRACEFUL));

        const { phantom: _, ...rest } = await outbox.wrong();
        expect({ ...rest, phantom: [] }).toEqual(NOTHING);
        // Nothing was made up: what is nowhere but at the broker was being committed before a crash.
        const phantoms = await outbox.phantoms();
        expect(phantoms.filter((id) => !(outbox.commitSentAt.get(id)! < over))).toEqual([]);
        const { repeated, tooOld } = repeatedAfter(outbox, crashes);
        report(
          `${settle}, relays: ${count}: ${broker.count} messages, 2 crashes amid a settlement: ${phantoms.length} phantoms, repeated ${repeated.join(', ')}`,
        );
        if (settle === 'async') expect(phantoms.length).toBeGreaterThan(0);
        expect(Math.max(...tooOld)).toBeLessThanOrEqual(count * BOUND);
      } finally {
        await wire.close();
      }
    };
    await onServer({ store: { settle } }, test, NOT_BY_ITSELF);
  },
);

it('claims anew after a crash that no error has told of: what was read before means nothing any more', async () => {
  await withServer({ ...NOT_BY_ITSELF, synchronous_commit: 'off' }, async (url, server) => {
    const outbox = await Steps.at(url);
    await outbox.add('a:1', 'b:1');
    const feed = await outbox.store.openFeed({ destination: 'default', pageSize: 10 });
    await feed!.settle(await feed!.read(), []);
    await outbox.value('CHECKPOINT');
    const places = async () =>
      (await outbox.value('SELECT array_agg(ctid ORDER BY partition)::text FROM messenger.cursors')) as string;
    const place = await places();
    // What gets lost: the transaction ids and numbers of these are handed out again.
    for (let n = 0; n < 20; n++) await outbox.add(`lost:${n}`);
    const page = await feed!.read();
    expect(page.messages.length).toBeGreaterThan(0);
    await server.stop('immediate');
    await startAgain(server, () => outbox.value('SELECT 1'));
    // Its rows are as it knows them, but for the token, which no crash leaves.
    expect(await places()).toBe(place);
    const kept = Array.from({ length: 10 }, (_, n) => `kept:${n}`);
    for (const id of kept) await outbox.add(id);
    await expect(feed!.settle(page, [])).rejects.toMatchObject({ code: 'LEASE_LOST' });
    await feed!.close();
    await outbox.value(`UPDATE messenger.cursors SET expires_at = '-infinity', written_by = pg_current_xact_id()`);
    expect(await outbox.relay()).toEqual(kept);
    await outbox.close();
  });
});

it("is on the disk once it is settled, with settle: 'sync', whatever the database's default is", async () => {
  await withServer({ ...NOT_BY_ITSELF, synchronous_commit: 'off' }, async (url, server) => {
    const repeats: Record<string, string[]> = {};
    const outboxes = {
      sync: await Steps.at(url, { settle: 'sync', schema: 'sync' }),
      async: await Steps.at(url, { settle: 'async', schema: 'async' }),
    };
    for (const outbox of Object.values(outboxes)) await outbox.add('a:1', 'b:1');
    await outboxes.sync.value('CHECKPOINT');
    const open = (outbox: Steps) => outbox.store.openFeed({ destination: 'default', pageSize: 10 });
    // Both claim, and then settle: a claim would take to the disk what was settled before it.
    for (const feed of [await open(outboxes.sync), await open(outboxes.async)])
      await feed!.settle(await feed!.read(), []);
    await server.stop('immediate');
    await startAgain(server, () => outboxes.sync.value('SELECT 1'));
    for (const [settle, outbox] of Object.entries(outboxes)) {
      await outbox.value(`UPDATE ${settle}.cursors SET expires_at = '-infinity', written_by = pg_current_xact_id()`);
      repeats[settle] = await outbox.relay();
    }
    expect(repeats).toEqual({ sync: [], async: ['a:1', 'b:1'] });
  });
});

it('ends when the server is away for longer than storeOutageLimit, and loses nothing', async () => {
  await onServer({}, async (outbox, server) => {
    const { broker } = outbox;
    broker.latency = () => 3;
    outbox.startWriting();

    const strict = outbox.relay('strict', { messenger: { storeOutageLimit: 0 } });
    await eventually('it works', () => broker.firstsOf('strict') > PAGE);
    await server.stop('immediate');
    expect(await strict.ended()).toEqual({ end: 3, stderr: '' });
    expect(strict.events.at(-1)).toMatchObject({ event: 'fatal', code: 'FATAL' });
    expect(strict.events.at(-1)!.message).toContain('(limit 0 ms)');

    // Without a server it does not start either.
    const early = outbox.relay('early');
    expect(await early.ended()).toEqual({ end: 3, stderr: '' });
    expect(early.events.map(({ event, message }) => `${event}: ${message}`)).toEqual([
      expect.stringMatching(/^fatal: the datastore cannot be reached: /),
    ]);

    await startAgain(server, () => outbox.sql('SELECT 1'));
    const patient = outbox.relay('patient', { messenger: { storeOutageLimit: 1_500 } });
    await eventually('it works', () => broker.firstsOf('patient') > PAGE);
    const stoppedAt = performance.now();
    await server.stop('immediate');
    expect(await patient.ended()).toEqual({ end: 3, stderr: '' });
    const lasted = Math.round(performance.now() - stoppedAt);
    const last = patient.events.at(-1)!;
    expect(last).toMatchObject({ event: 'fatal', code: 'FATAL' });
    expect(last.message).toMatch(/^the datastore has not answered for \d+ ms \(limit 1500 ms\): /);
    expect(lasted).toBeGreaterThan(1_500);
    report(`a limit of 1500 ms ended the relay after ${lasted} ms`);
    expect(lasted).toBeLessThan(10_000);

    await startAgain(server, () => outbox.sql('SELECT 1'));
    const next = outbox.relay('next');
    await outbox.stopWriting();
    await outbox.drained();
    expect(await next.ended('SIGTERM')).toEqual(GRACEFUL);
    expect(await outbox.wrong()).toEqual(NOTHING);
  });
});

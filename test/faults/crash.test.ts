/** A PostgreSQL that crashes and comes back, or does not, under relays that work. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { startPostgres, type EmbeddedPostgres } from '../support/embedded-postgres.js';
import { BOUND, eventually, GRACEFUL, NOTHING, Outbox, PAGE, report, type RelaySettings } from './support.js';

/** Runs a test on a server of its own. */
async function onServer(
  settings: RelaySettings,
  test: (outbox: Outbox, server: EmbeddedPostgres) => Promise<void>,
): Promise<void> {
  const server = await startPostgres(17);
  try {
    await Outbox.run(server.url(), settings, (outbox) => test(outbox, server));
  } finally {
    await server.remove();
  }
}

/**
 * Since when what was committed may not be on the disk: PostgreSQL says within three `wal_writer_delay`s, of which
 * a busy machine knows nothing. So it is asked, on and on: a place of the log, and whether it was written since.
 */
async function watchDisk(outbox: Outbox): Promise<() => Promise<number>> {
  const session = await outbox.session();
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
      let onDisk = await watchDisk(outbox);
      const crashes: { readonly at: number; readonly settledBy: number }[] = [];
      const crash = async () => {
        const from = broker.count;
        await eventually('it works', () => broker.count > from + 5 * PAGE);
        const at = performance.now();
        await server.stop('immediate');
        crashes.push({ at, settledBy: settle === 'sync' ? at : await onDisk() });
        await server.start();
        onDisk = await watchDisk(outbox);
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
      const repeated = crashes.map((crash, i) => {
        const next = crashes[i + 1]?.at ?? Infinity;
        return broker.duplicates().filter(({ at }) => at > crash.at && at < next);
      });
      const tooOld = repeated.map(
        (duplicates, i) => duplicates.filter(({ id }) => broker.first(id).at < crashes[i]!.settledBy).length,
      );
      report(
        `${settle}: ${broker.count} messages, 2 crashes of the server: repeated ${repeated.map(({ length }) => length).join(', ')}`,
      );
      // Beyond what is in flight, only what was settled and not on the disk.
      expect(Math.max(...tooOld)).toBeLessThanOrEqual(BOUND);
    });
  },
);

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
      expect.stringMatching(/^fatal: the datastore can not be reached: /),
    ]);

    await server.start();
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

    await server.start();
    const next = outbox.relay('next');
    await outbox.stopWriting();
    await outbox.drained();
    expect(await next.ended('SIGTERM')).toEqual(GRACEFUL);
    expect(await outbox.wrong()).toEqual(NOTHING);
  });
});

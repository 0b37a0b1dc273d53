/** A PostgreSQL that crashes and comes back, or does not, under relays that work. */
import { expect, it } from 'vitest';
import { startPostgres, type EmbeddedPostgres } from '../support/embedded-postgres.js';
import { BOUND, eventually, GRACEFUL, NOTHING, Outbox, PAGE, report, type RelaySettings } from './support.js';

/** PostgreSQL's default, in milliseconds: what is committed asynchronously is on the disk after three of them. */
const WAL_WRITER_DELAY = 200;
/** What a busy machine may add to it. */
const GRACE = 500;

/** Runs a test on a server of its own. */
async function onServer(
  settings: RelaySettings,
  test: (outbox: Outbox, server: EmbeddedPostgres) => Promise<void>,
): Promise<void> {
  const server = await startPostgres(17, { wal_writer_delay: WAL_WRITER_DELAY });
  try {
    await Outbox.run(server.url(), settings, (outbox) => test(outbox, server));
  } finally {
    await server.remove();
  }
}

it.each(['async', 'sync'] as const)(
  'comes back by itself, having lost nothing, when the server crashes (%s)',
  async (settle) => {
    await onServer({ store: { settle } }, async (outbox, server) => {
      const { broker } = outbox;
      broker.latency = () => 3;
      const relay = outbox.relay('relay');
      outbox.startWriting();
      const crashes: number[] = [];
      const crash = async () => {
        const from = broker.count;
        await eventually('it works', () => broker.count > from + 5 * PAGE);
        crashes.push(performance.now());
        await server.stop('immediate');
        await server.start();
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
      const repeated = crashes.map((crashedAt, i) => {
        const next = crashes[i + 1] ?? Infinity;
        return broker.duplicates().filter(({ at }) => at > crashedAt && at < next);
      });
      const tooOld = repeated.map((duplicates, i) => {
        const oldest = crashes[i]! - (settle === 'sync' ? 0 : 3 * WAL_WRITER_DELAY + GRACE);
        return duplicates.filter(({ id }) => broker.first(id).at < oldest).length;
      });
      report(
        `${settle}: ${broker.count} messages, 2 crashes of the server: repeated ${repeated.map(({ length }) => length).join(', ')}`,
      );
      // Beyond what is in flight, only what was settled within three writer delays of the crash.
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

/** Several relays of one destination: one works, and what it was doing is taken over when it cannot go on. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, inject, it } from 'vitest';
import { newDatabase } from '../support/database.js';
import { oldest } from '../support/embedded-postgres.js';
import { BOUND, eventually, GRACEFUL, NOTHING, Outbox, PAGE, randomOf, report, type RelayProcess } from './support.js';

const LEASE = 2_000;
/** What a busy machine may add to any pause, in milliseconds. */
const GRACE = 10_000;

/** Resolves when this relay, which does not hold the destination, has asked for it after now. */
async function asks(outbox: Outbox, relay: RelayProcess): Promise<void> {
  const [now] = await outbox.sql('SELECT clock_timestamp()::text AS at');
  await eventually(`${relay.name} asks for the destination`, async () => {
    const found = await outbox.sql(
      'SELECT FROM pg_stat_activity WHERE application_name = $1 AND query_start > $2::timestamptz',
      [relay.name, now!['at']],
    );
    return found.length > 0;
  });
}

/** Milliseconds until this relay has published something, which it has not before. */
async function takesOver(outbox: Outbox, relay: RelayProcess): Promise<number> {
  const from = performance.now();
  const hasPublished = () => outbox.broker.acknowledgements.some((each) => each.relay === relay.name);
  expect(hasPublished()).toBe(false);
  await eventually(`${relay.name} takes over`, hasPublished);
  return Math.round(performance.now() - from);
}

it('is taken over within the lease when the relay is killed, and not before', async () => {
  await Outbox.run(await newDatabase(inject('postgres')[oldest]), { store: { lease: LEASE } }, async (outbox) => {
    const { broker } = outbox;
    broker.latency = () => 5;
    outbox.startWriting();
    const first = outbox.relay('first');
    await eventually('the first works', () => broker.firstsOf('first') > PAGE);
    const second = outbox.relay('second');
    await asks(outbox, second);
    await first.ended('SIGKILL');
    const took = await takesOver(outbox, second);
    await outbox.stopWriting();
    await outbox.drained();
    expect(await second.ended('SIGTERM')).toEqual(GRACEFUL);

    expect(await outbox.wrong()).toEqual(NOTHING);
    report(`taken over ${took} ms after a kill, of a lease of ${LEASE} ms`);
    expect(took).toBeLessThan(LEASE + GRACE);
    expect(broker.duplicates().length).toBeLessThanOrEqual(BOUND);
  });
});

it.each(['batch', 'single'] as const)(
  'is handed over at once, with nothing repeated, when the relay is asked to stop (%s)',
  async (form) => {
    const settings = { form, store: { lease: 60_000 } };
    await Outbox.run(await newDatabase(inject('postgres')[17]), settings, async (outbox) => {
      const { broker } = outbox;
      const random = randomOf(200);
      broker.latency = () => 2 + random() * 10;
      outbox.startWriting();
      const took: number[] = [];
      let relay = outbox.relay('relay-0');
      await eventually('the first works', () => broker.firstsOf('relay-0') > PAGE);
      for (let handOver = 1; handOver <= 3; handOver++) {
        const next = outbox.relay(`relay-${handOver}`);
        await asks(outbox, next);
        const stopping = relay.ended('SIGTERM');
        took.push(await takesOver(outbox, next));
        expect(await stopping).toEqual(GRACEFUL);
        relay = next;
      }
      await outbox.stopWriting();
      await outbox.drained();
      expect(await relay.ended('SIGTERM')).toEqual(GRACEFUL);

      expect(await outbox.wrong()).toEqual(NOTHING);
      report(`${form}: handed over after ${took.join(', ')} ms; ${broker.count} messages`);
      expect(Math.max(...took)).toBeLessThan(GRACE);
      expect(broker.duplicates()).toEqual([]);
    });
  },
);

it('changes nothing when it is paused beyond its lease and goes on', async () => {
  await Outbox.run(await newDatabase(inject('postgres')[17]), {}, async (outbox) => {
    const { broker } = outbox;
    const random = randomOf(300);
    broker.latency = () => 2 + random() * 10;
    outbox.startWriting();
    const paused = outbox.relay('paused');
    await eventually('it works', () => broker.firstsOf('paused') > PAGE);
    const other = outbox.relay('other');
    await asks(outbox, other);
    await sleep(random() * 100);
    paused.signal('SIGSTOP');
    await takesOver(outbox, other);
    await outbox.stopWriting();
    await outbox.drained();
    await eventually('the other has settled all', async () => {
      const [last] = await outbox.sql('SELECT max(seq)::int AS seq FROM messenger.messages');
      return (await outbox.cursor()).every(
        ({ high, to_snapshot: to }) => Number(high) >= Number(last!['seq']) && to === null,
      );
    });

    const before = await outbox.cursor();
    const wentOn = performance.now();
    paused.signal('SIGCONT');
    await eventually('it knows', () => paused.events.some(({ code }) => code === 'LEASE_LOST'));
    await asks(outbox, paused);
    expect(await outbox.cursor()).toEqual(before);
    const late = broker.requests.filter(({ relay, at }) => relay === 'paused' && at > wentOn);
    expect(late.length).toBeLessThanOrEqual(1);

    // It stands by now, and works again when it is its turn.
    expect(await other.ended('SIGTERM')).toEqual(GRACEFUL);
    const [id] = await outbox.write(['k1']);
    await outbox.drained();
    expect(broker.first(id!).relay).toBe('paused');
    expect(await paused.ended('SIGTERM')).toEqual(GRACEFUL);
    expect(await outbox.wrong()).toEqual(NOTHING);
    report(`paused beyond the lease: ${late.length} requests sent after it, ${broker.duplicates().length} repeated`);
    expect(broker.duplicates().length).toBeLessThanOrEqual(BOUND);
  });
});

it('is taken over within the lease when it is paused in the middle of a settlement, its rows locked', async () => {
  await Outbox.run(await newDatabase(inject('postgres')[17]), { store: { timeout: 15_000 } }, async (outbox) => {
    const { broker } = outbox;
    await outbox.write(Array.from({ length: 10 * PAGE }, () => undefined));
    broker.hold();
    const paused = outbox.relay('paused');
    await eventually('its first batch is at the broker', () => broker.requests.length > 0);
    const lock = await outbox.session();
    await lock.query('BEGIN');
    await lock.query('SELECT FROM messenger.cursors FOR UPDATE');
    broker.open();
    await eventually(
      'its settlement waits',
      async () =>
        (
          await outbox.sql(`SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE NOT granted AND datname = current_database()`)
        ).length > 0,
    );
    paused.signal('SIGSTOP');
    await lock.query('COMMIT');
    // The update is done, and nobody is there to commit it.
    const other = outbox.relay('other');
    const took = await takesOver(outbox, other);
    report(`taken over ${took} ms after a pause within a settlement, the start of the other relay included`);
    expect(took).toBeLessThan(1_000 + GRACE);
    await outbox.drained();
    paused.signal('SIGCONT');
    await eventually('it knows', () => paused.events.some(({ code }) => code === 'LEASE_LOST'));
    expect(await other.ended('SIGTERM')).toEqual(GRACEFUL);
    expect(await paused.ended('SIGTERM')).toEqual(GRACEFUL);
    expect(await outbox.wrong()).toEqual(NOTHING);
    expect(broker.duplicates().length).toBeLessThanOrEqual(BOUND);
  });
});

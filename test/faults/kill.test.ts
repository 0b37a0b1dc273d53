/** Relays that are killed: nothing is lost, nothing overtakes, and no more is repeated than docs/start/guarantees.md says. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, inject, it } from 'vitest';
import { newDatabase } from '../support/database.js';
import { BOUND, eventually, GRACEFUL, NOTHING, Outbox, PAGE, randomOf, report } from './support.js';
import { Wire } from './wire.js';

const KILLS = 6;

/** Long, since a lease that a busy machine did not renew in time would repeat messages as well; and cleaning all the time. */
const SETTINGS = { store: { lease: 20_000 }, messenger: { cleanUp: 0 } };

it('loses nothing, and repeats at most what is in flight, each time the relay is killed', async () => {
  await Outbox.run(await newDatabase(inject('postgres')[17]), SETTINGS, async (outbox) => {
    const { broker } = outbox;
    const random = randomOf(100);
    broker.latency = () => 2 + random() * 10;
    outbox.startWriting();
    for (let kill = 0; kill < KILLS; kill++) {
      const relay = outbox.relay(`relay-${kill}`);
      await eventually('the relay works', () => broker.firstsOf(relay.name) > PAGE);
      // A moment like any other, of a page's publishing, settling or reading.
      await sleep(random() * 200);
      expect(await relay.ended('SIGKILL')).toEqual({ end: 'SIGKILL', stderr: '' });
      await outbox.expireLeases();
    }
    const last = outbox.relay(`relay-${KILLS}`);
    await outbox.stopWriting();
    await outbox.drained();
    expect(await last.ended('SIGTERM')).toEqual(GRACEFUL);

    expect(await outbox.wrong()).toEqual(NOTHING);
    // Repeated by the relay that followed each kill.
    const repeated = Array.from({ length: KILLS }, (_, kill) => broker.duplicates(`relay-${kill + 1}`).length);
    report(`${broker.count} messages, ${KILLS} kills: repeated ${repeated.join(', ')} of at most ${BOUND} each`);
    expect(Math.max(...repeated)).toBeLessThanOrEqual(BOUND);
    // A bound of nothing is not kept: the kills do hit pages in flight.
    expect(broker.duplicates().length).toBeGreaterThan(0);
    expect(broker.duplicates('relay-0')).toEqual([]);
    await eventually('the statistics of all sessions', async () => (await outbox.insertedRows()) >= broker.count);
    expect(await outbox.wrong()).toEqual(NOTHING);
  });
});

it('repeats exactly what may be in flight when it is killed with all of that published and unsettled', async () => {
  const settings = { store: { lease: 20_000 }, messenger: { interval: 10_000 } };
  await Outbox.run(await newDatabase(inject('postgres')[17]), settings, async (outbox) => {
    const { broker } = outbox;
    broker.latency = () => 20;
    await outbox.write(Array.from({ length: 200 * PAGE }, () => undefined));
    const relay = outbox.relay('killed');
    const lock = await outbox.session();
    let unsettled = 0;
    // Until it does not happen to look for retries, before which it settles everything.
    while (unsettled < BOUND) {
      const from = broker.count;
      await eventually('it works', () => broker.count > from);
      await lock.query('BEGIN');
      await lock.query('SELECT FROM messenger.cursors FOR UPDATE');
      await eventually('a settlement waits', async () => {
        const waiting = await outbox.sql(
          'SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = $2 AND datname = current_database()',
          [relay.name, 'Lock'],
        );
        return waiting.length > 0;
      });
      // Time for one more batch, which must not come.
      await sleep(250);
      const [settled] = await outbox.sql('SELECT max(high)::int AS high FROM messenger.cursors');
      unsettled = broker.count - (settled!['high'] as number);
      expect(unsettled).toBeLessThanOrEqual(BOUND);
      if (unsettled === BOUND) {
        await relay.ended('SIGKILL');
        // The server would still finish the settlement that waits, where the whole transaction was sent at once. Only that
        // session: those of PgBouncer keep the name of whoever used them last.
        await eventually('the end of the settlement', async () => {
          const left = await outbox.sql(
            'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = $2 AND datname = current_database()',
            [relay.name, 'Lock'],
          );
          return left.length === 0;
        });
      }
      await lock.query('ROLLBACK');
    }
    await outbox.expireLeases();

    broker.latency = () => 0;
    const next = outbox.relay('next');
    await outbox.drained();
    expect(await next.ended('SIGTERM')).toEqual(GRACEFUL);
    expect(await outbox.wrong()).toEqual(NOTHING);
    expect(broker.duplicates().length).toBe(BOUND);
  });
});

/**
 * What a relay does in one transaction, and how much is repeated where it is killed before and after the commit. Each of
 * them has a page of its own, of which the broker refuses one message at first.
 */
const POINTS = [
  { does: 'claims', said: /messenger_claim_|SET owner = \$2/, before: 0, after: 0 },
  { does: 'settles', said: /messenger_settle_|SET from_snapshot/, before: PAGE, after: 0 },
  { does: 'parks', said: /messenger_park_|INSERT INTO .*parked/, refuses: true, before: PAGE - 1, after: 0 },
  {
    does: 'settles what was parked',
    said: /messenger_unpark_|DELETE FROM .*parked/,
    refuses: true,
    before: 1,
    after: 0,
  },
  { does: 'gives back', said: /messenger_release_|SET owner = NULL/, stops: true, before: 0, after: 0 },
];

/** Whether the store knows of a page that it was published. */
async function isSettled(outbox: Outbox): Promise<boolean> {
  const cursors = await outbox.cursor();
  const { count } = await outbox.parked();
  return count === 0 && cursors.length > 0 && cursors.every(({ high }) => Number(high) >= PAGE);
}

it.each(POINTS)(
  'repeats only what the store does not know when it is killed as it $does: $before before the commit, $after after it',
  async ({ said, refuses = false, stops = false, before, after }) => {
    for (const [when, repeated] of Object.entries({ before, after })) {
      const url = await newDatabase(inject('postgres')[17]);
      const wire = await Wire.to(url);
      try {
        await Outbox.run(url, { store: { lease: 20_000 } }, async (outbox) => {
          const { broker } = outbox;
          const ids = await outbox.write(Array.from({ length: PAGE }, (_, n) => (n % 2 === 0 ? undefined : 'k1')));
          const refused = new Set(refuses ? [ids[2]] : []);
          broker.verdict = (id) => (refused.delete(id) ? 'retryable' : null);
          const reached = when === 'before' ? wire.loseCommit(said) : wire.holdCommit(said);
          const relay = outbox.relay('killed', { url: wire.through(url) });
          if (stops) {
            await eventually('all is settled', () => isSettled(outbox));
            relay.signal('SIGTERM');
          }
          await reached;
          await relay.ended('SIGKILL');
          await outbox.expireLeases();
          const next = outbox.relay('next');
          await eventually('it holds, and settles, everything', async () => {
            const open = await outbox.sql('SELECT FROM messenger.cursors WHERE expires_at < clock_timestamp()');
            return open.length === 0 && (await isSettled(outbox));
          });
          expect(await next.ended('SIGTERM')).toEqual(GRACEFUL);
          expect(await outbox.wrong()).toEqual(NOTHING);
          expect([when, broker.duplicates().length]).toEqual([when, repeated]);
        });
      } finally {
        await wire.close();
      }
    }
  },
);

it('would be seen to lose: a publisher that does not wait for the broker', async () => {
  await Outbox.run(await newDatabase(inject('postgres')[17]), { form: 'early' }, async (outbox) => {
    await outbox.write(Array.from({ length: 10 * PAGE }, () => undefined));
    const relay = outbox.relay('killed');
    // Acknowledged and settled without the broker.
    await eventually('a settlement', async () => (await outbox.cursor()).some(({ high }) => Number(high) > 0));
    await relay.ended('SIGKILL');
    await outbox.expireLeases();
    const next = outbox.relay('next', { form: 'batch' });
    await eventually('the next relay settles the rest', async () =>
      (await outbox.cursor()).some(({ high }) => Number(high) === 10 * PAGE),
    );
    await next.ended('SIGKILL');
    expect((await outbox.wrong()).lost).not.toEqual([]);
  });
});

it('would be seen to overtake: a publisher that does not keep the order that it says it keeps', async () => {
  await Outbox.run(await newDatabase(inject('postgres')[17]), { form: 'reversed' }, async (outbox) => {
    await outbox.write(Array.from({ length: PAGE }, () => 'k1'));
    const relay = outbox.relay('relay');
    await outbox.drained();
    await relay.ended('SIGTERM');
    expect(await outbox.wrong()).toMatchObject({ lost: [], phantom: [], disordered: [expect.stringMatching(/^k1/)] });
  });
});

/** Hundreds of thousands of messages, under locks, while relays are killed and paused: judged by the verifier. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, inject, it } from 'vitest';
import { newDatabase } from '../support/database.js';
import { outermostVersions } from '../support/embedded-postgres.js';
import { eventually, GRACEFUL, Outbox, randomOf, report } from './support.js';

const MESSAGES = 200_000;
/** By one transaction, which holds three keys to its end; one message in ten has none. */
const STORED_AT_ONCE = 100;
const WRITERS = 4;
const RELAYS = 3;
const PAGE = 250;
const DEPTH = 4;
const LEASE = 3_000;
const KILLS = 4;
const PAUSES = 2;
const SETTINGS = {
  form: 'ordered',
  store: { lease: LEASE },
  messenger: { publishBatchSize: PAGE, pipelineDepth: DEPTH },
} as const;

async function store(outbox: Outbox, writer: number): Promise<void> {
  const random = randomOf(200 + writer);
  for (let stored = 0; stored < MESSAGES / WRITERS; stored += STORED_AT_ONCE) {
    // In one order, so that writers never wait for each other in a circle.
    const keys = Array.from({ length: 3 }, (_, third) => `k${1 + third * 4 + Math.floor(random() * 4)}`);
    if (random() < 0.1) await outbox.write(keys, 'ROLLBACK');
    await outbox.write(Array.from({ length: STORED_AT_ONCE }, (_, i) => (i % 10 === 9 ? undefined : keys[i % 3])));
  }
}

/** Nothing is lost, made up or reordered, and no more is repeated than what was in flight. */
it.each(outermostVersions)('200,000 messages arrive, on PostgreSQL %i', { timeout: 240_000 }, async (version) => {
  await Outbox.run(await newDatabase(inject('postgres')[version]), SETTINGS, async (outbox) => {
    const { broker } = outbox;
    const random = randomOf(210);
    broker.latency = () => random() * 20;
    const all = Array.from({ length: RELAYS }, (_, n) => outbox.relay(`relay-${n}`));
    const living = [...all];
    const writing = Promise.all(Array.from({ length: WRITERS }, (_, writer) => store(outbox, writer)));
    const faults = Array.from({ length: KILLS + PAUSES }, (_, n) => (n % 3 === 2 ? 'pause' : 'kill'));
    for (const [n, fault] of faults.entries()) {
      // Each of them with more than half of it still to come.
      await eventually('messages arrive', () => broker.count > ((n + 1) * MESSAGES) / (2 * faults.length), 60_000);
      const relay = living[Math.floor(random() * living.length)]!;
      if (fault === 'pause') {
        relay.signal('SIGSTOP');
        await sleep(LEASE + 1_000);
        relay.signal('SIGCONT');
      } else {
        living.splice(living.indexOf(relay), 1);
        expect(await relay.ended('SIGKILL')).toEqual({ end: 'SIGKILL', stderr: '' });
        const next = outbox.relay(`relay-${RELAYS + n}`);
        living.push(next);
        all.push(next);
      }
    }
    await writing;
    await outbox.drained(120_000);
    expect(await Promise.all(living.map((relay) => relay.ended('SIGTERM')))).toEqual(living.map(() => GRACEFUL));

    const { ok, lost, phantom, inversions, received, duplicates } = await outbox.verdict();
    // A busy machine may pause a relay beyond its lease by itself: it says so.
    const lostLeases = all.flatMap(({ events }) => events).filter(({ code }) => code === 'LEASE_LOST').length;
    const bound = PAGE * DEPTH * (KILLS + lostLeases);
    report(
      `${received} messages, ${KILLS} kills, ${lostLeases} leases lost: repeated ${duplicates} of at most ${bound}`,
    );
    expect({ ok, lost, phantom, inversions, received }).toEqual({
      ...{ ok: true, lost: 0, phantom: 0, inversions: 0 },
      received: MESSAGES,
    });
    expect(duplicates).toBeLessThanOrEqual(bound);
    expect(duplicates).toBeGreaterThan(0);
  });
});

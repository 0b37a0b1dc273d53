/** A relay whose connections to the database are cut, again and again. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, inject, it } from 'vitest';
import { newDatabase } from '../support/database.js';
import { eventually, GRACEFUL, NOTHING, Outbox, PAGE, report } from './support.js';

const EVERY = 100;
const STORM = 3_000;

it('loses nothing and rejects nowhere unhandled while all its connections are cut steadily', async () => {
  await Outbox.run(await newDatabase(inject('postgres')[17]), {}, async (outbox) => {
    const { broker } = outbox;
    broker.latency = () => 3;
    outbox.startWriting();
    const relay = outbox.relay('relay');
    await eventually('it works', () => broker.count > PAGE);
    let cut = 0;
    const before = broker.count;
    const until = performance.now() + STORM;
    while (performance.now() < until) {
      const rows = await outbox.sql(
        'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()',
        [relay.name],
      );
      cut += rows.length;
      await sleep(EVERY);
    }
    const during = broker.count - before;
    await outbox.stopWriting();
    await outbox.drained();
    expect(await relay.ended('SIGTERM')).toEqual(GRACEFUL);

    expect(await outbox.wrong()).toEqual(NOTHING);
    report(
      `${cut} connections cut in ${STORM} ms: ${during} messages meanwhile, ${broker.duplicates().length} repeated`,
    );
    expect(cut).toBeGreaterThan(3);
    expect(relay.events.filter(({ event }) => event === 'fatal')).toEqual([]);
  });
});

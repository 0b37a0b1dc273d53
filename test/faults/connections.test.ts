/** Relays whose connections to the database are cut, carry nothing any more, or are all taken by others. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, inject, it } from 'vitest';
import { newDatabase } from '../support/database.js';
import { eventually, GRACEFUL, NOTHING, Outbox, PAGE, report } from './support.js';
import { Wire } from './wire.js';

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
      // Of a pooler's connections, the one that does this may be among them.
      const rows = await outbox
        .sql(
          'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()',
          [relay.name],
        )
        .catch(() => []);
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

it('notices connections that are half open, and leaves its share to another relay until it is back', async () => {
  const url = await newDatabase(inject('postgres')[17]);
  const wire = await Wire.to(url);
  try {
    await Outbox.run(url, {}, async (outbox) => {
      const { broker } = outbox;
      broker.latency = () => 3;
      outbox.startWriting();
      const [far, near] = [outbox.relay('far', { url: wire.through(url) }), outbox.relay('near')];
      const works = (name: string, since: number) =>
        eventually(`${name} works`, () => broker.requests.slice(since).some(({ relay }) => relay === name));
      for (let time = 0; time < 3; time++) {
        await works('far', broker.requests.length);
        await works('near', broker.requests.length);
        expect(wire.cut()).toBeGreaterThan(0);
        const ids = await outbox.write(Array.from({ length: 12 }, (_, n) => `k${n + 1}`));
        await eventually('all keys go on', () => ids.every((id) => broker.has(id)));
      }
      await works('far', broker.requests.length);
      await outbox.stopWriting();
      await outbox.drained();
      // One that nobody has used since is still in its pool, which waits for it when it ends.
      wire.reset();
      expect(await Promise.all([far, near].map((relay) => relay.ended('SIGTERM')))).toEqual([GRACEFUL, GRACEFUL]);

      expect(await outbox.wrong()).toEqual(NOTHING);
      report(`cut off 3 times: ${broker.count} messages, ${broker.duplicates().length} repeated`);
    });
  } finally {
    await wire.close();
  }
});

it('lives with a pool that the application empties for longer than a lease, beside another relay', async () => {
  await Outbox.run(await newDatabase(inject('postgres')[17]), {}, async (outbox) => {
    const { broker } = outbox;
    broker.latency = () => 3;
    outbox.startWriting();
    const [poor, other] = [outbox.relay('poor', { hogs: 1_500 }), outbox.relay('other')];
    const losses = () => poor.events.filter(({ code }) => code === 'LEASE_LOST').length;
    await eventually('it loses its lease twice', () => losses() >= 2);
    const from = broker.requests.length;
    await eventually('and works again', () => broker.requests.slice(from).some(({ relay }) => relay === 'poor'));
    await outbox.stopWriting();
    await outbox.drained();
    expect(await Promise.all([poor, other].map((relay) => relay.ended('SIGTERM')))).toEqual([GRACEFUL, GRACEFUL]);

    expect(await outbox.wrong()).toEqual(NOTHING);
    report(
      `${losses()} leases lost to an empty pool: ${broker.count} messages, ${broker.duplicates().length} repeated`,
    );
  });
});

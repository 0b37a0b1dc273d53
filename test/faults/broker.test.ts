/** A broker that is down, hangs, answers late, or refuses: nothing is lost, and nothing overtakes. */
import { expect, inject, it } from 'vitest';
import { newDatabase } from '../support/database.js';
import { oldest } from '../support/embedded-postgres.js';
import { eventually, GRACEFUL, NOTHING, Outbox, PAGE, randomOf, report } from './support.js';

const PUBLISH_TIMEOUT = 400;
const forms = ['batch', 'single'] as const;

it.each(forms)('waits for a broker that is down, and burns nobody’s attempts (%s)', async (form) => {
  await Outbox.run(await newDatabase(inject('postgres')[17]), { form }, async (outbox) => {
    const { broker } = outbox;
    broker.latency = () => 3;
    outbox.startWriting();
    const relay = outbox.relay('relay');
    await eventually('it works', () => broker.count > PAGE);
    for (let outage = 1; outage <= 2; outage++) {
      await broker.close();
      const before = broker.count;
      const pauses = () => relay.events.filter(({ event }) => event === 'paused').length;
      const paused = pauses();
      await eventually('it has tried ten times', () => pauses() >= paused + 10);
      expect(await outbox.parked()).toEqual({ count: 0, attempts: 0 });
      await broker.listen();
      await eventually('it works again', () => broker.count > before + PAGE);
    }
    await outbox.stopWriting();
    await outbox.drained();
    expect(await relay.ended('SIGTERM')).toEqual(GRACEFUL);
    expect(await outbox.wrong()).toEqual(NOTHING);
    expect(await outbox.parked()).toEqual({ count: 0, attempts: 0 });
    // Behind a pooler it also says that nobody can wake it.
    const failures = relay.events.filter(({ code }) => code !== 'WAKE_FAILED');
    // Told to the logger when each outage starts, and not with each attempt.
    expect(failures.filter(({ event }) => event === 'error').map(({ message }) => message)).toEqual([
      expect.stringMatching(/^the broker (does not answer|fails): /),
      expect.stringMatching(/^the broker (does not answer|fails): /),
    ]);
    expect(new Set(failures.map(({ kind }) => kind))).toEqual(new Set(['connection']));
    report(`${form}: down twice: ${broker.count} messages, ${broker.duplicates().length} repeated`);
  });
});

it.each(forms)('goes on after a broker that hung, and one that answered too late (%s)', async (form) => {
  const messenger = { publishTimeout: PUBLISH_TIMEOUT };
  await Outbox.run(await newDatabase(inject('postgres')[oldest]), { form, messenger }, async (outbox) => {
    const { broker } = outbox;
    broker.latency = () => 3;
    outbox.startWriting();
    const relay = outbox.relay('relay');
    await eventually('it works', () => broker.count > PAGE);
    const timedOut = () => relay.events.filter(({ message }) => message.includes('did not answer within')).length;

    broker.hold();
    await eventually('it has given up waiting', () => timedOut() > 1);
    // What it had asked for is recorded now, after it was asked for again.
    broker.open();
    let before = broker.count;
    await eventually('it works again', () => broker.count > before + PAGE);

    const told = timedOut();
    broker.delay = () => 2 * PUBLISH_TIMEOUT;
    await eventually('it has not heard of acknowledgements', () => timedOut() > told);
    broker.delay = () => 0;
    before = broker.count;
    await eventually('it works again', () => broker.count > before + PAGE);

    await outbox.stopWriting();
    await outbox.drained();
    await eventually('nothing is parked any more', async () => (await outbox.parked()).count === 0);
    expect(await relay.ended('SIGTERM')).toEqual(GRACEFUL);
    expect(await outbox.wrong()).toEqual(NOTHING);
    report(`${form}: hung and late: ${broker.count} messages, ${broker.duplicates().length} repeated`);
  });
});

it.each(forms)('has the console tell each outage, and ends a stop although the broker hangs (%s)', async (form) => {
  const settings = { form, console: true, store: { notify: false }, messenger: { stopTimeout: 500 } };
  await Outbox.run(await newDatabase(inject('postgres')[17]), settings, async (outbox) => {
    const { broker } = outbox;
    broker.latency = () => 3;
    outbox.startWriting();
    const relay = outbox.relay('relay');
    await eventually('it works', () => broker.count > PAGE);
    const pauses = () => relay.events.filter(({ event }) => event === 'paused').length;
    await broker.close();
    await eventually('it has tried ten times', () => pauses() >= 10);
    await broker.listen();
    const before = broker.count;
    await eventually('it works again', () => broker.count > before + PAGE);

    broker.hold();
    const asked = broker.requests.length;
    await eventually('calls are in flight', () => broker.requests.length > asked);
    const { end, stderr } = await relay.ended('SIGTERM');
    expect(end).toBe(0);
    expect(
      stderr
        .replace(/^[-\dT:.]+Z /gm, 'TIME ')
        .trim()
        .split('\n'),
    ).toEqual([
      expect.stringMatching(/^TIME messenger-outbox: the broker (does not answer|fails): .+, trying again in \d+ ms$/),
      expect.stringMatching(/^TIME messenger-outbox: the broker (answers|works) again after .+ \(attempts: \d+\)$/),
      expect.stringMatching(
        /^TIME messenger-outbox: the relay was stopped, but the publisher did not answer within 500 ms: messages to be published again: \d+$/,
      ),
    ]);

    broker.open();
    outbox.relay('next');
    await outbox.stopWriting();
    await outbox.drained();
    await eventually('nothing is parked any more', async () => (await outbox.parked()).count === 0);
    expect(await outbox.wrong()).toEqual(NOTHING);
  });
});

it.each(forms)('keeps the order of keys while some of every batch is refused (%s)', async (form) => {
  await Outbox.run(await newDatabase(inject('postgres')[17]), { form }, async (outbox) => {
    const { broker } = outbox;
    const random = randomOf(400);
    let refused = 0;
    broker.latency = () => random() * 5;
    broker.verdict = () => {
      if (random() > 0.1) return null;
      refused += 1;
      return 'retryable';
    };
    outbox.startWriting();
    const relay = outbox.relay('relay');
    await eventually('much was refused', () => refused > 60 && broker.count > 300);
    await outbox.stopWriting();
    await outbox.drained();
    await eventually('nothing is parked any more', async () => (await outbox.parked()).count === 0);
    expect(await relay.ended('SIGTERM')).toEqual(GRACEFUL);
    expect(await outbox.wrong()).toEqual(NOTHING);
    report(`${form}: ${broker.count} messages, ${refused} refusals`);
    expect(broker.duplicates()).toEqual([]);
  });
});

it('delays the key of a message that cannot be published, and no other', async () => {
  // However long a busy machine takes: given up after twenty attempts, it would not come any more.
  const messenger = { retry: { minDelay: 20, maxDelay: 200, maxAttempts: 1_000_000 } };
  await Outbox.run(await newDatabase(inject('postgres')[17]), { messenger }, async (outbox) => {
    const { broker } = outbox;
    const [poison, ...behind] = [
      ...(await outbox.write(['k1'])),
      ...(await outbox.write(['k1'])),
      ...(await outbox.write(['k1', 'k2'])),
    ].filter((id) => id.startsWith('k1/'));
    const [dead] = await outbox.write(['k3']);
    let poisonous = true;
    broker.verdict = (id) => {
      if (id === dead) return 'permanent';
      return poisonous && id === poison ? 'retryable' : null;
    };
    const relay = outbox.relay('relay');
    outbox.startWriting();
    const attempts = async () =>
      (await outbox.sql('SELECT attempts FROM messenger.parked WHERE id = $1', [poison]))[0]?.['attempts'] as number;
    await eventually('it was tried several times', async () => ((await attempts()) ?? 0) >= 4);
    const others = await outbox.write(['k2', 'k3', undefined]);
    await eventually('what was stored after it, of other keys, has arrived', () =>
      others.every((id) => broker.has(id)),
    );
    expect(broker.firsts().filter((id) => id.startsWith('k1/'))).toEqual([]);
    const kept = await outbox.sql('SELECT id, attempts FROM messenger.parked WHERE id = ANY($1)', [behind]);
    expect(kept.map(({ attempts: n }) => n)).toEqual(behind.map(() => 0));

    // Through a restart too: who takes over knows the key that waits.
    await relay.ended('SIGKILL');
    // Writers would wait for what waits behind the poison: on a slow machine that is as much as may be on its way.
    outbox.forgetBacklog();
    const next = outbox.relay('next');
    await eventually('the next works', () => broker.firstsOf('next') > PAGE);
    expect(broker.firsts().filter((id) => id.startsWith('k1/'))).toEqual([]);

    poisonous = false;
    await eventually('the poison is taken', () => broker.has(poison!));
    await outbox.stopWriting();
    await outbox.drained();
    await eventually('only the dead letter is left', async () => (await outbox.parked()).count === 1);
    expect(await next.ended('SIGTERM')).toEqual(GRACEFUL);
    expect(await outbox.wrong()).toEqual(NOTHING);
    expect(await outbox.dead()).toEqual([dead]);
    expect(broker.has(dead!)).toBe(false);
  });
});

/** A slow call of the publisher, on PostgreSQL. */
import { beforeAll, describe, expect, it } from 'vitest';
import { Messenger, type Message } from '../../../src/index.js';
import { gate, until } from '../../../src/testing/conformance/assert.js';
import { started } from '../../core/scripted.js';
import { outermostVersions } from '../../support/embedded-postgres.js';
import { createDatabase, inWorld, type World } from './support.js';

const numbered = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => `k${String((from + i) % 99)}:${String(from + i)}`);

/** A publisher whose first call for one message is answered when the gate opens. */
function publisherOf(slow: string, answer: { readonly opened: Promise<unknown> }) {
  const sent: string[] = [];
  const acknowledged: string[] = [];
  return {
    sent,
    acknowledged,
    publish: async ({ id }: Message) => {
      const isFirst = !sent.includes(id);
      sent.push(id);
      if (id === slow && isFirst) await answer.opened;
      acknowledged.push(id);
    },
  };
}

const parked = (world: World) => world.sql(`SELECT id, attempts FROM ${world.names.parked} ORDER BY seq`);

describe.each(outermostVersions)('a slow call on PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, 'slow');
  });

  it('delays only its own key, and its answer settles the message', () =>
    inWorld(async (world) => {
      const answer = gate();
      const publisher = publisherOf('slow:1', answer);
      const relay = started(new Messenger(world.another(), publisher, { interval: 20 }));
      await world.add('slow:1', 'slow:2');
      let count = 0;
      // More than may be in flight, so it does not continue before the rest is settled.
      for (; count < 1_200; count += 20) {
        await world.add(...numbered(count, 20));
        await until(() => publisher.acknowledged.length >= count - 200, 'the others go on', 30_000);
      }
      await until(() => publisher.acknowledged.length === count, 'the others', 30_000);
      await until(async () => (await parked(world)).length === 2, 'two are parked', 30_000);
      expect(await parked(world)).toEqual([
        ['slow:1', 0],
        ['slow:2', 0],
      ]);
      // An operator has the message tried again, but not while its call is still unanswered.
      await world.sql(`UPDATE ${world.names.parked} SET next_at = clock_timestamp()`);
      await world.add('k0:2000');
      await until(() => publisher.acknowledged.includes('k0:2000'), 'something new');
      answer.open();
      await until(async () => (await parked(world)).length === 0, 'all is settled', 30_000);
      await relay.stop();
      expect(publisher.sent.filter((id) => id.startsWith('slow'))).toEqual(['slow:1', 'slow:2']);
      expect(new Set(publisher.sent).size).toBe(publisher.sent.length);
    }, url));
});

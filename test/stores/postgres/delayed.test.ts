/** Messages that are delivered later, by the clock of the database: what the suite of every store cannot test. */
import { beforeAll, describe, expect, it } from 'vitest';
import { Messenger } from '../../../src/core/relay/messenger.js';
import { newMessage, type Message, type NewMessageOptions } from '../../../src/core/contracts/message.js';
import { outermostVersions } from '../../support/embedded-postgres.js';
import { createDatabase, inWorld, itHolds, mutantStatement, type Hazard, type World } from './support.js';

/** Stores messages that are delivered so many milliseconds from now, by the database's clock. */
async function addLater(world: World, ms: number, ids: readonly string[], hold = false): Promise<void> {
  const now = (await world.value('SELECT clock_timestamp()')) as Date;
  const session = await world.begin();
  const options = (id: string): NewMessageOptions => ({
    id,
    deliverAt: new Date(now.getTime() + ms),
    ...(id.includes(':') && { key: id.slice(0, id.indexOf(':')), holdKey: hold }),
  });
  await world.store.add(
    session.client,
    ids.map((id) => newMessage(id, options(id))),
  );
  await session.commit();
}

/** Pretends that so much time has passed for every delayed message. */
async function pass(world: World, interval: string): Promise<void> {
  await world.sql(
    `UPDATE ${world.names.parked} SET deliver_at = deliver_at - $1::interval, next_at = next_at - $1::interval WHERE deliver_at IS NOT NULL`,
    [interval],
  );
}

const HOUR = 3_600_000;

const hazards: Record<string, Hazard> = {
  'a message that was read ahead waits behind the message that holds its key': {
    async play(world) {
      const relay = await world.relay({ pageSize: 2 });
      await world.add('x');
      await addLater(world, HOUR, ['k:1'], true);
      await world.add('k:2');
      // Read ahead of what is settled: the side table does not know about these messages yet.
      const [page, ahead] = [await relay.read(), await relay.read()];
      const toPark = await relay.publish(ahead);
      await relay.settle(page, await relay.publish(page));
      if (ahead.messages.length > 0) await relay.settle(ahead, toPark);
      await world.add('k:3');
      await relay.drain();
      await pass(world, '1 hour');
      await relay.drain();
      return relay.acknowledged;
    },
    mutant: {
      parked: ({ Parked, isAlone }) => ({
        Parked,
        isAlone: (each) => isAlone(each) || each.delayed === true,
      }),
    },
    right: ['x', 'k:1', 'k:2', 'k:3'],
    wrong: ['k:2', 'x', 'k:1', 'k:3'],
  },

  'a retried key stops at the message that holds it': {
    async play(world) {
      let up = false;
      const relay = await world.relay({ acknowledge: () => up });
      await world.add('k:1', 'x');
      await addLater(world, HOUR, ['k:2'], true);
      await world.add('k:3');
      await relay.poll();
      up = true;
      await relay.drain();
      const before = [...relay.acknowledged].sort();
      await pass(world, '1 hour');
      await relay.drain();
      return [before, relay.acknowledged.slice(before.length)];
    },
    mutant: mutantStatement('due', ['m.deliver_at > clock_timestamp()', 'false']),
    right: [
      ['k:1', 'x'],
      ['k:2', 'k:3'],
    ],
    wrong: [['k:1', 'k:2', 'k:3', 'x'], []],
  },

  'a message that leaves the order of its key does not make the key wait': {
    async play(world) {
      const relay = await world.relay({ pageSize: 2 });
      await addLater(world, HOUR, ['k:1']);
      await world.add('k:2');
      await relay.drain();
      await relay.reopen();
      await world.add('k:3');
      await relay.drain();
      return relay.acknowledged;
    },
    mutant: mutantStatement('park', [
      'coalesce(s.delayed, false) AND (m.key IS NULL OR NOT m.hold_key)',
      'coalesce(s.delayed, false) AND m.key IS NULL',
    ]),
    right: ['k:2', 'k:3'],
    wrong: ['k:2'],
  },

  'a held key waits for its time, not only for the messages before it': {
    async play(world) {
      const relay = await world.relay();
      await addLater(world, HOUR, ['k:1'], true);
      await relay.drain();
      // Asked for as a relay that is idle does: one that looked for nothing would wait too.
      return world.value(`SELECT next_at = deliver_at AND next_at > clock_timestamp() FROM ${world.names.parked}`);
    },
    mutant: mutantStatement('promoteHeads', [
      'greatest(clock_timestamp(), head.deliver_at)',
      'coalesce(clock_timestamp(), head.deliver_at)',
    ]),
    right: true,
    wrong: false,
  },
};

describe.each(outermostVersions)('PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, 'delayed');
  });

  itHolds(() => url, hazards);

  it('delivers through a messenger only when the time has come by the database’s clock, whatever this process’s clock says', () =>
    inWorld(async (world) => {
      await addLater(world, 300, ['late', 'k:1'], true);
      await addLater(world, 200, ['k:2']);
      await world.add('k:3', 'now');
      const seen = new Map<string, Promise<unknown>>();
      const done = new AbortController();
      const publisher = {
        publish: ({ id }: Message) => {
          seen.set(
            id,
            world.value(
              `SELECT coalesce((SELECT deliver_at FROM ${world.names.messages} WHERE id = $1), '-infinity') <= clock_timestamp()`,
              [id],
            ),
          );
          if (seen.size === 5) done.abort();
          return Promise.resolve();
        },
      };
      await new Messenger(world.store, publisher, { interval: 20 }).start({
        signal: AbortSignal.any([done.signal, AbortSignal.timeout(30_000)]),
      });
      expect([...seen.keys()].sort()).toEqual(['k:1', 'k:2', 'k:3', 'late', 'now']);
      expect(await Promise.all(seen.values())).toEqual([true, true, true, true, true]);
      const order = [...seen.keys()];
      expect(order.indexOf('k:1')).toBeLessThan(order.indexOf('k:3'));
    }, url));

  it('does not forget delayed messages if a look for retries finds nothing while one is being parked', () =>
    inWorld(async (world) => {
      const relay = await world.relay();
      await addLater(world, HOUR, ['first']);
      await relay.drain();
      await pass(world, '1 hour');
      const due = await relay.feed.retries();
      await relay.settle(due, await relay.publish(due));
      // The relay looks once more, because something has waited until now.
      await addLater(world, HOUR, ['later']);
      const none = world.gate.hold('any');
      const looking = relay.feed.retries();
      await none;
      const reading = relay.read();
      // Leaves time for what must not happen before the look has ended.
      for (let looks = 0; looks < 50; looks++) await world.sql('SELECT');
      world.gate.open();
      await Promise.all([looking, reading]);
      await pass(world, '1 hour');
      await relay.drain();
      expect(relay.acknowledged).toEqual(['first', 'later']);
    }, url));

  it('does not hold up a relay, however many delayed messages wait with their keys: maxParked counts failed messages and those behind them', () =>
    inWorld(async (world) => {
      await addLater(world, HOUR, ['a:1', 'b:1', 'c:1'], true);
      const published: string[] = [];
      /** Publishes until a message that is stored once the others are parked has come. */
      const publishOne = async (id: string) => {
        const done = new AbortController();
        const publisher = {
          publish: (message: Message) => {
            published.push(message.id);
            done.abort();
            return Promise.resolve();
          },
        };
        const running = new Messenger(world.store, publisher, { interval: 20, maxParked: 3 }).start({
          signal: AbortSignal.any([done.signal, AbortSignal.timeout(30_000)]),
        });
        while ((await world.value(`SELECT count(*)::int FROM ${world.names.parked}`)) !== 3);
        await world.add(id);
        await running;
      };
      await publishOne('once they are parked');
      await publishOne('where they were before it began');
      expect(published).toEqual(['once they are parked', 'where they were before it began']);
    }, url));

  it.each([
    ['as long as it runs', false],
    ['however often it begins', true],
  ])('count once they have failed, like what waits behind them, for a relay %s', (_, restarts) =>
    inWorld(async (world) => {
      const refused = new Set(['b:1', 'late', 'c:1']);
      const relay = await world.relay({ acknowledge: ({ id }) => !refused.has(id) });
      const waiting = async () => {
        if (restarts) await relay.reopen();
        return relay.feed.waiting(undefined);
      };
      await addLater(world, HOUR, ['a:1', 'b:1'], true);
      await addLater(world, HOUR, ['late', 'soon', 'c:1']);
      await relay.drain();
      expect(await waiting()).toBe(0);
      await world.add('a:2', 'c:2');
      await relay.drain();
      expect(await waiting(), 'a:2').toBe(1);
      await pass(world, '1 hour');
      await relay.poll();
      expect(relay.acknowledged).toEqual(['c:2', 'a:1', 'soon', 'a:2']);
      // Not counting the message that left its key's order.
      expect(await waiting(), 'b:1 and late').toBe(2);
      await relay.poll();
      expect(await waiting(), 'b:1 and late, again').toBe(2);
      refused.clear();
      await relay.drain();
      expect(relay.acknowledged.slice(4)).toEqual(['b:1', 'late', 'c:1']);
      expect(await waiting()).toBe(0);
    }, url),
  );

  it('parks ten thousand delayed messages with a few calls of read, and reads the messages behind them', () =>
    inWorld(async (world) => {
      const many = Array.from({ length: 10_000 }, (_, n) => `d${n}`);
      await addLater(world, HOUR, many);
      await world.add('behind');
      const relay = await world.relay({ pageSize: 100 });
      let calls = 1;
      let page = await relay.read();
      for (; page.messages.length === 0 && calls < 100; calls++) page = await relay.read();
      expect(page.messages.map(({ id }) => id)).toEqual(['behind']);
      await relay.settle(page);
      expect(
        await world.value(`SELECT count(*)::int FROM ${world.names.parked} WHERE reason = 'delayed' AND alone`),
      ).toBe(10_000);
      // One cursor, past all messages.
      await relay.reopen();
      expect((await relay.read()).messages).toEqual([]);
    }, url));
});

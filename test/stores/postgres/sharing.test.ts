/** Relays that share the partitions of a destination: evenly, in order, and while relays come and go. */
import pg from 'pg';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { Messenger, type Message, type MessengerEvent } from '../../../src/index.js';
import { PostgresStore } from '../../../src/stores/postgres/index.js';
import { sleep } from '../../../src/core/util/async.js';
import { gate, until } from '../../../src/testing/conformance/assert.js';
import { started } from '../../core/scripted.js';
import { outermostVersions } from '../../support/embedded-postgres.js';
import { createDatabase, inWorld, type World } from './support.js';

/** How many partitions each owner has, largest first. */
async function shares(world: World): Promise<number[]> {
  const rows = await world.sql(
    `SELECT count(*)::int FROM ${world.names.cursors} WHERE owner IS NOT NULL AND expires_at > clock_timestamp() GROUP BY owner ORDER BY 1 DESC`,
  );
  return rows.map(([count]) => count as number);
}

const recording = (acknowledged: string[], name: string, sent: Map<string, string> = new Map()) => ({
  publish: async (message: Message) => {
    await new Promise((resolve) => setImmediate(resolve));
    acknowledged.push(message.id);
    sent.set(message.id, name);
  },
});

const numberOf = (id: string) => Number(id.slice(id.indexOf(':') + 1));

/** Ids (`key:n`) that were first acknowledged before a lower number of their key. */
function overtaken(acknowledged: readonly string[]): string[] {
  const last = new Map<string, number>();
  const seen = new Set<string>();
  return acknowledged.filter((id) => {
    if (seen.has(id)) return false;
    seen.add(id);
    const key = id.slice(0, id.indexOf(':'));
    const before = last.get(key) ?? 0;
    last.set(key, Math.max(before, numberOf(id)));
    return numberOf(id) < before;
  });
}

describe.each(outermostVersions)('relays on PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, 'sharing');
  });

  it('that wait for their publisher keep their partitions, with one connection for all', () =>
    inWorld(async (world) => {
      const lease = 3_000;
      const pool = new pg.Pool({ connectionString: url, max: 1 });
      onTestFinished(() => pool.end());
      const { schema } = world.names;
      const store = new PostgresStore(pool, { schema, lease, listen: false });
      const answer = gate();
      const events: MessengerEvent[] = [];
      const sent: string[] = [];
      const publish = async ({ id }: Message) => {
        sent.push(id);
        await answer.opened;
      };
      const onEvent = (event: MessengerEvent) => void events.push(event);
      await world.add('a:1', 'b:1', 'c:1');
      const relay = started(new Messenger(store, { publish }, { interval: 20, onEvent }));
      await until(() => sent.length === 3, 'all is sent');
      const expiry = async () =>
        Number(await world.value(`SELECT date_part('epoch', min(expires_at)) * 1000 FROM ${world.names.cursors}`));
      const first = await expiry();
      // For three leases nothing is settled that would also renew the lease.
      await until(async () => (await expiry()) > first + 3 * lease, 'it is renewed again and again', 60_000);
      answer.open();
      await until(async () => (await world.store.admin.destinations())[0]?.pending === 0, 'all is settled');
      expect(events.filter(({ type }) => type === 'leased' || type === 'lease-lost')).toHaveLength(1);
      await relay.stop();
      expect(sent).toHaveLength(3);
    }, url));

  it('that were given the same id lose no message, and send none twice or out of order', () =>
    inWorld(async (world) => {
      const acknowledged: string[] = [];
      const named = (relay: string) => {
        const store = world.another();
        const openFeed = store.openFeed.bind(store);
        store.openFeed = (options) => openFeed({ ...options, relay });
        return started(new Messenger(store, recording(acknowledged, relay), { interval: 20, publishBatchSize: 7 }));
      };
      const relays = [named('twin'), named('twin'), named('other')];
      const ids: string[] = [];
      for (let n = 1; n <= 90; n++) {
        const batch = Array.from({ length: 20 }, (_, i) => `k${i}:${n}`);
        await world.add(...batch);
        ids.push(...batch);
        // One comes when the others share, and one of the two goes: the other is not known for a moment.
        if (n === 30) relays.push(named('twin'));
        if (n === 60) await relays[0]!.stop();
      }
      await until(() => acknowledged.length >= ids.length, 'all is published');
      for (const relay of relays.slice(1)) await relay.stop();
      expect(acknowledged.toSorted()).toEqual(ids.toSorted());
      expect(overtaken(acknowledged)).toEqual([]);
    }, url));

  it('share partitions evenly, as they come and go, without a message twice or out of order', () =>
    inWorld(async (world) => {
      const acknowledged: string[] = [];
      const sent = new Map<string, string>();
      const relay = (name: string) =>
        started(
          new Messenger(world.another(), recording(acknowledged, name, sent), { interval: 20, publishBatchSize: 7 }),
        );
      const writing = new AbortController();
      const next = new Map<string, number>();
      const ids: string[] = [];
      const writer = (async () => {
        for (let n = 0; !writing.signal.aborted; n++) {
          const batch = Array.from({ length: 5 }, (_, i) => {
            const key = `k${String((n * 5 + i) % 40)}`;
            next.set(key, (next.get(key) ?? 0) + 1);
            return `${key}:${String(next.get(key))}`;
          });
          await world.add(...batch);
          ids.push(...batch);
        }
      })();
      const first = relay('first');
      await until(async () => (await shares(world)).join() === '8', 'one has all');
      const second = relay('second');
      await until(async () => (await shares(world)).join() === '4,4', 'two share', 15_000);
      const third = relay('third');
      await until(async () => (await shares(world)).join() === '3,3,2', 'three share', 15_000);
      await first.stop();
      await until(async () => (await shares(world)).join() === '4,4', 'two are left', 15_000);
      await third.stop();
      await until(async () => (await shares(world)).join() === '8', 'one is left', 15_000);
      writing.abort();
      await writer;
      await until(() => acknowledged.length >= ids.length, 'everything', 15_000);
      await second.stop();
      expect(overtaken(acknowledged)).toEqual([]);
      // Everything, and nothing twice, because a relay that gives a partition up has settled it.
      expect([...acknowledged].sort()).toEqual([...ids].sort());
      expect(new Set(sent.values())).toEqual(new Set(['first', 'second', 'third']));
      expect(await shares(world)).toEqual([]);
      expect(await world.value(`SELECT count(*)::int FROM ${world.names.relays}`)).toBe(0);
    }, url));

  it('that publish slowly make room after the calls that they have begun, not after everything that they have read', () =>
    inWorld(async (world) => {
      const ids = Array.from({ length: 400 }, (_, i) => `k${String(i % 50)}:${String(i + 1)}`);
      await world.add(...ids);
      const acknowledged: string[] = [];
      const sent: Record<'first' | 'second', string[]> = { first: [], second: [] };
      const hurry = gate();
      const publisher = (name: keyof typeof sent) => ({
        publish: async ({ id }: Message) => {
          sent[name].push(id);
          await Promise.race([hurry.opened, sleep(100)]);
          acknowledged.push(id);
        },
      });
      const relay = (name: keyof typeof sent) =>
        started(new Messenger(world.another(), publisher(name), { interval: 20, concurrency: 1 }));
      const first = relay('first');
      await until(() => sent.first.length > 2, 'the first one publishes');
      const second = relay('second');
      await until(() => sent.second.length > 0, 'the second one publishes', 60_000);
      // A page has 100 messages, and four pages were read.
      expect(sent.first.length).toBeLessThan(100);
      hurry.open();
      await until(() => acknowledged.length >= ids.length, 'everything', 60_000);
      await Promise.all([first.stop(), second.stop()]);
      expect(overtaken(acknowledged)).toEqual([]);
      expect(acknowledged.toSorted()).toEqual(ids.toSorted());
    }, url));
});

/**
 * One interleaving for each hazard of partitions that change hands, on the store and on a mutant of it. They run on
 * servers of their own, because which transactions a snapshot lists depends on every transaction of the server.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ToPark } from '../../../src/core/contracts/feed.js';
import type { Parked } from '../../../src/stores/postgres/relay/parked.js';
import { postgresVersions, startPostgres, type EmbeddedPostgres } from '../../support/embedded-postgres.js';
import { HALVES, halves, keysOf } from './halves.js';
import { inWorld, itHolds, mutantStatement, type Hazard, type Mutant, type TestRelay, type World } from './support.js';

const [first] = keysOf(0) as [string];
const [second] = keysOf(1) as [string];

/** A relay that has taken over from two whose cursors differ. */
async function heirOfTwo(world: World, before: (a: TestRelay, b: TestRelay) => Promise<void>): Promise<TestRelay> {
  const [a, b] = await halves(world);
  await before(a, b);
  await a.close();
  await b.close();
  const heir = await world.relay({}, [...a.acknowledged, ...b.acknowledged]);
  expect(heir.feed.partitions).toHaveLength(8);
  return heir;
}

const hazards: Record<string, Hazard> = {
  'partitions with different cursors are not read from one of them': {
    async play(world) {
      const heir = await heirOfTwo(world, async (a) => {
        await world.add(`${first}:1`, `${second}:1`);
        await a.drain();
      });
      await heir.drain();
      return heir.acknowledged;
    },
    mutant: {
      reader: (original) => ({
        Reader: class extends original.Reader {
          constructor(...[database, statements, positions, options]: ConstructorParameters<typeof original.Reader>) {
            const partitions = positions.flatMap((position) => position.partitions);
            super(database, statements, [{ partitions, cursor: positions[0]!.cursor }], options);
          }
        },
      }),
    },
    right: [`${first}:1`, `${second}:1`],
    wrong: [`${first}:1`],
  },

  'where partitions meet, low is what was acknowledged before the snapshot at which they meet': {
    async play(world) {
      const heir = await heirOfTwo(world, async (a, b) => {
        await world.add(`${first}:1`, `${second}:1`);
        await a.drain();
        await world.sql(`SELECT pg_current_xact_id()`);
        await b.drain();
      });
      // In the snapshot at which they meet, `t` runs unlisted, and has drawn a lower number than `m`.
      const m = await world.begin();
      const t = await world.begin();
      await m.xid();
      const xid = await t.xid();
      await t.add(`${second}:2`);
      await m.add(`${first}:2`);
      await m.commit();
      const page = await heir.read();
      await heir.settle(page, await heir.publish(page));
      expect(await world.isUnlisted(xid)).toBe(true);
      // Here the other partitions open the window, with the same end.
      const taken = world.gate.hold('read');
      const reading = heir.read();
      await taken;
      await t.commit();
      world.gate.open();
      const met = await reading;
      if (met.messages.length > 0) await heir.settle(met, await heir.publish(met));
      await heir.drain();
      return heir.acknowledged;
    },
    mutant: (() => {
      let now = () => 0;
      return {
        reader: (original) => ({
          Reader: class extends original.Reader {
            constructor(...args: ConstructorParameters<typeof original.Reader>) {
              super(...args);
              now = args[3].acknowledgedHigh;
            }
          },
        }),
        cursor: ({ opened, joined }) => ({
          opened: (cursor, to) => opened(cursor, to, now()),
          // Their lowest `low` would hide the mutation.
          joined: (cursors) => ({ ...joined(cursors), low: Math.max(...cursors.map(({ low }) => low)) }),
        }),
      } satisfies Mutant;
    })(),
    right: [`${first}:1`, `${second}:1`, `${first}:2`, `${second}:2`],
    wrong: [`${first}:1`, `${second}:1`, `${first}:2`],
  },

  'parked messages are read after the claim of a rebalance too': {
    async play(world) {
      const { cursors, messages, parked } = world.names;
      await world.add(`${second}:1`, `${second}:2`);
      const [a, b] = await halves(world);
      const { from, to, after, low, nextLow, high } = (await b.read()).log!.cursor(1);
      // The last settlement of a relay whose time runs out meanwhile: it parks the first message.
      await world.sql(
        `UPDATE ${cursors} SET expires_at = '-infinity', written_by = pg_current_xact_id() WHERE partition >= 4`,
      );
      await world.sql(`DELETE FROM ${world.names.relays} WHERE relay = 'b'`);
      const settlement = await world.begin();
      await settlement.query(
        `UPDATE ${cursors} SET from_snapshot = $1, to_snapshot = $2, after = $3, low = $4, next_low = $5, high = $6,
           written_by = pg_current_xact_id() WHERE partition >= 4`,
        [from, to, after, low, nextLow, high],
      );
      await settlement.query(
        `INSERT INTO ${parked} (destination, seq, key_hash, stored_at, at, id, key, metadata, payload, attempts, next_at)
         SELECT 'default', seq, key_hash, stored_at, at, id, key, metadata, payload, 1, clock_timestamp()
         FROM ${messages} WHERE id = $1`,
        [`${second}:1`],
      );
      const looking = world.gate.hold('look');
      const rebalancing = a.feed.rebalance();
      await looking;
      await settlement.commit();
      world.gate.open();
      await rebalancing;
      expect(a.feed.partitions).toHaveLength(8);
      const page = await a.read();
      await a.settle(page, await a.publish(page));
      await a.drain();
      return a.acknowledged;
    },
    mutant: (() => {
      let early: ReturnType<typeof Parked.load> | undefined;
      let load: (typeof Parked)['load'];
      return {
        parked: (original) => {
          load = (...args) => original.Parked.load(...args);
          return {
            Parked: {
              load: (...args: Parameters<typeof Parked.load>) => {
                const loaded = early ?? load(...args);
                early = undefined;
                return loaded;
              },
            } as unknown as typeof Parked,
          };
        },
        lease: ({ Lease }) => {
          return {
            Lease: {
              async claim(...args: Parameters<typeof Lease.claim>) {
                const claimed = await Lease.claim(...args);
                if (claimed === null) return null;
                const rebalance = claimed.lease.rebalance.bind(claimed.lease);
                claimed.lease.rebalance = async () => {
                  early = load(args[0], args[1], args[2], [0, 1, 2, 3, 4, 5, 6, 7]);
                  await early;
                  return rebalance();
                };
                return claimed;
              },
            } as unknown as typeof Lease,
          };
        },
      } satisfies Mutant;
    })(),
    right: [`${second}:1`, `${second}:2`],
    wrong: [`${second}:2`],
  },

  'a relay settles no partition that it has given up': {
    async play(world) {
      await world.add(`${second}:1`);
      const a = await world.relay({ relay: 'a' });
      const page = await a.read();
      await world.announce('b');
      await a.feed.rebalance();
      expect(a.feed.partitions).toHaveLength(4);
      const ended = await a.settle(page).then(
        () => 'settled',
        (error: unknown) => (error as { code: string }).code,
      );
      const b = await world.relay({ relay: 'b' });
      await b.drain();
      return { ended, acknowledged: b.acknowledged };
    },
    mutant: mutantStatement(
      'settle',
      ['c.ctid = ANY($1::text::tid[]) AND c.ctid = (SELECT $1::text::tid[])[c.partition + 1]', '$1::text IS NOT NULL'],
      ['AND c.owner = $3::text AND c.epoch = $4::bigint', 'AND $3::text IS NOT NULL AND $4::bigint IS NOT NULL'],
    ),
    right: { ended: 'LEASE_LOST', acknowledged: [`${second}:1`] },
    wrong: { ended: 'settled', acknowledged: [] },
  },
};

describe.each(postgresVersions)('PostgreSQL %i', (version) => {
  let server: EmbeddedPostgres;
  let url: string;
  beforeAll(async () => {
    server = await startPostgres(version, { autovacuum: 'off', fsync: 'off' });
    url = await server.createDatabase('hazards');
  });
  afterAll(() => server.remove());

  itHolds(() => url, hazards);

  it('a single relay reads all its partitions with one statement again once they have met', () =>
    inWorld(async (world) => {
      const heir = await heirOfTwo(world, async (a) => {
        await world.add(`${first}:1`, `${second}:1`);
        await a.drain();
      });
      const reads = async () => {
        const before = world.gate.counts.get('read') ?? 0;
        await heir.drain();
        return (world.gate.counts.get('read') ?? 0) - before;
      };
      expect(await reads()).toBeGreaterThan(2);
      expect(await reads()).toBe(1);
      await world.add(`${first}:2`, `${second}:2`);
      await heir.drain();
      expect(heir.acknowledged).toEqual([`${first}:1`, `${second}:1`, `${first}:2`, `${second}:2`]);
      expect(
        await world.value(`SELECT count(DISTINCT (from_snapshot::text, low, high))::int FROM ${world.names.cursors}`),
      ).toBe(1);
    }, url));

  it('pages that wait for another to be settled are then settled together, with the parked messages of each', () =>
    inWorld(async (world) => {
      await world.add(`${first}:1`, 'b:1', `${first}:2`, 'c:1');
      const relay = await world.relay({ pageSize: 1 });
      const pages = [await relay.read(), await relay.read(), await relay.read(), await relay.read()];
      const before = world.gate.counts.get('settle') ?? 0;
      const held = world.gate.hold('settle');
      const toPark = (n: number, more: Partial<ToPark>) => ({
        ...{ message: pages[n]!.messages[0]!, attempts: 0, dead: false },
        ...more,
      });
      const settled = [relay.settle(pages[0]!, [toPark(0, { attempts: 1, error: new Error('refused'), retryIn: 0 })])];
      await held;
      settled.push(relay.settle(pages[1]!), relay.settle(pages[2]!, [toPark(2, {})]));
      settled.push(relay.settle(pages[3]!));
      world.gate.open();
      await Promise.all(settled);
      expect((world.gate.counts.get('settle') ?? 0) - before).toBe(2);
      expect(await world.sql(`SELECT id, reason FROM ${world.names.parked} ORDER BY seq`)).toEqual([
        [`${first}:1`, 'failed'],
        [`${first}:2`, 'behind'],
      ]);
      await relay.reopen();
      await relay.drain();
      expect(relay.acknowledged).toEqual([`${first}:1`, `${first}:2`]);
    }, url));

  it('a change of the side table after a rebalance concerns the partitions that are held then', () =>
    inWorld(async (world) => {
      const relay = await world.relay({ relay: 'a' });
      await world.add(`${first}:1`);
      const read = await relay.read();
      const refused = { attempts: 1, error: new Error('refused'), retryIn: 0, dead: false };
      await relay.settle(read, [{ message: read.messages[0]!, ...refused }]);
      const page = await relay.feed.retries();
      const toPark = await relay.publish(page);
      expect(relay.acknowledged).toEqual([`${first}:1`]);
      await world.announce(...HALVES);
      await Promise.all([relay.feed.rebalance(), relay.settle(page, toPark)]);
      expect(relay.feed.partitions).toHaveLength(4);
      expect(relay.feed.lost.aborted).toBe(false);
      expect(await world.value(`SELECT count(*)::int FROM ${world.names.parked}`)).toBe(0);
    }, url));

  it('a relay that opens another feed at once does not disappear for the others meanwhile', () =>
    inWorld(async (world) => {
      const left = async (stays: boolean) => {
        const feed = await world.store.openFeed({ destination: 'default', pageSize: 1, relay: 'a' });
        await feed!.close({ stays });
        return world.sql(`SELECT relay FROM ${world.names.relays}`);
      };
      expect([await left(true), await left(false)]).toEqual([[['a']], []]);
    }, url));

  it('a share without messages does not read the messages of others again and again', () =>
    inWorld(async (world) => {
      const [a, b] = await halves(world);
      await world.add(...Array.from({ length: 1_500 }, (_, n) => `${second}:${String(n)}`));
      await b.drain();
      await a.drain();
      await world.add('later');
      await a.drain();
      const low = await world.value(`SELECT max(low)::int FROM ${world.names.cursors} WHERE partition < 4`);
      expect(low).toBeGreaterThanOrEqual(1_500);
      expect(a.acknowledged.length + b.acknowledged.length).toBeGreaterThanOrEqual(1_500);
    }, url));
});

/**
 * One interleaving for each hazard of leases: a relay that lost its lease, a crash of the server, a claim while the
 * last settlement is being committed. Each runs on the store, and on a mutant of it. Also what a relay reports about
 * it.
 */
import { beforeAll, describe, expect, it, vi } from 'vitest';
import type { Page } from '../../../src/core/contracts/feed.js';
import type { Database } from '../../../src/stores/postgres/sql/database.js';
import type { Parked } from '../../../src/stores/postgres/relay/parked.js';
import { postgresVersions } from '../../support/embedded-postgres.js';
import { createDatabase, inWorld, itHolds, mutantStatement, type Hazard, type Mutant, type World } from './support.js';

const FENCE = {
  place: [
    'c.ctid = ANY($1::text::tid[]) AND c.ctid = (SELECT $1::text::tid[])[c.partition + 1]',
    '$1::text IS NOT NULL',
  ],
  owner: ['AND c.owner = $3::text AND c.epoch = $4::bigint', 'AND $3::text IS NOT NULL AND $4::bigint IS NOT NULL'],
} as const;

type Tail<T extends readonly unknown[]> = T extends [unknown, ...infer Rest] ? Rest : never;

/** Settles a page of a relay that lost its lease. Returns how that ended. */
async function settleLate(relay: { settle: (page: Page) => Promise<void> }, page: Page): Promise<string> {
  return relay.settle(page).then(
    () => 'settled',
    (error: unknown) => (error as { code: string }).code,
  );
}

const hazards: Record<string, Hazard> = {
  'a relay that lost its lease does not rewind the cursor': {
    play: zombie,
    mutant: mutantStatement('settle', FENCE.place, FENCE.owner),
    right: { ended: 'LEASE_LOST', parked: '0', acknowledged: ['m1', 'm2', 'm3'] },
    wrong: { ended: 'settled', parked: '1', acknowledged: ['m1', 'm2', 'm3', 'm1', 'm2', 'm3'] },
  },

  'parked messages are read after the claim': {
    play: claimDuringSettlement,
    mutant: (() => {
      let load: typeof Parked.load;
      let loaded: ReturnType<typeof Parked.load>;
      return {
        parked: (original) => {
          load = (...args) => original.Parked.load(...args);
          return { Parked: { load: () => loaded } as unknown as typeof Parked };
        },
        lease: ({ Lease }) => ({
          Lease: {
            async claim(...args: Parameters<typeof Lease.claim>) {
              loaded = load(...args, [0, 1, 2, 3, 4, 5, 6, 7]);
              await loaded;
              return Lease.claim(...args);
            },
          } as unknown as typeof Lease,
        }),
      } satisfies Mutant;
    })(),
    right: ['k:1', 'k:2'],
    wrong: ['k:2'],
  },

  // Otherwise a crash could forget the claim, and two relays would hold the same epoch.
  'a claim is committed synchronously, but a settlement is not': {
    async play(world) {
      const { cursors } = world.names;
      await world.sql('CREATE TABLE IF NOT EXISTS committed (of text, how text)');
      await world.sql('TRUNCATE committed');
      await world.sql(`CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO committed VALUES (TG_ARGV[0], current_setting('synchronous_commit')); RETURN NEW; END $$`);
      await world.sql(`CREATE TRIGGER claims BEFORE UPDATE ON ${cursors} FOR EACH ROW
        WHEN (OLD.epoch <> NEW.epoch) EXECUTE FUNCTION note('a claim')`);
      await world.sql(`CREATE TRIGGER settlements BEFORE UPDATE ON ${cursors} FOR EACH ROW
        WHEN (OLD.high <> NEW.high) EXECUTE FUNCTION note('a settlement')`);
      await world.add('m');
      await (await world.relay()).drain();
      return world.sql('SELECT DISTINCT of, how FROM committed ORDER BY of');
    },
    mutant: {
      lease: ({ Lease }) => ({
        Lease: {
          claim: (database: Database, ...rest: Tail<Parameters<typeof Lease.claim>>) => {
            const transaction: Database['transaction'] = (preamble, ...more) =>
              database.transaction(preamble.replace('synchronous_commit = on', 'synchronous_commit = off'), ...more);
            return Lease.claim({ ...database, transaction }, ...rest);
          },
        } as unknown as typeof Lease,
      }),
    },
    right: [
      ['a claim', 'on'],
      ['a settlement', 'off'],
    ],
    wrong: [
      ['a claim', 'off'],
      ['a settlement', 'off'],
    ],
  },

  'a crash of the server ends every claim': {
    async play(world) {
      const relay = await world.relay();
      await world.add('m');
      const page = await relay.read();
      // What a crash and a promotion do to an unlogged table.
      await world.sql(`TRUNCATE ${world.names.claims}`);
      return settleLate(relay, page);
    },
    mutant: mutantStatement('settle', ['AND EXISTS', 'AND true OR EXISTS']),
    right: 'LEASE_LOST',
    wrong: 'settled',
  },
};

/** A relay reads a page, loses its lease to another that delivers everything, and comes back to settle it. */
async function zombie(world: World): Promise<unknown> {
  await world.add('m1', 'm2', 'm3');
  const lost = await world.relay({ pageSize: 1 });
  const page = await lost.read();
  await world.expireLease();
  const heir = await world.relay();
  await heir.drain();
  const failed = { message: page.messages[0]!, attempts: 1, error: new Error('refused'), retryIn: 0, dead: false };
  const ended = await settleLate({ settle: (late) => lost.settle(late, [failed]) }, page);
  const parked = await world.value(`SELECT count(*)::text FROM ${world.names.parked}`);
  await world.expireLease();
  const next = await world.relay({}, heir.acknowledged);
  await next.drain();
  await next.drain();
  return { ended, parked, acknowledged: heir.acknowledged };
}

/**
 * The last settlement of a lease that runs out before it is committed: it parks the first message of a
 * key, while the next relay is about to claim the row.
 */
async function claimDuringSettlement(world: World): Promise<string[]> {
  const { cursors, messages, parked } = world.names;
  await world.add('k:1', 'k:2');
  const old = await world.relay({ pageSize: 1 });
  const { from, to, after, low, nextLow, high } = (await old.read()).log!.cursor();
  // The lease expires while its settlement is in progress.
  await world.expireLease();
  const settlement = await world.begin();
  await settlement.query(
    `UPDATE ${cursors} SET from_snapshot = $1, to_snapshot = $2, after = $3, low = $4, next_low = $5, high = $6,
       written_by = pg_current_xact_id(), expires_at = clock_timestamp()`,
    [from, to, after, low, nextLow, high],
  );
  await settlement.query(
    `INSERT INTO ${parked} (destination, seq, key_hash, stored_at, at, id, key, metadata, payload, attempts, next_at)
     SELECT 'default', seq, key_hash, stored_at, at, id, key, metadata, payload, 1, clock_timestamp() FROM ${messages} WHERE id = 'k:1'`,
  );
  const claiming = world.gate.hold('look');
  const opening = world.relay();
  await claiming;
  await settlement.commit();
  world.gate.open();
  const heir = await opening;
  const page = await heir.read();
  await heir.settle(page, await heir.publish(page));
  await heir.drain();
  return heir.acknowledged;
}

describe.each(postgresVersions)('PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, 'hazards_lease');
  });

  itHolds(() => url, hazards);

  // A place is used again once its old row is vacuumed away, and an owner may forget what it wrote last.
  it.each([
    ['the owner and the epoch alone keep', FENCE.place],
    ['the place alone keeps', FENCE.owner],
  ])('%s a relay that lost its lease from changing anything', (_, removed) =>
    inWorld(
      async (world) => {
        expect(await zombie(world)).toMatchObject({ ended: 'LEASE_LOST', parked: '0' });
      },
      url,
      mutantStatement('settle', removed),
    ),
  );

  it('a process that froze in a settlement has lost its lease, whatever it hears first', () =>
    inWorld(async (world) => {
      const { cursors } = world.names;
      const relay = await world.relay();
      await world.add('m');
      const page = await relay.read();
      const locker = await world.begin();
      await locker.query(`SELECT FROM ${cursors} FOR UPDATE`);
      const ended = relay.settle(page).catch((error: unknown) => error);
      await world.waiting('any');
      // Its clock has moved on, its timers have not, and the server has ended its connection.
      const now = performance.now.bind(performance);
      const clock = vi.spyOn(performance, 'now').mockImplementation(() => now() + 600_000);
      try {
        await world.sql(`SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
          WHERE NOT granted AND datname = current_database()`);
        expect(await ended).toMatchObject({
          code: 'LEASE_LOST',
          message: expect.stringMatching(/^the lease was not renewed in time: .*terminat/) as string,
        });
      } finally {
        clock.mockRestore();
      }
    }, url));
});

/**
 * One interleaving for each hazard of rows of the cursors that move while a relay works: because of VACUUM FULL,
 * CLUSTER, or somebody who changes one. Each runs on the store, and on a mutant of it. The relay has taken over from
 * two others, so that it holds rows with different cursors in one epoch.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PostgresFeed } from '../../../src/stores/postgres/relay/feed.js';
import type { ClaimOptions } from '../../../src/stores/postgres/relay/claim.js';
import { databaseOf } from '../../../src/stores/postgres/drivers/index.js';
import { Lease } from '../../../src/stores/postgres/relay/lease.js';
import { statementsOf } from '../../../src/stores/postgres/relay/statements.js';
import { postgresVersions, startPostgres, type EmbeddedPostgres } from '../../support/embedded-postgres.js';
import { halves, keysOf } from './halves.js';
import { inWorld, itHolds, mutantStatement, NotSetUp, type Hazard, type TestRelay, type World } from './support.js';

const [first] = keysOf(0) as [string];
const [second] = keysOf(1) as [string];

const MOVES = {
  'VACUUM FULL': { sql: (cursors: string) => `VACUUM FULL ${cursors}`, order: 'ctid' },
  CLUSTER: {
    sql: (cursors: string) => `CLUSTER ${cursors} USING cursors_identity`,
    order: 'destination, partition',
  },
} as const;
type Move = keyof typeof MOVES;

const FENCE = {
  pair: ['AND c.ctid = (SELECT $1::text::tid[])[c.partition + 1]', ''],
  count: ['count(*) OVER () <> $5::integer', '$5::integer IS NULL'],
} as const;

/** Rows of other destinations, which stand between ours. */
async function fill(world: World, destination: string, count: number): Promise<void> {
  await world.sql(
    `INSERT INTO ${world.names.cursors} (destination, partition) SELECT $1, generate_series(0, $2::int - 1)`,
    [destination, count],
  );
}

/** A relay that has taken over from two others. The first has published its half, and the second nothing. */
async function heirOfTwo(world: World): Promise<TestRelay> {
  const { cursors } = world.names;
  await world.sql(`ALTER TABLE ${cursors} SET (fillfactor = 100, autovacuum_enabled = off)`);
  await fill(world, 'a', 20);
  const [a, b] = await halves(world);
  await world.add(...[1, 2, 3, 4].flatMap((n) => [`${first}:${n}`, `${second}:${n}`]));
  await a.drain();
  await a.close();
  await b.close();
  await world.add(...[5, 6, 7, 8].map((n) => `${first}:${n}`));
  await world.sql(`VACUUM FULL ${cursors}`);
  return world.relay({ pageSize: 2 }, a.acknowledged);
}

/** Where the rows of a half are, as numbers in the first page of the table. */
async function placesOf(world: World, half: number): Promise<number[]> {
  const rows = await world.sql(
    `SELECT ctid::text FROM ${world.names.cursors} WHERE destination = 'default' AND partition / 4 = $1 ORDER BY partition`,
    [half],
  );
  return rows.map(([ctid]) => {
    const [, line] = /^\(0,(\d+)\)$/.exec(ctid as string) ?? [];
    // The server makes room in a page when nobody may still see what is dead, which others on it have a say in.
    if (line === undefined) throw new NotSetUp('the rows are no longer in one page');
    return Number(line);
  });
}

/** Moves the rows so that those of the second half come to where those of the first were. */
async function moveOntoFirstHalf(world: World, move: Move): Promise<void> {
  const { cursors } = world.names;
  const { sql, order } = MOVES[move];
  const before = await placesOf(world, 0);
  const rank = (await world.value(
    `SELECT n::int FROM (SELECT destination, partition, row_number() OVER (ORDER BY ${order}) AS n FROM ${cursors}) ranked
      WHERE destination = 'default' AND partition = 4`,
  )) as number;
  const excess = rank - before[0]!;
  if (excess < 0) throw new NotSetUp('the rows are further behind than they can come');
  await world.sql(`DELETE FROM ${cursors} WHERE destination = 'b' AND partition < $1`, [excess]);
  await world.sql(sql(cursors));
  if (String(await placesOf(world, 1)) !== String(before)) throw new NotSetUp('the rows came to other places');
}

/** The columns of the cursors that say what is published. */
function cursorsOf(world: World): Promise<unknown[][]> {
  return world.sql(
    `SELECT partition, from_snapshot::text, to_snapshot::text, after, low, high FROM ${world.names.cursors}
      WHERE destination = 'default' ORDER BY partition`,
  );
}

async function endOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'done',
    (error: unknown) => (error as { code?: string }).code ?? String((error as Error).stack),
  );
}

/** Claims the lease again if necessary, and publishes everything. Returns what was acknowledged of each half. */
async function finish(world: World, relay: TestRelay): Promise<Record<string, string[]>> {
  await world.expireLease();
  await relay.reopen();
  await relay.drain();
  const ofKey = (key: string) => [...new Set(relay.acknowledged.filter((id) => id.startsWith(`${key}:`)))];
  return { [first]: ofKey(first), [second]: ofKey(second) };
}

const ALL = {
  [first]: [1, 2, 3, 4, 5, 6, 7, 8].map((n) => `${first}:${n}`),
  [second]: [1, 2, 3, 4].map((n) => `${second}:${n}`),
};

/** Settles a page of the first half when the rows of the second have come to where those of the first were. */
async function settleMoved(world: World, move: Move): Promise<unknown> {
  const relay = await heirOfTwo(world);
  await fill(world, 'b', 30);
  const of = async (key: string) => {
    const page = await relay.read();
    expect(new Set(page.messages.map((message) => message.key))).toEqual(new Set([key]));
    const toPark = await relay.publish(page);
    return () => relay.settle(page, toPark);
  };
  const settleFirst = await of(first);
  // Behind the rows of the others.
  await (
    await of(second)
  )();
  await moveOntoFirstHalf(world, move);
  const ended = await endOf(settleFirst());
  return { ended, ...(await finish(world, relay)) };
}

const hazards: Record<string, Hazard> = Object.fromEntries([
  ...(Object.keys(MOVES) as Move[]).map((move): [string, Hazard] => [
    `a row that ${move} has moved is not taken for another partition's`,
    {
      play: (world) => settleMoved(world, move),
      mutant: mutantStatement('settle', FENCE.pair),
      right: { ended: 'LEASE_LOST', ...ALL },
      wrong: { ended: 'LEASE_LOST', ...ALL, [second]: [`${second}:1`, `${second}:2`] },
    },
  ]),
  [
    'if one row was moved, none of the others is settled',
    {
      async play(world) {
        await world.add('m');
        const relay = await world.relay();
        const page = await relay.read();
        const before = await cursorsOf(world);
        await world.sql(
          `UPDATE ${world.names.cursors} SET written_by = pg_current_xact_id() WHERE destination = 'default' AND partition = 3`,
        );
        const ended = await endOf(relay.settle(page));
        const after = await cursorsOf(world);
        return { ended, settled: after.filter((row, n) => JSON.stringify(row) !== JSON.stringify(before[n])).length };
      },
      mutant: mutantStatement('settle', FENCE.count),
      right: { ended: 'LEASE_LOST', settled: 0 },
      wrong: { ended: 'LEASE_LOST', settled: 7 },
    },
  ],
]);

/** What a relay does, step by step. The rows are moved between the steps. */
const STEPS: Record<string, (relay: TestRelay) => Promise<unknown>> = {
  settle: (relay) => poll(relay.feed, relay, () => []),
  park: (relay) =>
    poll(relay.feed, relay, (messages) =>
      messages
        .slice(0, 1)
        .map((message) => ({ message, attempts: 1, error: new Error('refused'), retryIn: 0, dead: false })),
    ),
  'try again': async (relay) => {
    const page = await relay.feed.retries();
    await relay.settle(page, await relay.publish(page));
  },
  rebalance: (relay) => relay.feed.rebalance(),
  release: (relay) => relay.close(),
};

type Entries = Parameters<PostgresFeed['settle']>[1];

/** Publishes a page, but for what is parked of it. */
async function poll(
  feed: PostgresFeed,
  relay: TestRelay,
  choose: (messages: readonly Entries[number]['message'][]) => Entries,
): Promise<void> {
  const page = await feed.read();
  const toPark = choose(page.messages);
  const keys = new Set(toPark.map(({ message }) => message.key));
  const behind = page.messages
    .filter((message) => keys.has(message.key) && !toPark.some((each) => each.message === message))
    .map((message) => ({ message, attempts: 0, dead: false }));
  const rest = page.messages.filter(({ key }) => !keys.has(key));
  const failed = await relay.publish({ messages: rest });
  await relay.settle(page, [...toPark, ...behind, ...failed]);
}

describe.each(postgresVersions)('PostgreSQL %i', (version) => {
  // A server of its own: a replication slot that another file creates keeps dead rows in every database of its server.
  let server: EmbeddedPostgres;
  let url: string;
  beforeAll(async () => {
    server = await startPostgres(version, { autovacuum: 'off', fsync: 'off' });
    url = await server.createDatabase('hazards_places');
  });
  afterAll(() => server.remove());

  itHolds(() => url, hazards);

  const moves = [...Object.keys(MOVES), 'VACUUM'];
  it.each(moves.flatMap((move) => Object.keys(STEPS).map((step) => [move, step] as const)))(
    '%s before each step from "%s" on: every message arrives in order, and nobody waits for the lease',
    (move, from) =>
      inWorld(async (world) => {
        const { cursors } = world.names;
        const relay = await heirOfTwo(world);
        await fill(world, 'b', 30);
        const names = Object.keys(STEPS);
        for (const step of [...names, ...names, ...names]) {
          await world.sql(`DELETE FROM ${cursors} WHERE destination = 'b' AND partition % 3 = $1`, [step.length % 3]);
          if (names.indexOf(step) >= names.indexOf(from)) {
            await world.sql(move in MOVES ? MOVES[move as Move].sql(cursors) : `VACUUM ${cursors}`);
          }
          const ended = await endOf(STEPS[step]!(relay));
          expect(['done', 'LEASE_LOST']).toContain(ended);
          // The lease is free, even if it was lost.
          if (ended !== 'done' || step === 'release') await relay.reopen();
          expect(relay.feed.partitions).toHaveLength(8);
        }
        expect(await finish(world, relay)).toEqual(ALL);
      }, url),
  );

  it.each(['settle', 'renew', 'park'] as const)('%s changes all held rows, or none', (kind) =>
    inWorld(async (world) => {
      const { cursors } = world.names;
      const options: ClaimOptions = {
        ...{ destination: 'default', partitions: 8, lease: 600_000, timeout: 30_000, synchronousSettle: false },
      };
      const database = databaseOf(world.pool);
      const rows = () => world.sql(`SELECT * FROM ${cursors} WHERE partition <> 3 ORDER BY partition`);
      const change = (lease: Lease, high: number) => {
        const cursor = { from: '9:9:', to: null, after: 0, low: 0, nextLow: 0, high };
        if (kind === 'renew') return lease.change();
        return lease.settle(lease.partitions, cursor, kind === 'settle' ? undefined : async () => undefined);
      };
      // Twice: the first time the connection has no prepared statement, and then it sends one script.
      const { lease } = (await Lease.claim(database, statementsOf(world.names, false), options))!;
      await change(lease, 1);
      await change(lease, 2);
      await world.sql(`UPDATE ${cursors} SET written_by = pg_current_xact_id() WHERE partition = 3`);
      const before = await rows();
      expect(await endOf(change(lease, 3))).toBe('LEASE_LOST');
      expect(await rows()).toEqual(before);
      await lease.release();
      expect(await world.value(`SELECT count(*)::int FROM ${cursors} WHERE owner IS NULL`)).toBe(8);
      // The connections are still the same.
      const { lease: next } = (await Lease.claim(database, statementsOf(world.names, false), options))!;
      await change(next, 4);
      await next.release();
    }, url),
  );
});

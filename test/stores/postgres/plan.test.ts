/**
 * An idle poll over a million old messages touches no more pages than one over a thousand, whatever the statistics say
 * and whenever the plan was made. Neither does cleaning over finished messages, or a look for retries over waiting
 * ones. The test counts pages, not time.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cleanSlices } from '../../../src/stores/postgres/ops/clean.js';
import { cleaningOf } from '../../../src/stores/postgres/ops/clean-statements.js';
import { databaseOf } from '../../../src/stores/postgres/drivers/index.js';
import { INDEX_SETTINGS } from '../../../src/stores/postgres/sql/statement.js';
import { SETTLE_SETTINGS } from '../../../src/stores/postgres/relay/lease-statements.js';
import { READ_SETTINGS } from '../../../src/stores/postgres/relay/log-statements.js';
import { statementsOf } from '../../../src/stores/postgres/relay/statements.js';
import { preamble, type Database, type Statement } from '../../../src/stores/postgres/sql/database.js';
import { postgresVersions, startPostgres, type EmbeddedPostgres } from '../../support/embedded-postgres.js';
import { createDatabase, inWorld, type Session, type World } from './support.js';

const FEW = 1_000;

interface Node {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Actual Rows': number;
  readonly 'Shared Hit Blocks': number;
  readonly 'Shared Read Blocks': number;
  readonly Plans?: readonly Node[];
}

const nodesOf = (node: Node): Node[] => [node, ...(node.Plans ?? []).flatMap(nodesOf)];
const pagesOf = (plan: Node): number => plan['Shared Hit Blocks'] + plan['Shared Read Blocks'];

/** Prepares a statement as a driver does, so that its generic plan is kept from the first run on. */
async function prepare(session: Session, name: string, { text }: Statement): Promise<void> {
  await session.query(`PREPARE ${name} AS ${text}`);
}

/** The plan with which a prepared statement really runs, under the settings of the relay. */
async function explain(session: Session, call: string, settings: readonly string[]): Promise<Node> {
  await session.query(`BEGIN; ${preamble(30_000, ...settings)}`);
  try {
    const [row] = await session.query(`EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE ${call}`);
    return (row![0] as [{ Plan: Node }])[0].Plan;
  } finally {
    await session.query('ROLLBACK');
  }
}

/** Old messages, loaded by the owner in one transaction. `slice` says where a message goes. */
async function load(world: World, count: number, slice: string): Promise<void> {
  const { messages } = world.names;
  await world.sql(`INSERT INTO ${messages} (id, payload, slice)
    SELECT 'm' || n, '\\x01', ${slice} FROM generate_series(1, ${count}) n`);
}

/** The cursor of a relay that has delivered everything, as arguments of `read`. */
async function caughtUp(world: World, share = 'NULL'): Promise<string> {
  return (await world.value(
    `SELECT format('(%L, NULL, 0, %s, 1000, ${share}, 8, NULL, 4000, ''default'', %s)', pg_current_snapshot(), coalesce(max(seq), 0), pg_get_serial_sequence('${world.names.messages}', 'seq')::regclass::oid) FROM ${world.names.messages}`,
  )) as string;
}

/**
 * The statements of a poll: where its cursor lists transactions, or did when the plan was made, and where it does not;
 * of messages that had limits when they were stored, and of any.
 */
const POLLS = ['read', 'readNew', 'readAny', 'readAnyNew'] as const;
type Poll = (typeof POLLS)[number];

/** What a poll looks into: each of eight slices for new rows, and with `read` for late ones too. */
const SCANS: Record<Poll, number> = { read: 16, readNew: 8, readAny: 16, readAnyNew: 8 };

/** An idle poll as it is again and again: one reads the catalogs, too, at first and when others have changed much there. */
async function idlePoll(session: Session, poll: Poll, cursor: string): Promise<Node> {
  const plans: Node[] = [];
  for (let run = 0; run < 10; run++) plans.push(await explain(session, `${poll} ${cursor}`, READ_SETTINGS));
  return plans.reduce((best, plan) => (pagesOf(plan) < pagesOf(best) ? plan : best));
}

/** The plans of idle polls over so many old messages, each with what made it. */
async function idlePolls(world: World, count: number, slice: string): Promise<Map<string, { poll: Poll; plan: Node }>> {
  const statements = statementsOf(world.names, false);
  const plans = new Map<string, { poll: Poll; plan: Node }>();
  const add = async (how: string, session: Session, cursor: string, polls: readonly Poll[] = POLLS) => {
    for (const poll of polls) plans.set(`${poll}, ${how}`, { poll, plan: await idlePoll(session, poll, cursor) });
  };
  // Only this test decides when there are statistics, and the loaded data need not survive a crash.
  for (let n = 0; n < 8; n++) {
    await world.sql(`ALTER TABLE ${world.names.slice(n)} SET (autovacuum_enabled = off)`);
    await world.sql(`ALTER TABLE ${world.names.slice(n)} SET UNLOGGED`);
  }
  const [early, late, open] = [await world.session(), await world.session(), await world.session()];
  for (const poll of POLLS) {
    await prepare(early, poll, statements[poll]);
    await idlePoll(early, poll, await caughtUp(world));
  }
  await load(world, count, slice);
  const cursor = await caughtUp(world);
  await add('planned when it was empty', early, cursor);
  for (const poll of POLLS) await prepare(late, poll, statements[poll]);
  await add('never analyzed', late, cursor);
  await world.sql(`ANALYZE ${world.names.messages}`);
  await add('analyzed', late, cursor);
  await add('analyzed, for some of the partitions', late, await caughtUp(world, "''{1,4}''"));
  await open.query('BEGIN');
  await open.xid();
  await world.add('later');
  const listing = await caughtUp(world);
  expect(listing).toMatch(/'\d+:\d+:\d+/);
  await add('analyzed, with an open transaction', late, listing, ['read', 'readAny']);
  return plans;
}

describe.each(postgresVersions)('an idle relay, on PostgreSQL %i', (version) => {
  const MANY = version === 17 ? 1_000_000 : 200_000;
  // A server of its own, because a poll looks for each transaction that its cursor lists, including those of other
  // tests on the server.
  let server: EmbeddedPostgres;
  let url: string;
  beforeAll(async () => {
    server = await startPostgres(version, { fsync: 'off' });
    url = server.url();
  });
  afterAll(() => server.remove());

  it.each([
    ['one slice', '3'],
    ['eight slices', `((n - 1) * 8 / ${MANY})::smallint`],
  ])(`touches as few pages over ${String(MANY)} messages in %s as over a thousand`, async (_, slice) => {
    const few = await inWorld((world) => idlePolls(world, FEW, slice), url);
    const many = await inWorld((world) => idlePolls(world, MANY, slice), url);
    for (const [how, { poll, plan }] of many) {
      expect(pagesOf(plan), how).toBeLessThanOrEqual(3 * pagesOf(few.get(how)!.plan));
      expect(pagesOf(plan), how).toBeLessThanOrEqual(100);
      const log = nodesOf(plan).filter((node) => node['Relation Name']?.startsWith('messages'));
      expect(log.length, how).toBe(SCANS[poll]);
      expect(new Set(log.map((node) => node['Node Type'])), how).toEqual(new Set(['Index Scan']));
      for (const sort of nodesOf(plan).filter((node) => node['Node Type'].includes('Sort'))) {
        expect(sort['Actual Rows'], how).toBeLessThanOrEqual(1_000);
      }
    }
  });

  it.each(['settle', 'renew', 'release'] as const)('%s finds its rows by their place', (kind) =>
    inWorld(async (world) => {
      const { cursors } = world.names;
      await world.relay();
      const session = await world.session();
      await prepare(session, 'change', statementsOf(world.names, false)[kind]);
      const fence = (await world.value(
        `SELECT format('%L, %L, %L, %s', array_agg(ctid ORDER BY partition)::text, 'default', min(owner), min(epoch)) FROM ${cursors}`,
      )) as string;
      const rest = { settle: `, 8, 1000, '9:9:', NULL, 0, 0, 0, 0`, renew: ', 8, 1000', release: '' }[kind];
      // As it is at first, and with what plans may believe of a tiny table.
      for (const before of ['SELECT', `ANALYZE ${cursors}`]) {
        await world.sql(before);
        for (const mode of ['custom', 'generic']) {
          const settings = [...SETTLE_SETTINGS, `SET LOCAL plan_cache_mode = force_${mode}_plan`];
          const nodes = nodesOf(await explain(session, `change(${fence}${rest})`, settings));
          const rows = nodes.find((node) => node['Relation Name'] === 'cursors' && node['Node Type'] !== 'ModifyTable');
          expect(rows).toMatchObject({ 'Node Type': 'Tid Scan', 'Actual Rows': 8 });
        }
      }
    }, url),
  );
});

/** A statement, and its call under the name `look`. */
interface Look {
  readonly statement: Statement;
  readonly call: string;
}

/** The runs of statements whose plans are made in different circumstances, each with its name and these circumstances. */
async function explainings(
  world: World,
  looks: Readonly<Record<string, Look>>,
  settings: readonly string[],
  { fill, table }: { fill: () => Promise<unknown>; table: string },
): Promise<Record<string, Node>> {
  await world.sql(`ALTER TABLE ${table} SET (autovacuum_enabled = off)`);
  const planned = await Promise.all(
    Object.entries(looks).map(async ([name, look]) => {
      const [early, late] = [await world.session(), await world.session()];
      await prepare(early, 'look', look.statement);
      return { name, ...look, early, late };
    }),
  );
  // Six times, because after five runs a generic plan may be kept.
  for (const { early, call } of planned) for (let n = 0; n < 6; n++) await explain(early, call, settings);
  await fill();
  const plans: Record<string, Node> = {};
  const run = async (how: string, when: 'early' | 'late'): Promise<void> => {
    for (const { name, call, [when]: session } of planned) {
      await explain(session, call, settings);
      plans[`${name}, ${how}`] = await explain(session, call, settings);
    }
  };
  await run('planned when it was empty', 'early');
  for (const { late, statement } of planned) await prepare(late, 'look', statement);
  await run('never analyzed', 'late');
  await world.sql(`ANALYZE ${table}`);
  await run('analyzed', 'late');
  for (const { late, call } of planned) for (let n = 0; n < 6; n++) await explain(late, call, settings);
  await run('analyzed, after some runs', 'late');
  return plans;
}

describe.each(postgresVersions)('cleaning, on PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, 'plan_cleaning');
  });

  const FINISHED = 150_000;

  /** Every destination has delivered everything, and knows about running transactions. */
  async function finish(world: World): Promise<void> {
    await world.sql(`UPDATE ${world.names.cursors} SET from_snapshot = pg_current_snapshot(), to_snapshot = NULL,
      low = (SELECT coalesce(max(seq), 0) FROM ${world.names.messages}), written_by = pg_current_xact_id()`);
  }

  it.each([
    ['as it is', false, 1],
    ['with open transactions', true, 1],
    ['for stragglers, with open transactions', true, 1_001],
  ])('looks over a slice of finished messages by its index, %s', (_, open, limit) =>
    inWorld(async (world) => {
      const slice = world.names.slice(3);
      await world.relay();
      const { unfinished } = cleaningOf(world.names, 3);
      const looks = { unfinished: { statement: unfinished, call: `look(${limit})` } };
      const plans = await explainings(world, looks, INDEX_SETTINGS, {
        table: slice,
        fill: async () => {
          await load(world, FINISHED / 2, '3');
          if (open) for (let n = 0; n < 3; n++) await (await world.begin()).xid();
          await load(world, FINISHED / 2, '3');
          await finish(world);
        },
      });
      expect(await world.sql(unfinished.text, [limit])).toEqual([]);
      for (const [how, plan] of Object.entries(plans)) {
        expect(pagesOf(plan), how).toBeLessThanOrEqual(300);
        const nodes = nodesOf(plan);
        expect(
          nodes.filter((node) => node['Node Type'] === 'Seq Scan' && node['Relation Name'] === 'messages_3'),
          how,
        ).toEqual([]);
        expect(
          nodes.some((node) => node['Node Type'].startsWith('Index') && node['Relation Name'] === 'messages_3'),
        ).toBe(true);
      }
    }, url),
  );

  it('looks with these settings, and before it takes the lock', () =>
    inWorld(async (world) => {
      await world.relay();
      await load(world, 10, '3');
      await finish(world);
      await load(world, 10, '4');
      const ran: { preamble: string; text: string }[] = [];
      const real = databaseOf(world.pool);
      const database: Database = {
        ...real,
        transaction: (preamble, work, bounds) =>
          real.transaction(
            preamble,
            (connection) =>
              work({
                query: (statement, values) => {
                  ran.push({ preamble, text: statement.text });
                  return connection.query(statement, values);
                },
              }),
            bounds,
          ),
      };
      const report = await cleanSlices(database, world.names, 0, { timeout: 10_000 });
      expect(report).toMatchObject({ emptied: 1, rows: 10, moved: 0 });
      const looks = ran.filter(({ text }) => text.includes('NOT EXISTS'));
      expect(looks).toHaveLength(3);
      for (const look of looks) expect(look.preamble).toContain(INDEX_SETTINGS.join('; '));
      // An unfinished or empty slice is not locked for nothing.
      expect(ran.flatMap(({ text }) => /^LOCK TABLE ONLY .*?(messages_\d)/.exec(text)?.[1] ?? [])).toEqual([
        'messages_3',
      ]);
    }, url));
});

describe.each(postgresVersions)('a look for retries, on PostgreSQL %i', (version) => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(version, 'plan_retries');
  });

  const WAITING = 50_000;
  const LIMIT = 100;
  const CALL = `look('default', ${LIMIT}, NULL, 8)`;

  /** So many messages of one key, of which the first is tried again in so long, and the others wait behind it. */
  async function park(world: World, key: string | null, count: number, retryIn: string): Promise<void> {
    await world.sql(
      `INSERT INTO ${world.names.parked} (destination, seq, key_hash, stored_at, at, next_at, id, key, metadata, payload)
        SELECT 'default', last + n, 0, now(), now(), CASE WHEN n = 1 THEN now() + $3::interval END, coalesce($1, '') || ':' || n, $1, '{}', '\\x01'
        FROM generate_series(1, $2::int) n, (SELECT coalesce(max(seq), 0) AS last FROM ${world.names.parked}) l`,
      [key, count, retryIn],
    );
  }

  /** The ids of the due messages. */
  async function due(world: World): Promise<string[]> {
    const session = await world.session();
    await prepare(session, 'look', statementsOf(world.names, false).due);
    return (await session.query(`EXECUTE ${CALL}`)).map((row) => row[1] as string);
  }

  const numbered = (key: string, count: number) => Array.from({ length: count }, (_, n) => `${key}:${n + 1}`);

  /** The plans of looks, over what `fill` has parked. */
  const looks = (world: World, fill: () => Promise<unknown>) => {
    const due = { statement: statementsOf(world.names, false).due, call: CALL };
    return explainings(world, { due }, INDEX_SETTINGS, { table: world.names.parked, fill });
  };

  function expectFew(plans: Record<string, Node>, most: number): void {
    for (const [how, plan] of Object.entries(plans)) {
      expect(pagesOf(plan), how).toBeLessThanOrEqual(most);
      for (const node of nodesOf(plan)) expect(node['Actual Rows'], how).toBeLessThanOrEqual(3 * LIMIT);
    }
  }

  it('reads no message that waits behind a key that is not due', () =>
    inWorld(async (world) => {
      expectFew(await looks(world, () => park(world, 'slow', WAITING, '1 hour')), 30);
      expect(await due(world)).toEqual([]);
    }, url));

  it('reads no more of a due key than its limit, in order', () =>
    inWorld(async (world) => {
      expectFew(await looks(world, () => park(world, 'slow', WAITING, '-1 second')), 30);
      expect(await due(world)).toEqual(numbered('slow', LIMIT));
    }, url));

  it('finds a due message without a key behind a long key that is not due', () =>
    inWorld(async (world) => {
      const fill = async () => {
        await park(world, 'slow', WAITING, '1 hour');
        await park(world, null, 1, '-1 second');
      };
      expectFew(await looks(world, fill), 50);
      expect(await due(world)).toEqual([':1']);
    }, url));

  it('reads none of many messages without a key that are not due', () =>
    inWorld(async (world) => {
      const fill = async () => {
        await park(world, null, WAITING, '1 hour');
        await world.sql(`UPDATE ${world.names.parked} SET next_at = now() + interval '1 hour'`);
        await world.sql(`VACUUM ${world.names.parked}`);
      };
      expectFew(await looks(world, fill), 50);
      expect(await due(world)).toEqual([]);
    }, url));

  it('reads none of many delayed messages with any statement, with the same key or with none', () =>
    inWorld(async (world) => {
      const { parked } = world.names;
      const { due: statement, promoteHeads, waiting, anyWaiting, drainedKeys } = statementsOf(world.names, false);
      const ofKey = `look('default', '["slow"]')`;
      const ofShare = `look('default', NULL, 8)`;
      const all = {
        due: { statement, call: CALL },
        promoteHeads: { statement: promoteHeads, call: ofKey },
        waiting: { statement: waiting, call: ofShare },
        anyWaiting: { statement: anyWaiting, call: ofShare },
        drainedKeys: { statement: drainedKeys, call: ofKey },
      };
      const fill = async () => {
        for (const key of ['slow', null]) await park(world, key, WAITING, '1 hour');
        await world.sql(`UPDATE ${parked} SET alone = true, next_at = now() + interval '1 hour'`);
        await park(world, 'slow', 3, '-1 second');
        await world.sql(`VACUUM ${parked}`);
      };
      const plans = await explainings(world, all, INDEX_SETTINGS, { table: parked, fill });
      expect(Object.keys(plans)).toHaveLength(5 * 4);
      expectFew(plans, 60);
      expect(await due(world)).toHaveLength(3);
    }, url));

  it('finds a due key behind a long one that is not due', () =>
    inWorld(async (world) => {
      const fill = async () => {
        await park(world, 'slow', WAITING, '1 hour');
        await park(world, 'late', 3, '-1 second');
      };
      expectFew(await looks(world, fill), 50);
      expect(await due(world)).toEqual(numbered('late', 3));
    }, url));

  it('cuts several keys at the limit, each in order from its first message', () =>
    inWorld(async (world) => {
      for (let round = 0; round < 3; round++) {
        for (const key of ['a', 'b', 'c']) await park(world, key, 30, '-1 second');
      }
      // Within a key only the first message has a time of its own.
      await world.sql(`UPDATE ${world.names.parked} p SET next_at = NULL, id = key || ':' || (
          SELECT count(*) FROM ${world.names.parked} e WHERE e.key = p.key AND e.seq <= p.seq)`);
      await world.sql(`UPDATE ${world.names.parked} p SET next_at = now() - interval '1 second' WHERE id LIKE '%:1'`);
      await park(world, null, 1, '-1 second');
      const found = await due(world);
      expect(found).toHaveLength(LIMIT);
      for (const key of ['a', 'b', 'c']) {
        const ofKey = found.filter((id) => id.startsWith(key));
        expect(ofKey).toEqual(numbered(key, ofKey.length));
        expect(ofKey.length).toBeGreaterThanOrEqual(30);
      }
    }, url));
});

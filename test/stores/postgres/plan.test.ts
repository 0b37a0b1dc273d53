/**
 * An idle poll over a million old messages touches no more pages than one over a thousand, whatever the
 * statistics say and whenever the plan was made. Pages are counted, not time.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { READ_SETTINGS, SETTLE_SETTINGS, statementsOf } from '../../../src/stores/postgres/statements.js';
import { preamble, type Statement } from '../../../src/stores/postgres/database.js';
import { createDatabase, inWorld, type Session, type World } from './support.js';

const MANY = 1_000_000;
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

/** The plan that a prepared statement really runs by, under the settings of the relay. */
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

/** The cursor of a relay that has delivered everything, as the arguments of `read`. */
async function caughtUp(world: World): Promise<string> {
  return (await world.value(
    `SELECT format('(%L, NULL, 0, %s, 1000)', pg_current_snapshot(), coalesce(max(seq), 0)) FROM ${world.names.messages}`,
  )) as string;
}

interface Case {
  readonly slice: string;
  readonly analyze: boolean;
  /** The generic plan is made before there is anything in the log. */
  readonly planWhenEmpty: boolean;
  readonly count: number;
}

/** What an idle poll does, without and with a transaction that the snapshot lists. */
async function idlePoll(world: World, { slice, analyze, planWhenEmpty, count }: Case): Promise<Node[]> {
  const { messages } = world.names;
  const { read } = statementsOf(world.names, false);
  // Only this test decides when there are statistics.
  for (let n = 0; n < 8; n++) await world.sql(`ALTER TABLE ${world.names.slice(n)} SET (autovacuum_enabled = off)`);
  const session = await world.session();
  await prepare(session, 'poll', read);
  if (planWhenEmpty) await explain(session, `poll ${await caughtUp(world)}`, READ_SETTINGS);
  await load(world, count, slice);
  if (analyze) await world.sql(`ANALYZE ${messages}`);
  const idle = await explain(session, `poll ${await caughtUp(world)}`, READ_SETTINGS);
  const open = await world.begin();
  await open.xid();
  await world.add('later');
  const listing = await caughtUp(world);
  expect(listing).toMatch(/'\d+:\d+:\d+/);
  return [idle, await explain(session, `poll ${listing}`, READ_SETTINGS)];
}

const ONE = '3';
const SPREAD = `((n - 1) * 8 / ${MANY})::smallint`;
const cases: Record<string, Omit<Case, 'count'>> = {
  'in one slice, analyzed': { slice: ONE, analyze: true, planWhenEmpty: false },
  'in one slice, planned when it was empty': { slice: ONE, analyze: false, planWhenEmpty: true },
  'in eight slices, never analyzed': { slice: SPREAD, analyze: false, planWhenEmpty: false },
};

describe('an idle relay', () => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(17, 'plan');
  });

  it.each(Object.entries(cases))(
    'touches as few pages over a million messages as over a thousand: %s',
    async (_, how) => {
      const few = await inWorld((world) => idlePoll(world, { ...how, count: FEW }), url);
      const many = await inWorld((world) => idlePoll(world, { ...how, count: MANY }), url);
      for (const [i, plan] of many.entries()) {
        expect(pagesOf(plan)).toBeLessThanOrEqual(3 * pagesOf(few[i]!));
        expect(pagesOf(plan)).toBeLessThanOrEqual(100);
        const log = nodesOf(plan).filter((node) => node['Relation Name']?.startsWith('messages'));
        expect(log.length).toBeGreaterThanOrEqual(16);
        expect(new Set(log.map((node) => node['Node Type']))).toEqual(new Set(['Index Scan']));
        for (const sort of nodesOf(plan).filter((node) => node['Node Type'].includes('Sort'))) {
          expect(sort['Actual Rows']).toBeLessThanOrEqual(1_000);
        }
      }
    },
  );

  it.each(['settle', 'renew', 'release'] as const)('%s finds its rows by their place', (kind) =>
    inWorld(async (world) => {
      const { cursors } = world.names;
      await world.relay();
      const session = await world.session();
      await prepare(session, 'change', statementsOf(world.names, false)[kind]);
      const fence = (await world.value(
        `SELECT format('%L, %L, %L, %s', array_agg(ctid)::text, 'default', min(owner), min(epoch)) FROM ${cursors}`,
      )) as string;
      const rest = { settle: `, 1000, '9:9:', NULL, 0, 0, 0, 0`, renew: ', 1000', release: '' }[kind];
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

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

/** An idle poll as it is again and again: the first run of a session also reads the catalogs. */
async function idlePoll(session: Session, cursor: string): Promise<Node> {
  const plans: Node[] = [];
  for (let run = 0; run < 3; run++) plans.push(await explain(session, `poll ${cursor}`, READ_SETTINGS));
  return plans.reduce((best, plan) => (pagesOf(plan) < pagesOf(best) ? plan : best));
}

/** The plans of idle polls over so many old messages, each with what made it. */
async function idlePolls(world: World, count: number, slice: string): Promise<Record<string, Node>> {
  const { read } = statementsOf(world.names, false);
  // Only this test decides when there are statistics; and what is loaded need not survive a crash.
  for (let n = 0; n < 8; n++) {
    await world.sql(`ALTER TABLE ${world.names.slice(n)} SET (autovacuum_enabled = off)`);
    await world.sql(`ALTER TABLE ${world.names.slice(n)} SET UNLOGGED`);
  }
  const [early, late, open] = [await world.session(), await world.session(), await world.session()];
  await prepare(early, 'poll', read);
  await idlePoll(early, await caughtUp(world));
  await load(world, count, slice);
  const cursor = await caughtUp(world);
  const plans: Record<string, Node> = { 'planned when it was empty': await idlePoll(early, cursor) };
  await prepare(late, 'poll', read);
  plans['never analyzed'] = await idlePoll(late, cursor);
  await world.sql(`ANALYZE ${world.names.messages}`);
  plans['analyzed'] = await idlePoll(late, cursor);
  await open.query('BEGIN');
  await open.xid();
  await world.add('later');
  const listing = await caughtUp(world);
  expect(listing).toMatch(/'\d+:\d+:\d+/);
  plans['analyzed, with an open transaction'] = await idlePoll(late, listing);
  return plans;
}

describe('an idle relay', () => {
  let url: string;
  beforeAll(async () => {
    url = await createDatabase(17, 'plan');
  });

  it.each([
    ['one slice', '3'],
    ['eight slices', `((n - 1) * 8 / ${MANY})::smallint`],
  ])('touches as few pages over a million messages in %s as over a thousand', async (_, slice) => {
    const few = await inWorld((world) => idlePolls(world, FEW, slice), url);
    const many = await inWorld((world) => idlePolls(world, MANY, slice), url);
    for (const [how, plan] of Object.entries(many)) {
      expect(pagesOf(plan), how).toBeLessThanOrEqual(3 * pagesOf(few[how]!));
      expect(pagesOf(plan), how).toBeLessThanOrEqual(100);
      const log = nodesOf(plan).filter((node) => node['Relation Name']?.startsWith('messages'));
      expect(log.length, how).toBe(16);
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

/**
 * The cost of the states of the destinations does not grow with the log, nor with what waits. The test counts pages,
 * not time.
 */
import { expect, it } from 'vitest';
import { preamble } from '../../../src/stores/postgres/sql/database.js';
import { STATE_SETTINGS, states } from '../../../src/stores/postgres/ops/destination-state.js';
import { createDatabase, inWorld, type World } from './support.js';

interface Plan {
  readonly 'Shared Hit Blocks': number;
  readonly 'Shared Read Blocks': number;
}

/** The pages that reading the states touches, the best of three: the first also reads the catalogs. */
async function pages(world: World): Promise<number> {
  const session = await world.session();
  const found: number[] = [];
  for (let run = 0; run < 3; run++) {
    await session.query(`BEGIN; ${preamble(30_000, ...STATE_SETTINGS)}`);
    const [row] = await session.query(
      `EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) ${states(world.names).text.replaceAll('$1', 'NULL')}`,
    );
    await session.query('ROLLBACK');
    const { Plan: plan } = (row![0] as [{ Plan: Plan }])[0];
    found.push(plan['Shared Hit Blocks'] + plan['Shared Read Blocks']);
  }
  return Math.min(...found);
}

/** Reads the states for a log of so many messages: from the beginning, read to its end, and with as many parked. */
async function looks(world: World, count: number): Promise<Record<string, number>> {
  const { store, names } = world;
  const { messages, parked, cursors } = names;
  for (let n = 0; n < 8; n++) await world.sql(`ALTER TABLE ${names.slice(n)} SET (autovacuum_enabled = off)`);
  await store.admin.addDestination('behind', { from: 'beginning' });
  await store.admin.addDestination('picky', { from: 'beginning', topics: ['rare'] });
  await store.admin.addDestination('late', { from: 'end' });
  const open = await world.begin();
  await open.xid();
  await store.admin.addDestination('late with an open transaction', { from: 'end' });
  await world.sql(`INSERT INTO ${messages} (id, payload, slice)
    SELECT 'm' || n, '\\x01', ((n - 1) * 8 / ${String(count)})::smallint FROM generate_series(1, ${String(count)}) n`);
  const found: Record<string, number> = { 'never analyzed': await pages(world) };
  await world.sql(`ANALYZE ${messages}`);
  found['analyzed'] = await pages(world);
  // As a relay leaves it that has read one large window to its end, and then nothing: low is far behind.
  await world.sql(
    `UPDATE ${cursors} SET from_snapshot = pg_current_snapshot(), high = ${String(count)}, written_by = pg_current_xact_id()`,
  );
  found['read to the end'] = await pages(world);
  expect((await store.admin.destinations()).map(({ pending }) => pending)).toEqual([0, 0, 0, 0]);
  await world.sql(`INSERT INTO ${parked} (destination, seq, key_hash, stored_at, at, id, key, metadata, payload, dead_at, blocked_at)
    SELECT 'behind', seq, key_hash, stored_at, at, id, 'k' || seq % 100, '{}', payload,
      CASE WHEN seq % 3 = 0 THEN now() END, CASE WHEN seq % 3 = 1 THEN now() END FROM ${messages}`);
  await world.sql(`ANALYZE ${parked}`);
  found['as many parked'] = await pages(world);
  const [behind] = await store.admin.destinations();
  expect(behind).toMatchObject({
    parked: 10_000,
    blocked: Math.min(10_000, count / 3),
    dead: Math.min(10_000, count / 3),
  });
  return found;
}

it('the state of a log of 60,000 messages costs as much as that of 30,000', async () => {
  const url = await createDatabase(17, 'state');
  const few = await inWorld((world) => looks(world, 30_000), url);
  const many = await inWorld((world) => looks(world, 60_000), url);
  for (const [how, count] of Object.entries(many)) expect(count, how).toBeLessThanOrEqual(2 * few[how]!);
}, 180_000);

it('reads the cursors a fixed number of times, however many destinations there are, and reports each by its own cursors', async () => {
  await inWorld(
    async (world) => {
      const { cursors } = world.names;
      await world.sql(`INSERT INTO ${cursors} (destination, partition, expires_at)
        SELECT 'd' || n, p, to_timestamp(n) FROM generate_series(1, 300) n, generate_series(0, 7) p`);
      await world.sql(
        `INSERT INTO ${world.names.messages} (id, payload) SELECT 'm' || n, 'x' FROM generate_series(1, 2000) n`,
      );
      const found = await world.store.admin.destinations();
      expect(found).toHaveLength(300);
      for (const { name, activeAt, pending } of found) {
        expect(activeAt).toEqual(new Date(1000 * Number(name.slice(1))));
        expect(pending).toBe(2000);
      }
      const session = await world.session();
      const rows = async () => {
        await session.query(`BEGIN; ${preamble(30_000, ...STATE_SETTINGS)}`);
        const [row] = await session.query(
          `EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) ${states(world.names).text.replaceAll('$1', 'NULL')}`,
        );
        await session.query('ROLLBACK');
        return rowsOf((row![0] as [{ Plan: Node }])[0].Plan);
      };
      const many = await rows();
      await world.sql(`DELETE FROM ${cursors} WHERE substr(destination, 2)::int > 100`);
      expect(many).toBeLessThan(6 * (await rows()));
    },
    await createDatabase(17, 'many_states'),
  );
}, 180_000);

interface Node {
  readonly 'Actual Rows': number;
  readonly 'Actual Loops': number;
  readonly 'Rows Removed by Filter'?: number;
  readonly 'Rows Removed by Join Filter'?: number;
  readonly Plans?: readonly Node[];
}

/** How many rows all parts of a plan have read or compared. */
function rowsOf(node: Node): number {
  const removed = (node['Rows Removed by Filter'] ?? 0) + (node['Rows Removed by Join Filter'] ?? 0);
  const own = (node['Actual Rows'] + removed) * node['Actual Loops'];
  return own + (node.Plans ?? []).reduce((sum, each) => sum + rowsOf(each), 0);
}

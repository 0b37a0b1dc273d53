/** A restored dump or a logical copy in another cluster: refused, and usable after `rebase`. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PostgresStore } from '../../../src/stores/postgres/index.js';
import { catalog } from '../../support/catalog.js';
import { copyLogically, useUpTransactionIds } from '../../support/copies.js';
import { newDatabase } from '../../support/database.js';
import { oldest, startPostgres, type EmbeddedPostgres } from '../../support/embedded-postgres.js';
import { Outbox } from './moved-support.js';

const refused = (says: RegExp) => ({ code: 'SCHEMA_MISMATCH', message: expect.stringMatching(says) as string });
const REBASE =
  /not written by this database cluster.*`messenger rebase --schema messenger` or `await store\.admin\.rebase\(\)`/;

/** Clusters, one of which has used up many more transaction ids than the others. */
const clusters: Partial<Record<'far' | 'near' | 'alike', EmbeddedPostgres>> = {};

beforeAll(async () => {
  clusters.far = await startPostgres(17, { wal_level: 'logical' });
  clusters.near = await startPostgres(oldest);
  clusters.alike = await startPostgres(17);
  await useUpTransactionIds(clusters.far.url(), 100_000);
});
afterAll(() => Promise.all(Object.values(clusters).map((cluster) => cluster.remove())));

const ways = [
  { from: 'far', to: 'near' },
  { from: 'near', to: 'far' },
  { from: 'near', to: 'alike' },
] as const;

it('is rebased by the command, which says in words what will be published', async () => {
  const old = await Outbox.at(await newDatabase(clusters.far!.url()), { environment: 'production' });
  await old.add('a:1', 'b:1', 'c:1');
  await old.relay({ pages: 1, pageSize: 1 });
  await old.relay({ destination: 'other', toPark: (id) => (id === 'a:1' ? 60_000 : undefined) });
  const moved = await Outbox.at(await newDatabase(clusters.near!.url()));
  await copyLogically(await old.session(), moved.pool, { sequence: true });
  const command = (...args: string[]) => messenger('rebase', '--url', moved.url, ...args);
  expect(await command()).toEqual({
    code: 0,
    stderr: '',
    stdout: `schema messenger came from another cluster, and now belongs to this one: relays can be started
destination default: 2 messages (seq 2 to 3) will be published; those published after the copy was made will be published again
destination other: 0 messages and 1 parked messages will be published; those published after the copy was made will be published again
it belongs to the environment production
`,
  });
  expect(await command('--environment', 'staging')).toEqual({
    code: 0,
    stderr: '',
    stdout: `schema messenger belongs to this cluster: nothing to rebase
it belongs to the environment staging
`,
  });
  expect(await command('--schema', 'other')).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('messenger migrate --schema other') as string,
  });
  expect(await messenger('migrate', '--url', moved.url, '--environment', 'production')).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('belongs to the environment "staging"') as string,
  });
});

it('does not wait for a relay or a writer', async () => {
  const old = await Outbox.at(await newDatabase(clusters.far!.url()));
  await old.add('a:1');
  const feed = await old.store.openFeed({ destination: 'default', pageSize: 10 });
  const moved = await Outbox.at(await newDatabase(clusters.near!.url()));
  await copyLogically(await old.session(), moved.pool, { sequence: true });
  // A lease of the old cluster holds nothing here.
  expect(await moved.value('SELECT count(*)::int FROM messenger.cursors WHERE expires_at > now()')).toBe(3);
  const writer = await moved.begin();
  await moved.addTo(writer, 'a:2');
  await expect(moved.store.admin.rebase()).rejects.toMatchObject({
    code: 'CONFLICT',
    message: expect.stringContaining('a transaction that has stored messages') as string,
  });
  await writer.query('COMMIT');
  expect(await moved.store.admin.rebase()).toMatchObject({ moved: true });
  const here = await moved.store.openFeed({ destination: 'default', pageSize: 10 });
  await expect(moved.store.admin.rebase({ environment: 'staging' })).rejects.toMatchObject({
    code: 'CONFLICT',
    message: expect.stringContaining('a relay holds a lease on destination default') as string,
  });
  await here!.close();
  await feed!.close();
  expect(await moved.store.admin.rebase({ environment: 'staging' })).toMatchObject({
    moved: false,
    environment: 'staging',
  });
});

it('does not clean by a cursor of another cluster, by which every message stored here would look published', async () => {
  const old = await Outbox.at(await newDatabase(clusters.far!.url()));
  await old.add('a:1');
  await old.relay();
  const moved = await Outbox.at(await newDatabase(clusters.near!.url()));
  await copyLogically(await old.session(), moved.pool, { sequence: true });
  await moved.add('a:2');
  await moved.store.deletePublishedByExpiration(0);
  await moved.store.admin.rebase();
  expect(await moved.relay()).toEqual(['a:2']);
});

it('is refused if logical replication has brought it, and works after a rebase', async () => {
  const old = await Outbox.at(await newDatabase(clusters.far!.url()));
  await old.add('a:1', 'b:1', 'a:2');
  expect(await old.relay({ pageSize: 1, pages: 1 })).toEqual(['a:1']);
  const moved = await Outbox.at(await newDatabase(clusters.alike!.url()));
  await moved.pool.query('DELETE FROM messenger.settings');
  await old.pool.query(`CREATE PUBLICATION moving FOR TABLE messenger.messages, messenger.cursors, messenger.parked,
    messenger.settings, messenger.destinations WITH (publish_via_partition_root = true)`);
  const { port, pathname } = new URL(old.url);
  await moved.pool.query(`CREATE SUBSCRIPTION moving
    CONNECTION 'host=127.0.0.1 port=${port} dbname=${pathname.slice(1)} user=postgres' PUBLICATION moving`);
  const late = await old.begin();
  await old.addTo(late, 'c:1');
  await old.add('b:2', 'a:3');
  expect(await old.relay({ pageSize: 1, pages: 2 })).toEqual(['b:1', 'a:2']);
  await late.query('COMMIT');
  const state = `SELECT (SELECT count(*) FROM messenger.messages)
    || (SELECT string_agg(concat_ws(' ', epoch, owner, after), ', ' ORDER BY partition) FROM messenger.cursors)`;
  const wanted = await old.value(state);
  while ((await moved.value(state)) !== wanted) await new Promise((resolve) => setTimeout(resolve, 20));
  await moved.pool.query('DROP SUBSCRIPTION moving');

  await expect(moved.relay()).rejects.toMatchObject(refused(REBASE));
  await moved.add('a:4');
  expect((await moved.store.admin.rebase()).destinations).toMatchObject([{ undelivered: 4 }]);
  expect(await moved.relay()).toEqual(['c:1', 'b:2', 'a:3', 'a:4']);
});

/** The command line, in a process of its own. */
async function messenger(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const main = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import', 'tsx', main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const said = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].on('data', (data: Buffer) => (said[stream] += data.toString()));
  }
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, ...said };
}

describe.each(ways)('from a cluster that is $from to one that is $to', ({ from, to }) => {
  const before = async () => Outbox.at(await newDatabase(clusters[from]!.url()));
  const after = async () => Outbox.at(await newDatabase(clusters[to]!.url()));

  /** What a dump would bring: `old` as it is now. */
  async function copied(old: Outbox, sequence = true): Promise<Outbox> {
    const outbox = await after();
    await copyLogically(await old.session(), outbox.pool, { sequence });
    return outbox;
  }

  it('is refused by each relay, and cleans nothing, until it is rebased', async () => {
    const old = await before();
    await old.add('a:1', 'b:1', '1');
    expect(await old.relay()).toEqual(['a:1', 'b:1', '1']);
    await old.add('a:2', '2');
    const moved = await copied(old);
    const another = new PostgresStore(moved.pool, { partitions: 3 });
    await expect(moved.relay()).rejects.toMatchObject(refused(REBASE));
    // At a destination of its own too, which would find nothing wrong with its cursor.
    await expect(another.openFeed({ destination: 'new', pageSize: 10 })).rejects.toMatchObject(refused(REBASE));
    await expect(another.messages(10)).rejects.toMatchObject(refused(/of destination default was not written/));
    // Writers continue, and none of their messages is lost to cleaning by a meaningless cursor.
    await moved.add('3');
    await moved.store.deletePublishedByExpiration(0);
    expect(await moved.value('SELECT count(*)::int FROM messenger.messages')).toBe(6);

    expect(await moved.store.admin.rebase()).toEqual({
      moved: true,
      environment: undefined,
      destinations: [{ destination: 'default', undelivered: 3, first: 4, last: 6, parked: 0 }],
    });
    expect(await moved.store.admin.rebase()).toEqual({ moved: false, environment: undefined, destinations: [] });
    expect(await moved.relay()).toEqual(['a:2', '2', '3']);
    await moved.add('4');
    expect(await moved.relay()).toEqual(['4']);
    await moved.store.deletePublishedByExpiration(0);
    expect(await moved.value('SELECT count(*)::int FROM messenger.messages')).toBe(0);
  });

  it('publishes late messages, those left in an open window, and parked ones', async () => {
    const old = await before();
    const late = await old.begin();
    await old.addTo(late, 'a:1');
    await old.add('b:1', 'c:1');
    expect(await old.relay()).toEqual(['b:1', 'c:1']);
    await late.query('COMMIT');
    await old.add('b:2', 'x:1', 'd:1', 'b:3', 'e:1', 'x:2');
    const toPark = (id: string) => (id === 'x:1' ? 0 : undefined);
    // From the window: a:1, b:2, x:1 (refused) and d:1. e:1 and the messages after it are left.
    expect(await old.relay({ pageSize: 2, pages: 2, toPark })).toEqual(['a:1', 'b:2', 'd:1']);
    const running = await old.begin();
    await old.addTo(running, 'never:1');
    await old.add('f:1');

    const moved = await copied(old);
    expect(await moved.store.admin.rebase()).toMatchObject({
      destinations: [{ destination: 'default', undelivered: 4, first: 7, last: 11, parked: 1 }],
    });
    const published = await moved.relay({ pageSize: 3 });
    expect(published.toSorted()).toEqual(['b:3', 'e:1', 'f:1', 'x:1', 'x:2']);
    expect(published.indexOf('x:1')).toBeLessThan(published.indexOf('x:2'));
  });

  it('keeps a key from before the limit, and the limit itself', async () => {
    const old = await before();
    const limit = 'key_at_most_2000_bytes';
    const unlimited = `ALTER TABLE messenger.messages DROP CONSTRAINT ${limit}`;
    await old.pool.query(unlimited);
    const insert = "INSERT INTO messenger.messages (id, key, payload) VALUES ('long:1', repeat('x', 2001), 'x')";
    await old.pool.query(insert);
    expect(await old.relay()).toEqual(['long:1']);
    await old.add('a:1');
    const moved = await after();
    await moved.pool.query(unlimited);
    await copyLogically(await old.session(), moved.pool, { sequence: true });
    await moved.pool.query(
      `ALTER TABLE messenger.messages ADD CONSTRAINT ${limit} CHECK (octet_length(key) <= 2000) NOT VALID`,
    );
    expect(await moved.store.admin.rebase()).toMatchObject({ destinations: [{ undelivered: 1 }] });
    await expect(moved.pool.query(insert)).rejects.toThrow(limit);
    // Messages that were written without limits must not count as messages that had them.
    expect(await moved.value("SELECT value FROM messenger.settings WHERE name = 'limited_after'")).toBe('2');
    expect(await moved.relay()).toEqual(['a:1']);
    expect(await catalog(moved.pool, 'messenger')).toEqual(await catalog((await after()).pool, 'messenger'));
  });

  it('remembers what each destination has published and what not', async () => {
    const old = await before();
    await old.relay({ destination: 'slow' });
    const late = await old.begin();
    await old.addTo(late, 'a:1');
    await old.add('a:2', 'b:1');
    await old.relay({ destination: 'fast' });
    await late.query('COMMIT');
    await old.add('c:1');
    expect(await old.relay({ destination: 'middle', pageSize: 1, pages: 2 })).toEqual(['a:1', 'a:2']);
    const moved = await copied(old);
    expect((await moved.store.admin.rebase()).destinations).toEqual([
      { destination: 'fast', undelivered: 2, first: 1, last: 4, parked: 0 },
      { destination: 'middle', undelivered: 2, first: 3, last: 4, parked: 0 },
      { destination: 'slow', undelivered: 4, first: 1, last: 4, parked: 0 },
    ]);
    await moved.add('d:1');
    expect(await moved.relay({ destination: 'fast', pageSize: 2 })).toEqual(['a:1', 'c:1', 'd:1']);
    expect(await moved.relay({ destination: 'middle' })).toEqual(['b:1', 'c:1', 'd:1']);
    expect(await moved.relay({ destination: 'slow', pageSize: 1 })).toEqual(['a:1', 'a:2', 'b:1', 'c:1', 'd:1']);
    // A destination that starts at the beginning finds the whole log, in its order.
    expect(await moved.relay({ destination: 'new' })).toEqual(['a:1', 'a:2', 'b:1', 'c:1', 'd:1']);
  });

  it('is refused even without a cursor if its ids are ahead, and is read to its end once rebased', async () => {
    const old = await before();
    await old.add('a:1', 'a:2');
    const moved = await copied(old);
    if (from === 'far') await expect(moved.relay()).rejects.toMatchObject(refused(/the rows of .* were not written/));
    // Ids that this cluster has reached look like its own, and then there is nothing to do.
    const ahead = await moved.value(
      'SELECT max(xid::text::bigint) >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint FROM messenger.messages',
    );
    expect(await moved.store.admin.rebase()).toEqual({ moved: ahead, environment: undefined, destinations: [] });
    await moved.add('a:3');
    expect(await moved.relay()).toEqual(['a:1', 'a:2', 'a:3']);
  });

  it('sets a sequence that was not copied after everything, and moves messages stored before that to the end', async () => {
    const old = await before();
    const ids = Array.from({ length: 20 }, (_, n) => `k${String(n % 4)}:${String(n)}`);
    await old.add(...ids);
    await old.relay({ pageSize: 15, pages: 1 });
    const moved = await copied(old, false);
    await moved.add('k1:new', 'k2:new');
    const session = await moved.session();
    // An inner transaction has an id of its own.
    await session.query('BEGIN; SAVEPOINT inside');
    await moved.addTo(session, 'k3:new');
    await session.query('RELEASE inside; COMMIT');
    expect((await moved.store.admin.rebase()).destinations).toEqual([
      { destination: 'default', undelivered: 8, first: 16, last: 23, parked: 0 },
    ]);
    await moved.add('k1:newer');
    expect(await moved.relay()).toEqual([...ids.slice(15), 'k1:new', 'k2:new', 'k3:new', 'k1:newer']);
  });

  it('moves messages that were stored before with copied numbers to the end, even if there are more of them', async () => {
    const old = await before();
    const ids = Array.from({ length: 6 }, (_, n) => `k${String(n % 4)}:${String(n)}`);
    await old.add(...ids);
    await old.relay({ pageSize: 5, pages: 1 });
    const moved = await copied(old, false);
    const here = Array.from({ length: 10 }, (_, n) => `k${String(n % 4)}:new-${String(n)}`);
    for (const id of here) await moved.add(id);
    // Past it also where what was drawn was not stored.
    const session = await moved.session();
    await session.query('BEGIN');
    await moved.addTo(session, 'k1:never');
    await session.query('ROLLBACK');
    expect((await moved.store.admin.rebase()).destinations).toMatchObject([{ undelivered: 11, first: 6 }]);
    expect(await moved.relay()).toEqual([ids[5], ...here]);
  });

  it('stores nothing again if only the cursors look copied, because somebody has changed them', async () => {
    const old = await before();
    await old.add('a:1', 'a:2', 'b:1');
    expect(await old.relay()).toEqual(['a:1', 'a:2', 'b:1']);
    await old.value(`UPDATE messenger.cursors SET owner = NULL`);
    await expect(old.relay()).rejects.toMatchObject(refused(/the cursor of destination/));
    await old.add('b:2');
    expect((await old.store.admin.rebase()).destinations).toMatchObject([{ undelivered: 1, first: 4 }]);
    expect(await old.relay()).toEqual(['b:2']);
  });

  it('sets the sequence after messages that are no longer in the log', async () => {
    const old = await before();
    await old.add('1', '2', '3');
    await old.relay();
    await old.store.deletePublishedByExpiration(0);
    expect(await old.value('SELECT count(*)::int FROM messenger.messages')).toBe(0);
    const moved = await copied(old, false);
    await moved.add('new');
    expect((await moved.store.admin.rebase()).destinations).toMatchObject([{ undelivered: 1, first: 4, last: 4 }]);
    expect(await moved.relay()).toEqual(['new']);
  });

  it('is changed completely, or not at all', async () => {
    const old = await before();
    await old.add(...Array.from({ length: 30 }, (_, n) => `k${String(n % 4)}:${String(n)}`));
    const first = await old.relay({ pageSize: 7, pages: 2 });
    const moved = await copied(old, false);
    await moved.add('k0:new');
    const state = () =>
      moved.value(`SELECT (SELECT json_agg(m ORDER BY ctid) FROM messenger.messages m)::text
        || (SELECT json_agg(c ORDER BY partition) FROM messenger.cursors c)::text
        || (SELECT json_agg(s ORDER BY name) FROM messenger.settings s)::text`);
    const was = await state();
    // The cursors come last, when the log has already been changed.
    await moved.pool.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
      CREATE TRIGGER refuse BEFORE UPDATE ON messenger.cursors FOR EACH ROW EXECUTE FUNCTION refuse()`);
    await expect(moved.store.admin.rebase({ environment: 'staging' })).rejects.toThrow();
    expect(await state()).toEqual(was);
    await moved.pool.query('DROP FUNCTION refuse CASCADE');
    expect(await moved.store.admin.rebase({ environment: 'staging' })).toMatchObject({
      environment: 'staging',
      destinations: [{ undelivered: 17 }],
    });
    const store = new PostgresStore(moved.pool, { partitions: 3, environment: 'staging' });
    const second = await moved.relay({ store });
    expect([...first, ...second]).toEqual([
      ...Array.from({ length: 30 }, (_, n) => `k${String(n % 4)}:${String(n)}`),
      'k0:new',
    ]);
  });

  it('publishes everything that is stored around the rebase', async () => {
    const old = await before();
    await old.add('a:1');
    await old.relay();
    await old.add('a:2');
    const moved = await copied(old);
    // The cursors' snapshot lists two of them, because later ones have ended. The third is above it.
    const writers = [await moved.begin(), await moved.begin()];
    await moved.pool.query('SELECT pg_current_xact_id()');
    writers.push(await moved.begin());
    await moved.store.admin.rebase();
    // The first of them has ended before a relay looks for the first time.
    const early = writers.shift()!;
    await moved.addTo(early, 'early:1');
    await early.query('COMMIT');
    expect(await moved.relay()).toEqual(['a:2', 'early:1']);
    for (const [n, writer] of writers.entries()) {
      await moved.addTo(writer, `w${String(n)}:1`);
      await moved.add(`o${String(n)}:1`);
    }
    expect(await moved.relay()).toEqual(['o0:1', 'o1:1']);
    for (const writer of writers) await writer.query('COMMIT');
    expect(await moved.relay()).toEqual(['w0:1', 'w1:1']);
  });
});

/** Databases that PostgreSQL's own tools have moved: dumps, clones and upgrades. */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { newDatabase } from '../support/database.js';
import { run, startPostgres, type EmbeddedPostgres } from '../support/embedded-postgres.js';
import { Outbox } from '../stores/postgres/moved-support.js';
import { useUpTransactionIds } from '../support/copies.js';

const programs = inject('programs');
const tool = (name: string, ...args: string[]) => run(path.join(programs, name), args, folder);
const start = () => startPostgres(17, {}, { programs });

/** Where the tools write. */
let folder: string;
let one: EmbeddedPostgres;
let other: EmbeddedPostgres;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'messenger-system-'));
  await chmod(folder, 0o777);
  [one, other] = [await start(), await start()];
  await useUpTransactionIds(one.url(), 50_000);
});
afterAll(async () => {
  await one.remove();
  await other.remove();
  await rm(folder, { recursive: true, force: true });
});

const REBASE = {
  code: 'SCHEMA_MISMATCH',
  message: expect.stringContaining('`messenger rebase --schema messenger`') as string,
};

/** Stores and publishes so that something is late, in an open window, and parked; and tells what is left. */
async function fill(outbox: Outbox): Promise<{ published: string[]; left: string[] }> {
  const late = await outbox.begin();
  await outbox.addTo(late, 'a:1');
  await outbox.add('b:1', 'c:1');
  const published = await outbox.relay();
  await outbox.add('x:1', 'd:1', 'e:1', 'x:2', 'f:1');
  const toPark = (id: string) => (id === 'x:1' ? 0 : undefined);
  published.push(...(await outbox.relay({ pageSize: 2, pages: 1, toPark })));
  await late.query('COMMIT');
  expect(published).toEqual(['b:1', 'c:1', 'd:1']);
  return { published, left: ['a:1', 'e:1', 'f:1', 'x:1', 'x:2'] };
}

describe.each([
  { format: 'custom', into: 'another cluster' },
  { format: 'plain', into: 'another cluster' },
  { format: 'custom', into: 'the same cluster' },
])('a dump ($format) that was restored into $into', ({ format, into }) => {
  it('is refused until a rebase, and then nothing is lost or published twice', async () => {
    const old = await Outbox.at(await newDatabase(one.url()));
    const { left } = await fill(old);
    // Never in the dump, whatever becomes of it.
    const open = await old.begin();
    await old.addTo(open, 'never:1');
    const file = path.join(folder, `${format}-${into === 'another cluster' ? 'a' : 's'}`);
    await tool('pg_dump', '--dbname', old.url, '--format', format, '--file', file);
    const target = await newDatabase((into === 'another cluster' ? other : one).url());
    await (format === 'plain'
      ? tool('psql', '--no-psqlrc', '--quiet', '--set', 'ON_ERROR_STOP=1', '--dbname', target, '--file', file)
      : tool('pg_restore', '--exit-on-error', '--jobs', '2', '--dbname', target, file));
    const moved = await Outbox.at(target, {}, false);
    expect(await moved.store.migrate()).toEqual([]);
    await expect(moved.relay()).rejects.toMatchObject(REBASE);
    await moved.add('a:2');
    expect(await moved.store.admin.rebase()).toMatchObject({
      moved: true,
      destinations: [{ destination: 'default', undelivered: 5, parked: 1 }],
    });
    const published = await moved.relay({ pageSize: 2 });
    expect(published.toSorted()).toEqual([...left, 'a:2'].toSorted());
    expect(published.indexOf('a:1')).toBeLessThan(published.indexOf('a:2'));
    expect(published.indexOf('x:1')).toBeLessThan(published.indexOf('x:2'));
    // And the original goes on as if nothing had been.
    await open.query('COMMIT');
    expect((await old.relay()).toSorted()).toEqual([...left, 'never:1'].toSorted());
  });
});

it('goes on after pg_upgrade as if nothing had happened', async () => {
  const old = await start();
  const next = await start();
  try {
    const before = await Outbox.at(old.url(), { environment: 'production' });
    const { left } = await fill(before);
    for (const table of ['cursors', 'messages']) await before.pool.query(`VACUUM (FREEZE) messenger.${table}`);
    await before.close();
    await Promise.all([old.stop(), next.stop()]);
    // From a version to the same one: as between two, the catalogs are made anew and the rest is kept.
    await tool(
      'pg_upgrade',
      ...['--username', 'postgres', '--old-bindir', programs, '--new-bindir', programs, '--socketdir', folder],
      ...['--old-datadir', old.dataDirectory, '--new-datadir', next.dataDirectory],
      ...['--old-port', String(old.port), '--new-port', String(next.port)],
    );
    await next.start();
    const after = await Outbox.at(next.url(), { environment: 'production' }, false);
    expect(await after.store.migrate()).toEqual([]);
    expect((await after.relay({ pageSize: 2 })).toSorted()).toEqual(left);
    expect(await after.store.admin.rebase()).toMatchObject({ moved: false });
    await after.add('a:2');
    expect(await after.relay()).toEqual(['a:2']);
    await after.close();
  } finally {
    await old.remove();
    await next.remove();
  }
});

it('refuses to relay from a clone that pg_basebackup made of a running server', async () => {
  const production = await start();
  let clone: EmbeddedPostgres | undefined;
  try {
    const old = await Outbox.at(production.url(), { environment: 'production' });
    const { left } = await fill(old);
    const copy = path.join(folder, 'clone');
    await tool('pg_basebackup', '--pgdata', copy, '--checkpoint', 'fast', '--dbname', production.url());
    clone = await startPostgres(17, {}, { programs, clonedFrom: { dataDirectory: copy } });
    const staging = await Outbox.at(clone.url(), { environment: 'staging' }, false);
    await expect(staging.relay()).rejects.toMatchObject({
      code: 'SCHEMA_MISMATCH',
      message: expect.stringMatching(
        /environment "production", but this store belongs to "staging".*`messenger rebase --schema messenger --environment staging`/,
      ) as string,
    });
    await expect(
      new PostgresStore(staging.pool, { partitions: 3 }).openFeed({ destination: 'default', pageSize: 1 }),
    ).rejects.toMatchObject({ code: 'SCHEMA_MISMATCH' });
    expect(await staging.store.admin.rebase({ environment: 'staging' })).toMatchObject({ moved: false });
    expect((await staging.relay()).toSorted()).toEqual(left);
    expect((await old.relay()).toSorted()).toEqual(left);
    await Promise.all([staging.close(), old.close()]);
  } finally {
    await clone?.remove();
    await production.remove();
  }
});

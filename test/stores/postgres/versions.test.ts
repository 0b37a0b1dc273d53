/** Two versions of the library side by side on one schema: migrations only add. */
import { inject, expect, it } from 'vitest';
import { migrationScript, PostgresStore } from '../../../src/stores/postgres/index.js';
import { newDatabase } from '../../support/database.js';
import { postgresVersions } from '../../support/embedded-postgres.js';
import { Outbox } from './moved-support.js';
import * as version1 from './version-1.js';

const PARTITIONS = 3;

/** The tables as version 1 made them. */
async function tablesOfVersion1(url: string): Promise<Outbox> {
  const outbox = await Outbox.at(url, {}, false);
  const script = await migrationScript({ partitions: PARTITIONS });
  const next = script.indexOf('\n-- 0002_');
  expect(next).toBeGreaterThan(0);
  await outbox.pool.query(`${script.slice(0, next)}\nCOMMIT;`);
  return outbox;
}

it.each(postgresVersions)(
  'PostgreSQL %i: messages that version 1 stores while the tables are migrated arrive',
  async (version) => {
    const outbox = await tablesOfVersion1(await newDatabase(inject('postgres')[version]));
    const stored: string[] = [];
    let migrated = false;
    let after = 0;
    const writers = Array.from({ length: 3 }, async (_, writer) => {
      const client = await outbox.session();
      for (let n = 0; after < 60; n++) {
        const id = `k${String(writer)}:${String(n)}`;
        await client.query('BEGIN');
        await version1.add(client, { id, key: `k${String(writer)}` });
        await client.query('COMMIT');
        stored.push(id);
        if (migrated) after += 1;
      }
    });
    while (stored.length < 30) await new Promise(setImmediate);
    const applied = await outbox.store.migrate();
    migrated = true;
    await Promise.all(writers);
    expect(applied[0]).toBe('0002_relays.sql');
    const published = await outbox.relay({ pageSize: 20 });
    expect(published.toSorted()).toEqual(stored.toSorted());
    for (const key of ['k0:', 'k1:', 'k2:']) {
      const ofKey = (ids: readonly string[]) => ids.filter((id) => id.startsWith(key));
      expect(ofKey(published)).toEqual(ofKey(stored));
    }
  },
);

it.each(postgresVersions)('PostgreSQL %i: relays of both versions take over from each other', async (version) => {
  const outbox = await tablesOfVersion1(await newDatabase(inject('postgres')[version]));
  const client = await outbox.session();
  const add = async (...ids: string[]) => {
    const late = await outbox.begin();
    await version1.add(late, ...ids.map((id) => ({ id, key: id.slice(0, 1) })));
    await late.query('COMMIT');
  };
  const old = (refused?: string) =>
    version1.relay(client, 'default', {
      partitions: PARTITIONS,
      pageSize: 2,
      ...(refused === undefined ? {} : { refused }),
    });
  await add('a:1', 'b:1', 'c:1');
  expect(await old()).toEqual(['a:1', 'b:1', 'c:1']);
  await outbox.store.migrate();

  await add('a:2', 'b:2', 'c:2');
  expect(await old('b:2')).toEqual(['a:2', 'c:2']);
  await outbox.add('a:3');
  expect((await outbox.relay()).toSorted()).toEqual(['a:3', 'b:2']);
  await outbox.add('c:3');
  await add('c:4');
  expect(await old()).toEqual(['c:3', 'c:4']);
  // The other way round, one waits for the other.
  const feed = await outbox.store.openFeed({ destination: 'default', pageSize: 10 });
  await expect(old()).rejects.toThrow('would not claim');
  await client.query('ROLLBACK');
  await feed!.close();
  await add('d:1');
  expect(await outbox.relay()).toEqual(['d:1']);
  expect(await new PostgresStore(outbox.pool, { partitions: PARTITIONS }).migrate()).toEqual([]);
});

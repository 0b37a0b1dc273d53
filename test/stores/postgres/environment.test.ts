/** The environment to which an outbox belongs, which distinguishes a clone of a database from the original. */
import { expect, inject, it } from 'vitest';
import pg from 'pg';
import { Messenger } from '../../../src/index.js';
import { PostgresStore, type PostgresStoreOptions } from '../../../src/stores/postgres/index.js';
import { newDatabase } from '../../support/database.js';
import { outermostVersions, startPostgres } from '../../support/embedded-postgres.js';
import { Outbox } from './moved-support.js';

const refused = (says: RegExp) => ({ code: 'SCHEMA_MISMATCH', message: expect.stringMatching(says) as string });
const CLONE =
  /belongs to the environment "production", but this store belongs to "staging".*`messenger rebase --schema messenger --environment staging` or `await store\.admin\.rebase\(\{ environment: "staging" \}\)`/;
const UNNAMED =
  /belongs to the environment "production", and this store does not say which environment it belongs to: pass the environment option/;

const storeOf = (outbox: Outbox, environment?: string): PostgresStore => {
  const options: PostgresStoreOptions = { partitions: 3, lease: 600_000 };
  return new PostgresStore(outbox.pool, environment === undefined ? options : { ...options, environment });
};

it.each(outermostVersions)('refuses to relay from a physical clone of PostgreSQL %i', async (version) => {
  const production = await startPostgres(version);
  let staging: Awaited<ReturnType<typeof startPostgres>> | undefined;
  try {
    const old = await Outbox.at(production.url(), { environment: 'production' });
    await old.add('a:1', 'a:2');
    expect(await old.relay({ pages: 1, pageSize: 1 })).toEqual(['a:1']);
    await old.close();
    await production.stop('fast');
    staging = await startPostgres(version, {}, { clonedFrom: production });
    await production.start();

    const clone = await Outbox.at(staging.url(), {}, false);
    const [theirs, unnamed] = [storeOf(clone, 'staging'), storeOf(clone)];
    for (const [store, says] of [[theirs, CLONE] as const, [unnamed, UNNAMED] as const]) {
      await expect(store.openFeed({ destination: 'default', pageSize: 10 })).rejects.toMatchObject(refused(says));
      await expect(store.messages(10)).rejects.toMatchObject(refused(says));
      const sent: string[] = [];
      const messenger = new Messenger(store, { publish: async ({ id }) => void sent.push(id) });
      await expect(messenger.start()).rejects.toMatchObject({ code: 'FATAL', cause: refused(says) });
      expect(sent).toEqual([]);
    }
    await expect(theirs.migrate()).rejects.toMatchObject(refused(CLONE));
    // Writers write wherever their own data is.
    await clone.add('a:3');
    expect(await theirs.admin.rebase({ environment: 'staging' })).toEqual({
      moved: false,
      destinations: [],
      environment: 'staging',
    });
    expect(await clone.relay({ store: theirs })).toEqual(['a:2', 'a:3']);
    await expect(storeOf(clone, 'production').messages(1)).rejects.toMatchObject(
      refused(/belongs to the environment "staging", but this store belongs to "production"/),
    );
    // The original is unchanged.
    const still = await Outbox.at(production.url(), { environment: 'production' }, false);
    expect(await still.relay()).toEqual(['a:2']);
    await Promise.all([clone.close(), still.close()]);
  } finally {
    await staging?.remove();
    await production.remove();
  }
});

it.each(['', 7, 'a\0b', null])('refuses %j for a name', (environment) => {
  expect(() => new PostgresStore(new pg.Pool(), { environment: environment as string })).toThrow(
    expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringContaining('environment') as string }),
  );
});

it('keeps the first name that migrate or a relay gives', async () => {
  const outbox = await Outbox.on(17);
  const name = () => outbox.value(`SELECT value FROM messenger.settings WHERE name = 'environment'`);
  expect(await outbox.relay()).toEqual([]);
  expect(await name()).toBeUndefined();
  expect(await storeOf(outbox, 'production').migrate()).toEqual(['environment production']);
  expect(await storeOf(outbox, 'production').migrate()).toEqual([]);
  expect(await name()).toBe('production');
  await expect(storeOf(outbox).messages(1)).rejects.toMatchObject(refused(UNNAMED));
  await expect(storeOf(outbox, 'staging').messages(1)).rejects.toMatchObject(refused(CLONE));

  const other = await Outbox.on(17);
  const names = ['a', 'b', 'c', 'd'];
  const opened = await Promise.allSettled(
    names.map((each) => storeOf(other, each).openFeed({ destination: each, pageSize: 10 })),
  );
  const first = await other.value(`SELECT value FROM messenger.settings WHERE name = 'environment'`);
  for (const [i, each] of names.entries()) {
    const result = opened[i]!;
    if (each === first) {
      expect(result).toMatchObject({ status: 'fulfilled' });
      if (result.status === 'fulfilled') await result.value?.close();
    } else {
      expect(result).toMatchObject({ status: 'rejected', reason: refused(/belongs to the environment/) });
    }
  }
});

it('asks a relay that may not store a name for a migration, and for nothing once the name is stored', async () => {
  const outbox = await Outbox.on(17);
  const role = `environment_${String(process.pid)}`;
  await outbox.pool.query(`CREATE ROLE ${role} LOGIN; GRANT USAGE ON SCHEMA messenger TO ${role};
    GRANT ALL ON ALL TABLES IN SCHEMA messenger TO ${role}; GRANT SELECT ON ALL SEQUENCES IN SCHEMA messenger TO ${role};
    REVOKE INSERT, UPDATE ON messenger.settings FROM ${role}`);
  const url = new URL(outbox.url);
  url.username = role;
  const relay = await Outbox.at(url.href, { environment: 'production' }, false);
  try {
    await expect(relay.relay()).rejects.toMatchObject(refused(/run `messenger migrate` with --environment production/));
    await storeOf(outbox, 'production').migrate();
    await outbox.add('a:1');
    expect(await relay.relay()).toEqual(['a:1']);
  } finally {
    await relay.close();
    await outbox.pool.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
  }
});

it('keeps the name in a rebase that gives none', async () => {
  const outbox = await Outbox.at(await newDatabase(inject('postgres')[17]), { environment: 'production' });
  expect(await storeOf(outbox).admin.rebase()).toMatchObject({ moved: false, environment: 'production' });
  await expect(outbox.store.admin.rebase({ environment: '' })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  await expect(outbox.store.admin.rebase({ timeout: 0 })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  // With a misspelt option, a clone would keep the name of its original.
  for (const wrong of [{ enviroment: 'staging' }, 'staging']) {
    await expect(outbox.store.admin.rebase(wrong as object)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  }
});

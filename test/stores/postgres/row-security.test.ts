/** Row-level security that hides rows from the relay's role: reported, and never mistaken for an empty table. */
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, afterEach, describe, expect, inject, it } from 'vitest';
import { CleaningError, Messenger, newMessage, PublishError } from '../../../src/index.js';
import { namesOf } from '../../../src/stores/postgres/sql/names.js';
import { PostgresStore, rolesScript } from '../../../src/stores/postgres/index.js';
import { inTransaction, newDatabase } from '../../support/database.js';
import { outermostVersions } from '../../support/embedded-postgres.js';

const TABLES = ['messages', 'cursors', 'claims', 'parked', 'settings', 'destinations', 'relays', 'migrations'] as const;
const OLD = 90_000;
/** Milliseconds. A relay from which the cursors are hidden cannot give its lease back, so the lease expires. */
const LEASE = 2_000;

const told = (table: string) =>
  expect.objectContaining({
    code: 'SCHEMA_MISMATCH',
    message: expect.stringMatching(new RegExp(`row-level security .*${table}.*BYPASSRLS`)) as unknown,
  }) as Error;

describe.each(outermostVersions)('PostgreSQL %i', (version) => {
  const role = (name: string) => `rls_${name}_${String(version)}_${String(process.pid)}`;
  const roles = {
    writer: role('writer'),
    relay: role('relay'),
    consumer: role('consumer'),
    migrator: role('migrator'),
  };
  const pools: pg.Pool[] = [];
  let admin: pg.Pool;
  /** Logs in as the role of a relay. */
  let relays: pg.Pool;
  /** Owns the tables. */
  let owners: pg.Pool;

  const open = (url: string, user?: string) => {
    const at = new URL(url);
    if (user !== undefined) at.username = user;
    const pool = new pg.Pool({ connectionString: at.href, max: 3 });
    pools.push(pool);
    return pool;
  };
  beforeAll(async () => {
    const pool = open(inject('postgres')[version]);
    for (const name of Object.values(roles)) await pool.query(`CREATE ROLE ${name} LOGIN`);
  });
  beforeEach(async () => {
    const url = await newDatabase(inject('postgres')[version]);
    admin = open(url);
    await new PostgresStore(admin).migrate();
    await admin.query(rolesScript(roles));
    relays = open(url, roles.relay);
    owners = open(url, roles.migrator);
  });
  afterEach(async () => {
    await admin.query(`DROP OWNED BY ${Object.values(roles).join(', ')} CASCADE`);
  });
  afterAll(async () => {
    await Promise.all(pools.slice(1).map((pool) => pool.end()));
    for (const name of Object.values(roles)) await pools[0]!.query(`DROP ROLE ${name}`);
    await pools[0]!.end();
  });

  const add = (...ids: string[]) =>
    inTransaction(admin, (client) =>
      new PostgresStore(admin).add(
        client,
        ids.map((id) => newMessage(id, { id, key: id.slice(0, 1) })),
      ),
    );
  const hide = (table: string) => admin.query(`ALTER TABLE messenger.${table} ENABLE ROW LEVEL SECURITY`);
  const relay = (pool = relays, acknowledge = (_: string) => true) => {
    const published: string[] = [];
    const store = new PostgresStore(pool, { lease: LEASE });
    const publish = (message: { id: string }) => {
      if (!acknowledge(message.id)) return Promise.reject(new PublishError('no', { kind: 'permanent' }));
      published.push(message.id);
      return Promise.resolve();
    };
    const errors: Error[] = [];
    const messenger = new Messenger(
      store,
      { publish },
      { interval: 10, errorLogger: { error: (error) => void errors.push(error) } },
    );
    return { store, messenger, published, errors };
  };
  const rows = async (table: string) =>
    Number((await admin.query<{ n: string }>(`SELECT count(*) AS n FROM messenger.${table}`)).rows[0]?.n);

  it.each([...TABLES, 'messages_3'])('no relay starts if rows of %s are hidden from it', async (table) => {
    await add('a1');
    await hide(table);
    const { messenger, store, published } = relay();
    await expect(messenger.start()).rejects.toMatchObject({ code: 'FATAL', cause: told(table) });
    await expect(store.openFeed({ destination: 'default', pageSize: 10 })).rejects.toEqual(told(table));
    await expect(store.messages(10)).rejects.toEqual(told(table));
    expect(published).toEqual([]);
  });

  // From the relays' table a relay only learns who else is there.
  it.each(['messages', 'cursors', 'claims', 'parked', 'destinations'])(
    'a running relay ends when rows of %s are hidden from it, and says why',
    async (table) => {
      await add('a1');
      const { messenger, published } = relay(relays, (id) => id !== 'c1');
      const running = messenger.start();
      running.catch(() => undefined);
      await expect.poll(() => published, { timeout: 30_000 }).toEqual(['a1']);
      await hide(table);
      await add('a2', 'b1', 'c1');
      await expect(running).rejects.toMatchObject({ code: 'FATAL', cause: told(table) });
      await admin.query(`ALTER TABLE messenger.${table} DISABLE ROW LEVEL SECURITY`);
      const after = relay();
      const settled = async () => {
        await after.messenger.publish();
        const dead = (await after.store.admin.deadLetters()).map(({ message }) => message.id);
        return [...new Set([...published, ...after.published, ...dead])].sort();
      };
      await expect.poll(settled, { timeout: 60_000 }).toEqual(['a1', 'a2', 'b1', 'c1']);
    },
  );

  it.each(['messages', 'messages_0', 'cursors', 'parked', 'destinations', 'settings'])(
    'cleaning empties nothing if rows of %s are hidden from it',
    async (table) => {
      // What is in every slice is so old that it would move to the side table.
      await relay(owners).messenger.publish();
      await admin.query(
        `INSERT INTO messenger.messages (slice, stored_at, id, payload) SELECT n % 8, now() - interval '3 days', n::text, '\\x00' FROM generate_series(1, 16) n`,
      );
      await hide(table);
      const failed = await new PostgresStore(relays).deletePublishedByExpiration(OLD).catch((error: unknown) => error);
      const cause = failed instanceof CleaningError ? failed.cause : failed;
      expect(cause).toEqual(told(table));
      expect(await rows('messages')).toBe(16);
    },
  );

  it('an operator gets an error, and nothing is changed', async () => {
    await add('a1');
    const { messenger } = relay(relays, () => false);
    await messenger.publish().catch(() => undefined);
    expect(await rows('parked')).toBe(1);
    const store = new PostgresStore(relays);
    const calls: Record<string, () => Promise<unknown>> = {
      parked: () => store.admin.deadLetters(),
      'parked ': () => store.admin.requeue({ all: true }),
      'parked  ': () => store.admin.discard({ all: true }),
      cursors: () => store.admin.destinations(),
      destinations: () => store.admin.addDestination('other', { from: 'end' }),
      'destinations ': () => store.admin.updateDestination('default', { forgetAfter: 60_000 }),
      'cursors ': () => store.admin.removeDestination('default', { discard: true }),
    };
    for (const table of ['parked', 'cursors', 'destinations']) await hide(table);
    // The calls of the owner too, if FORCE takes away the owner's exemption.
    for (const table of ['cursors', 'messages']) {
      await admin.query(`ALTER TABLE messenger.${table} FORCE ROW LEVEL SECURITY`);
      await hide(table);
    }
    for (const [table, call] of Object.entries(calls)) {
      const error = await call().catch((each: unknown) => each);
      expect(error, table).toEqual(told('(parked|cursors|destinations|messages)'));
    }
    const owner = new PostgresStore(owners);
    await expect(owner.admin.repartition(3)).rejects.toEqual(told('cursors'));
    await expect(owner.admin.rebase()).rejects.toEqual(told('(cursors|messages)'));
    await expect(owner.openFeed({ destination: 'default', pageSize: 1 })).rejects.toEqual(told('cursors'));
    expect(await rows('parked')).toBe(1);
    expect(await rows('cursors')).toBe(8);
  });

  it('neither the owner of the tables nor a role with BYPASSRLS is affected', async () => {
    for (const table of TABLES) await hide(table);
    await add('a1');
    const owner = relay(owners);
    expect(await owner.messenger.publish()).toBe(1);
    await add('a2');
    await admin.query(`ALTER ROLE ${roles.relay} BYPASSRLS`);
    const exempt = relay();
    expect(await exempt.messenger.publish()).toBe(1);
    await exempt.store.deletePublishedByExpiration(0);
    expect(await rows('messages')).toBe(0);
    await admin.query(`ALTER ROLE ${roles.relay} NOBYPASSRLS`);
  });

  it('every table of the store is checked', () => {
    // Whoever receives only writes there, and a rebase alone makes a copy, which is its own; the rest are no tables.
    const others = new Set(['inbox', 'copy', 'store', 'storeAddressed', 'storeInTransaction', 'receiveInTransaction']);
    for (const other of ['schema', 'prefix', 'slice', 'parkedKeys', 'cursorsKey', 'cursorsPlaces', 'cursorsIdentity'])
      others.add(other);
    const tables = Object.keys(namesOf('messenger', '')).filter((name) => !others.has(name));
    expect(tables.sort()).toEqual([...TABLES].sort());
  });
});

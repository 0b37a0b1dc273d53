import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import pg from 'pg';
import { afterAll, describe, expect, inject, it, onTestFinished } from 'vitest';
import { newMessage } from '../../../src/core/message.js';
import { migrationScript, PostgresStore } from '../../../src/stores/postgres/index.js';
import { postgresVersions, type PostgresVersion } from '../../support/embedded-postgres.js';

const folder = new URL('../../../migrations/postgres/', import.meta.url);
const admins = Object.fromEntries(
  postgresVersions.map((version) => [version, new pg.Pool({ connectionString: inject('postgres')[version], max: 2 })]),
) as Record<PostgresVersion, pg.Pool>;
afterAll(() => Promise.all(Object.values(admins).map((admin) => admin.end())));

let databases = 0;

/** An empty database, dropped with the test, and pools on it that are ended before. */
async function emptyDatabase(version: PostgresVersion = 17): Promise<(user?: string) => pg.Pool> {
  const name = `migrate_test_${process.pid}_${String(++databases)}`;
  await admins[version].query(`CREATE DATABASE ${name}`);
  const pools: pg.Pool[] = [];
  onTestFinished(async () => {
    await Promise.all(pools.map((pool) => pool.end()));
    await admins[version].query(`DROP DATABASE ${name} WITH (FORCE)`);
  });
  return (user = 'postgres') => {
    const url = new URL(inject('postgres')[version]);
    url.username = user;
    url.pathname = `/${name}`;
    const pool = new pg.Pool({ connectionString: url.href, max: 4 });
    // What the drop of the database does to a connection that is just closing is no failure of a test.
    pool.on('error', () => undefined);
    pools.push(pool);
    return pool;
  };
}

/** Stores in a transaction of its own. */
async function addTo(
  store: PostgresStore,
  pool: pg.Pool,
  ...messages: Parameters<PostgresStore['add']>[1][]
): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    for (const message of messages) await store.add(client, message);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  } finally {
    client.release();
  }
}

describe('migration files', () => {
  it('never change, and are numbered without gaps', async () => {
    const files = (await readdir(folder)).sort();
    expect(files.map((file) => Number(file.slice(0, 4)))).toEqual(files.map((_, i) => i + 1));
    // Pinned from the first release on: from then, a change is a new file. Until then this line may change with it.
    const pinned = { '0001_outbox.sql': '9dd9ca3b744e4bdd073eec668d6f341a07fc45a4cef1a68e5475830639abd46f' };
    for (const [file, hash] of Object.entries(pinned)) {
      const bytes = await readFile(new URL(file, folder));
      expect(createHash('sha256').update(bytes).digest('hex'), file).toBe(hash);
    }
  });
});

describe.each(postgresVersions)('migrate on PostgreSQL %i', (version) => {
  it('is safe when ten do it at once on an empty database, and does nothing the second time', async () => {
    const open = await emptyDatabase(version);
    const stores = Array.from({ length: 10 }, () => new PostgresStore(open()));
    const applied = await Promise.all(stores.map((store) => store.migrate()));
    expect(applied.filter((names) => names.length > 0)).toEqual([['0001_outbox.sql', '0002_relays.sql']]);
    expect(await stores[0]!.migrate()).toEqual([]);
    const pool = open();
    expect((await pool.query('SELECT number, name FROM messenger.migrations ORDER BY number')).rows).toEqual([
      { number: 1, name: '0001_outbox.sql' },
      { number: 2, name: '0002_relays.sql' },
    ]);
    await addTo(stores[3]!, pool, newMessage('works'));
    expect(await stores[7]!.messages(10)).toHaveLength(1);
    await stores[7]!.close();
  });

  it('does the same as the script that a plain client runs', async () => {
    const options = { schema: 'it\'s "odd"; \\ 名', tablePrefix: "p'; ", partitions: 3, retention: 120_000 };
    const [migrated, scripted] = [(await emptyDatabase(version))(), (await emptyDatabase(version))()];
    await new PostgresStore(migrated, options).migrate();
    await scripted.query(await migrationScript(options));
    const [a, b] = [await catalog(migrated), await catalog(scripted)];
    expect(a.length).toBeGreaterThan(100);
    expect(b).toEqual(a);
    const store = new PostgresStore(scripted, options);
    expect(await store.migrate()).toEqual([]);
    await addTo(store, scripted, newMessage('works'));
    expect(await store.messages(10)).toHaveLength(1);
    await store.close();
  });

  it('hashes keys as node:crypto does', async () => {
    const pool = (await emptyDatabase(version))();
    const store = new PostgresStore(pool);
    await store.migrate();
    const keys = [
      'a',
      'order-1',
      'grüße 漢字 😀',
      '\\',
      '\\\\',
      '\\x41',
      '\\101',
      "'",
      ' ',
      '{}',
      'b\\0',
      'é',
      'e\u0301',
      'x'.repeat(5_000),
    ];
    await addTo(store, pool, [
      ...keys.map((key) => newMessage('x', { key })),
      ...keys.map((id) => newMessage('x', { id: `id ${id}` })),
    ]);
    const { rows } = await pool.query<{ hashed: string; hash: number }>(
      'SELECT coalesce(key, id) AS hashed, key_hash AS hash FROM messenger.messages ORDER BY seq',
    );
    expect(rows).toHaveLength(keys.length * 2);
    for (const { hashed, hash } of rows) {
      expect(hash, hashed).toBe(createHash('sha256').update(hashed).digest().readUInt16BE(0));
    }
    // Written down, for implementations in other languages.
    expect(Object.fromEntries(rows.slice(0, 4).map(({ hashed, hash }) => [hashed, hash]))).toEqual({
      a: 0xca97,
      'order-1': 0xbaf,
      'grüße 漢字 😀': 0x4447,
      '\\': 0xa925,
    });
  });
});

/** What the catalogs say about everything in the database that is not PostgreSQL's own. */
async function catalog(pool: pg.Pool): Promise<string[]> {
  const { rows } = await pool.query<{ fact: string }>(`
    WITH mine AS (SELECT c.*, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema')
    SELECT concat_ws(' ', 'relation', nspname, relname, relkind, relpersistence, reloptions::text, pg_get_expr(relpartbound, oid)) AS fact FROM mine
    UNION ALL SELECT concat_ws(' ', 'column', relname, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
        coalesce(attstattarget, -1), pg_get_expr(adbin, adrelid))
      FROM mine JOIN pg_attribute a ON a.attrelid = mine.oid AND attnum > 0 LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = attnum
    UNION ALL SELECT 'index ' || pg_get_indexdef(indexrelid) FROM pg_index JOIN mine ON mine.oid = indrelid
    UNION ALL SELECT concat_ws(' ', 'constraint', relname, conname, pg_get_constraintdef(k.oid)) FROM pg_constraint k JOIN mine ON mine.oid = conrelid
    UNION ALL SELECT concat_ws(' ', 'sequence', relname, seqcache, seqincrement, seqcycle) FROM pg_sequence JOIN mine ON mine.oid = seqrelid
    ORDER BY 1`);
  return rows.map(({ fact }) => fact);
}

describe('roles', () => {
  const role = (kind: string) => `messenger_${kind}_${process.pid}`;
  const [writer, relay] = [role('writer'), role('relay')];
  const slices = Array.from({ length: 8 }, (_, n) => `messenger.messages_${String(n)}`).join(', ');

  /** All that a writer needs: no right on the sequence of an identity column, and none to read. */
  const writerGrants = [
    'USAGE ON SCHEMA messenger',
    'INSERT (id, topic, key, metadata, payload, at) ON messenger.messages',
  ];
  /** All that a relay needs, cleaning included. */
  const relayGrants = [
    'USAGE ON SCHEMA messenger',
    'SELECT ON messenger.migrations',
    'SELECT ON messenger.settings',
    'SELECT ON messenger.messages',
    'SELECT ON SEQUENCE messenger.messages_seq_seq',
    `SELECT ON ${slices}`,
    `TRUNCATE ON ${slices}`,
    ...['SELECT', 'INSERT', 'UPDATE'].map((right) => `${right} ON messenger.cursors`),
    ...['SELECT', 'INSERT', 'UPDATE'].map((right) => `${right} ON messenger.claims`),
    ...['SELECT', 'INSERT', 'UPDATE', 'DELETE'].map((right) => `${right} ON messenger.parked`),
    ...['SELECT', 'INSERT', 'UPDATE', 'DELETE'].map((right) => `${right} ON messenger.relays`),
    'SELECT ON messenger.destinations',
  ];

  async function prepared(version: PostgresVersion): Promise<{ admin: pg.Pool; writers: pg.Pool; relays: pg.Pool }> {
    const open = await emptyDatabase(version);
    const admin = open();
    await new PostgresStore(admin).migrate();
    for (const name of [writer, relay]) await admin.query(`CREATE ROLE ${name} LOGIN`);
    onTestFinished(async () => {
      for (const name of [writer, relay]) await admin.query(`DROP OWNED BY ${name}; DROP ROLE ${name}`);
    });
    for (const grant of writerGrants) await admin.query(`GRANT ${grant} TO ${writer}`);
    for (const grant of relayGrants) await admin.query(`GRANT ${grant} TO ${relay}`);
    return { admin, writers: open(writer), relays: open(relay) };
  }

  /** Everything that a relay does: claim, read, set aside, retry, clean. */
  async function relayEverything(relays: pg.Pool, destination = 'default'): Promise<string[]> {
    const store = new PostgresStore(relays);
    await store.migrate();
    const feed = await store.openFeed({ destination, pageSize: 100, relay: 'r' });
    if (feed === null) throw new Error('held');
    try {
      const page = await feed.read();
      const [first, second] = page.messages;
      const aside = { attempts: 1, error: new Error('refused') };
      await feed.settle(page, [
        { message: first!, ...aside, dead: true },
        { message: second!, ...aside, dead: false, retryIn: 0 },
      ]);
      const retries = await feed.retries();
      await feed.settle(retries, [
        { message: retries.messages[0]!, attempts: 2, error: new Error('again'), dead: false, retryIn: 0 },
      ]);
      await feed.settle(await feed.retries(), []);
      await feed.read();
      await store.deletePublishedByExpiration(0);
      await feed.close();
      // Closing never rejects: what it could not give back expires.
      const { rowCount } = await relays.query('SELECT FROM messenger.cursors WHERE owner IS NOT NULL');
      if (rowCount !== 0) throw new Error('not given back');
      return page.messages.map(({ id }) => id);
    } finally {
      await feed.close();
    }
  }

  it.each(postgresVersions)(
    'work with the least rights on PostgreSQL %i, and migrate does nothing',
    async (version) => {
      const { admin, writers, relays } = await prepared(version);
      const messages = [newMessage('1', { key: 'a' }), newMessage('2', { key: 'b' }), newMessage('3')];
      await addTo(new PostgresStore(writers), writers, messages);
      expect(await relayEverything(relays)).toEqual(messages.map(({ id }) => id));
      expect((await admin.query('SELECT id FROM messenger.messages')).rows).toEqual([]);
      expect((await admin.query('SELECT id FROM messenger.parked')).rows).toEqual([{ id: messages[0]!.id }]);
      for (const pool of [writers, relays]) {
        await expect(pool.query('CREATE SCHEMA other')).rejects.toMatchObject({ code: '42501' });
        await expect(pool.query('CREATE TABLE messenger.other ()')).rejects.toMatchObject({ code: '42501' });
        await expect(new PostgresStore(pool, { schema: 'other' }).migrate()).rejects.toMatchObject({ code: '42501' });
      }
    },
  );

  it.each(postgresVersions)('of writers forge no transaction, sequence or slice, on PostgreSQL %i', async (version) => {
    const { writers } = await prepared(version);
    for (const forgery of [
      "INSERT INTO messenger.messages (xid, id, payload) VALUES ('3', 'x', 'x')",
      "INSERT INTO messenger.messages (seq, id, payload) OVERRIDING SYSTEM VALUE VALUES (1, 'x', 'x')",
      "INSERT INTO messenger.messages (slice, id, payload) VALUES (1, 'x', 'x')",
      "INSERT INTO messenger.messages (stored_at, id, payload) VALUES ('-infinity', 'x', 'x')",
      "INSERT INTO messenger.messages_1 (id, payload) VALUES ('x', 'x')",
      "SELECT nextval('messenger.messages_seq_seq')",
      "SELECT setval('messenger.messages_seq_seq', 1)",
      'SELECT id FROM messenger.messages',
      "UPDATE messenger.messages SET id = 'x'",
      'DELETE FROM messenger.messages',
      'TRUNCATE messenger.messages',
      'SELECT epoch FROM messenger.cursors',
      'DELETE FROM messenger.parked',
    ]) {
      await expect(writers.query(forgery), forgery).rejects.toMatchObject({ code: '42501' });
    }
    await expect(
      writers.query("INSERT INTO messenger.messages (key_hash, id, payload) VALUES (1, 'x', 'x')"),
    ).rejects.toThrow();
  });

  it('need each of these rights', async () => {
    const { admin, writers, relays } = await prepared(17);
    const store = new PostgresStore(writers);
    const message = () => newMessage('x', { key: 'k', topic: 't', metadata: { a: 'b' } });
    for (const grant of writerGrants) {
      await admin.query(`REVOKE ${grant} FROM ${writer}`);
      await expect(addTo(store, writers, message()), grant).rejects.toMatchObject({ code: '42501' });
      await admin.query(`GRANT ${grant} TO ${writer}`);
    }
    for (const grant of relayGrants) {
      await admin.query(
        'DELETE FROM messenger.cursors; DELETE FROM messenger.claims; DELETE FROM messenger.parked; DELETE FROM messenger.relays',
      );
      await addTo(store, writers, [message(), newMessage('2', { key: 'b' })]);
      await admin.query(`REVOKE ${grant} FROM ${relay}`);
      await expect(relayEverything(relays), grant).rejects.toThrow();
      await admin.query(`GRANT ${grant} TO ${relay}`);
    }
  });
});

describe('a schema that is not this version', () => {
  it('is a clear error that names what to run, and is repaired by it', async () => {
    const pool = (await emptyDatabase())();
    const store = new PostgresStore(pool, { schema: 's', tablePrefix: 'p_' });
    const clear = {
      code: 'SCHEMA_MISMATCH',
      message: expect.stringMatching(
        /"s"\."p_messages" is missing.*`messenger migrate --schema s --table-prefix p_` or `await store\.migrate\(\)`/,
      ) as string,
    };
    await expect(store.messages(1)).rejects.toMatchObject(clear);
    await pool.query('CREATE SCHEMA s');
    await expect(store.messages(1)).rejects.toMatchObject(clear);
    await store.migrate();
    expect(await store.messages(1)).toEqual([]);
    await store.close();
    // As an older version of this library would have left it.
    await pool.query('DELETE FROM s.p_migrations WHERE number > 1');
    await expect(new PostgresStore(pool, { schema: 's', tablePrefix: 'p_' }).messages(1)).rejects.toMatchObject({
      code: clear.code,
      message: expect.stringContaining('messenger migrate') as string,
    });
  });

  it('is worked with as it is when it is newer', async () => {
    const pool = (await emptyDatabase())();
    const store = new PostgresStore(pool);
    await store.migrate();
    await pool.query(
      "INSERT INTO messenger.migrations VALUES (1000, '1000_future.sql'); ALTER TABLE messenger.messages ADD future text",
    );
    expect(await store.migrate()).toEqual([]);
    await addTo(store, pool, newMessage('x'));
    expect(await store.messages(1)).toHaveLength(1);
    await store.close();
  });
});

import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import pg from 'pg';
import { afterAll, describe, expect, inject, it, onTestFinished } from 'vitest';
import { newMessage } from '../../../src/core/contracts/message.js';
import { migrationScript, PostgresStore, rolesScript } from '../../../src/stores/postgres/index.js';
import { SCHEMA_VERSION } from '../../../src/stores/postgres/schema/verify.js';
import { catalog } from '../../support/catalog.js';
import { inTransaction } from '../../support/database.js';
import { postgresVersions, type PostgresVersion } from '../../support/embedded-postgres.js';

const folder = new URL('../../../migrations/postgres/', import.meta.url);
const admins = Object.fromEntries(
  postgresVersions.map((version) => [version, new pg.Pool({ connectionString: inject('postgres')[version], max: 2 })]),
) as Record<PostgresVersion, pg.Pool>;
afterAll(() => Promise.all(Object.values(admins).map((admin) => admin.end())));

let databases = 0;

/** An empty database, which is dropped at the end of the test, and pools on it, which end before that. */
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
    // When the database is dropped, a connection that is just closing may report an error, which is not a failure of
    // the test.
    pool.on('error', () => undefined);
    pools.push(pool);
    return pool;
  };
}

/** The error for a role that lacks a privilege: on what, and what to run. */
const NOT_ALLOWED = {
  code: 'NOT_ALLOWED',
  cause: expect.objectContaining({ code: '42501' }) as Error,
  message: expect.stringMatching(
    /^permission denied for (schema|table|function|procedure|database|sequence) \S+: .*`messenger roles --sql --schema \w+` prints the grants/,
  ) as string,
};
/** The migrations from this number on. */
async function filesFrom(number: number): Promise<string[]> {
  return (await readdir(folder)).filter((file) => Number(file.slice(0, 4)) >= number).sort();
}

/** Stores in a transaction of its own. */
async function addTo(
  store: PostgresStore,
  pool: pg.Pool,
  ...messages: Parameters<PostgresStore['add']>[1][]
): Promise<void> {
  await inTransaction(pool, async (client) => {
    for (const message of messages) await store.add(client, message);
  });
}

describe('migration files', () => {
  it('never change, and are numbered in order', async () => {
    const files = (await readdir(folder)).sort();
    const numbers = files.map((file) => Number(file.slice(0, 4)));
    expect(numbers).toEqual([...new Set(numbers)]);
    expect([numbers[0], numbers.at(-1)]).toEqual([1, SCHEMA_VERSION]);
    // Pinned from the first release on: after it, a change is a new file. Until then this line may change with the
    // file.
    const pinned = { '0001_outbox.sql': '9dd9ca3b744e4bdd073eec668d6f341a07fc45a4cef1a68e5475830639abd46f' };
    for (const [file, hash] of Object.entries(pinned)) {
      const bytes = await readFile(new URL(file, folder));
      expect(createHash('sha256').update(bytes).digest('hex'), file).toBe(hash);
    }
  });
});

it('makes no script for tables that are not older, and says how to make the next', async () => {
  const message = expect.stringMatching(
    new RegExp(`^from must be a whole number from 0 to ${String(SCHEMA_VERSION - 1)}, got`),
  ) as string;
  for (const from of [-1, 0.5, SCHEMA_VERSION, NaN]) {
    await expect(migrationScript({ from })).rejects.toMatchObject({ code: 'INVALID_OPTION', message });
  }
  await expect(migrationScript({ transaction: 'no' as never })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  const [heading] = (await migrationScript({ transaction: false })).split('\n');
  const next = `messenger migrate --sql --no-transaction --from ${String(SCHEMA_VERSION)}`;
  expect(heading).toMatch(new RegExp(`^-- .* ${next}$`));
  const page = new URL('../../../docs/operate/migration-tools.md', import.meta.url);
  expect(await readFile(page, 'utf8')).toContain(`npx ${next}\n`);
});

describe.each(postgresVersions)('migrate on PostgreSQL %i', (version) => {
  it('is safe when ten processes do it at once on an empty database, and does nothing the second time', async () => {
    const open = await emptyDatabase(version);
    const stores = Array.from({ length: 10 }, () => new PostgresStore(open()));
    const applied = await Promise.all(stores.map((store) => store.migrate()));
    expect(applied.filter((names) => names.length > 0)).toEqual([await filesFrom(1)]);
    expect(await stores[0]!.migrate()).toEqual([]);
    const pool = open();
    expect((await pool.query('SELECT number, name FROM messenger.migrations ORDER BY number')).rows).toEqual(
      (await filesFrom(1)).map((name) => ({ number: Number(name.slice(0, 4)), name })),
    );
    await addTo(stores[3]!, pool, newMessage('works'));
    expect(await stores[7]!.messages(10)).toHaveLength(1);
    await stores[7]!.close();
  });

  it('does the same as the script run by a plain client', async () => {
    const options = { schema: "it's {''relays''}; \\ 名", tablePrefix: `p'{"; `, partitions: 3, retention: 120_000 };
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

  it('does the same as a script for a tool, and as several scripts, run statement by statement', async () => {
    const options = { schema: `it's "odd"; \\ 名`, tablePrefix: "p'; ", partitions: 3, jsonPayload: true };
    const [migrated, tool, steps] = [
      await emptyDatabase(version),
      await emptyDatabase(version),
      await emptyDatabase(version),
    ];
    await new PostgresStore(migrated(), options).migrate();
    const whole = await migrationScript({ ...options, transaction: false });
    expect(whole).not.toMatch(/^(BEGIN|COMMIT);$/m);
    await tool().query(whole);
    const pool = steps();
    const second = await migrationScript({ ...options, from: 1, transaction: false });
    const parts = whole.split('--> statement-breakpoint');
    const until = parts.findIndex((part) => part.includes("VALUES (1, '0001_outbox.sql')")) + 1;
    expect(until).toBeGreaterThan(10);
    for (const part of [...parts.slice(0, until), ...second.split('--> statement-breakpoint')]) {
      // A prepared text can be only one statement.
      await pool.query({ text: part, name: createHash('sha256').update(part).digest('hex').slice(0, 40) });
    }
    const expected = await catalog(migrated());
    expect(expected.length).toBeGreaterThan(100);
    expect(await catalog(tool())).toEqual(expected);
    expect(await catalog(pool)).toEqual(expected);
    const store = new PostgresStore(pool, options);
    expect(await store.migrate()).toEqual([]);
    await addTo(store, pool, newMessage('1'));
    expect(await store.messages(10)).toHaveLength(1);
    await store.close();
  });

  it('upgrades by a script with a transaction of its own', async () => {
    const pool = (await emptyDatabase(version))();
    const whole = await migrationScript();
    await pool.query(`${whole.slice(0, whole.indexOf('\n-- 0002_'))}\nCOMMIT;`);
    const script = await migrationScript({ from: 1 });
    expect(script).toMatch(/^BEGIN;\n[^]*\nCOMMIT;\n$/);
    await pool.query(script);
    const other = (await emptyDatabase(version))();
    await new PostgresStore(other).migrate();
    expect(await catalog(pool)).toEqual(await catalog(other));
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
      'x'.repeat(2_000),
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
    // Written down for implementations in other languages.
    expect(Object.fromEntries(rows.slice(0, 4).map(({ hashed, hash }) => [hashed, hash]))).toEqual({
      a: 0xca97,
      'order-1': 0xbaf,
      'grüße 漢字 😀': 0x4447,
      '\\': 0xa925,
    });
  });
});

describe('roles', () => {
  const role = (kind: string) => `messenger_${kind}_${process.pid}`;
  const roles = {
    writer: role('writer'),
    relay: role('relay'),
    consumer: role('consumer'),
    migrator: role('migrator'),
  };
  const { writer, relay, consumer, migrator } = roles;

  /** Each right that the script gives to a role, one by one. */
  function grantsOf(to: string): string[] {
    return [...rolesScript(roles).matchAll(/^GRANT (.*) ON (SCHEMA |SEQUENCE )?(.*) TO "(.*)";$/gm)].flatMap(
      ([, rights = '', kind = '', objects = '', grantee]) => {
        if (grantee !== to) return [];
        // Only a slice with messages in it is truncated.
        if (rights === 'TRUNCATE') return [`${rights} ON ${objects}`];
        const singly = rights.includes('(') ? [rights] : rights.split(', ');
        return singly.flatMap((right) =>
          objects.split(/, (?![^(]*\))/).map((object) => `${right} ON ${kind}${object}`),
        );
      },
    );
  }

  async function prepared(
    version: PostgresVersion,
  ): Promise<Record<'admin' | 'writers' | 'relays' | 'consumers' | 'migrators', pg.Pool>> {
    const open = await emptyDatabase(version);
    const admin = open();
    await new PostgresStore(admin).migrate();
    onTestFinished(async () => {
      for (const name of Object.values(roles)) await admin.query(`DROP OWNED BY ${name}; DROP ROLE ${name}`);
    });
    await admin.query(rolesScript(roles));
    for (const name of Object.values(roles)) await admin.query(`ALTER ROLE ${name} LOGIN`);
    return {
      admin,
      writers: open(writer),
      relays: open(relay),
      consumers: open(consumer),
      migrators: open(migrator),
    };
  }

  /** Everything that a relay does: claim, read, park, retry, clean. */
  async function relayEverything(relays: pg.Pool, destination = 'default'): Promise<string[]> {
    const store = new PostgresStore(relays);
    await store.migrate();
    const feed = await store.openFeed({ destination, pageSize: 100, relay: 'r' });
    if (feed === null) throw new Error('held');
    try {
      const page = await feed.read();
      const [first, second] = page.messages;
      const failure = { attempts: 1, error: new Error('refused') };
      await feed.settle(page, [
        { message: first!, ...failure, dead: true },
        { message: second!, ...failure, dead: false, retryIn: 0 },
      ]);
      const retries = await feed.retries();
      await feed.settle(retries, [
        { message: retries.messages[0]!, attempts: 2, error: new Error('again'), dead: false, retryIn: 0 },
      ]);
      await feed.settle(await feed.retries(), []);
      await feed.read();
      await store.deletePublishedByExpiration(0);
      await feed.close();
      // Closing never rejects: what could not be given back expires.
      const { rowCount } = await relays.query('SELECT FROM messenger.cursors WHERE owner IS NOT NULL');
      if (rowCount !== 0) throw new Error('not given back');
      return page.messages.map(({ id }) => id);
    } finally {
      await feed.close();
    }
  }

  /** Everything that an inbox does: receive a message once, and forget it. */
  async function receiveEverything(consumers: pg.Pool, id: string): Promise<boolean[]> {
    const store = new PostgresStore(consumers);
    const firsts: boolean[] = [];
    const client = await consumers.connect();
    try {
      for (let n = 0; n < 2; n++) {
        await client.query('BEGIN');
        firsts.push(await store.receive(client, 'billing', id));
        await client.query('COMMIT');
      }
      expect(await store.deleteReceived('billing', 0)).toBeGreaterThan(0);
    } finally {
      await client.query('ROLLBACK');
      client.release();
    }
    return firsts;
  }

  it.each(postgresVersions)(
    'of consumers can do everything that an inbox does, and nothing else, on PostgreSQL %i',
    async (version) => {
      const { admin, writers, relays, consumers } = await prepared(version);
      expect(await receiveEverything(consumers, 'a')).toEqual([true, false]);
      await addTo(new PostgresStore(writers), writers, newMessage('x'));
      await admin.query("INSERT INTO messenger.inbox (consumer, id) VALUES ('billing', 'kept')");
      for (const forbidden of [
        'SELECT id FROM messenger.messages',
        'SELECT id FROM messenger.messages_1',
        'SELECT id FROM messenger.parked',
        'SELECT epoch FROM messenger.cursors',
        'SELECT value FROM messenger.settings',
        "INSERT INTO messenger.messages (id, payload) VALUES ('x', 'x')",
        `SELECT messenger.store('[]', 'bytea', NULL, 1, 1, NULL)`,
        'DELETE FROM messenger.parked',
        'TRUNCATE messenger.inbox',
        "UPDATE messenger.inbox SET id = 'x'",
        "UPDATE messenger.inbox SET consumer = 'x'",
        "INSERT INTO messenger.inbox (consumer, id, received_at) VALUES ('billing', 'x', 'infinity')",
        'CREATE TABLE messenger.other ()',
        'CREATE SCHEMA other',
      ]) {
        await expect(consumers.query(forbidden), forbidden).rejects.toMatchObject({ code: '42501' });
      }
      for (const pool of [writers, relays]) {
        for (const forbidden of [
          'SELECT id FROM messenger.inbox',
          'DELETE FROM messenger.inbox',
          "INSERT INTO messenger.inbox (consumer, id) VALUES ('billing', 'x')",
        ]) {
          await expect(pool.query(forbidden), forbidden).rejects.toMatchObject({ code: '42501' });
        }
      }
    },
  );

  it.each(postgresVersions)(
    'work with the fewest rights on PostgreSQL %i, where migrate does nothing',
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
        await expect(new PostgresStore(pool, { schema: 'other' }).migrate()).rejects.toMatchObject(NOT_ALLOWED);
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

  it.each(postgresVersions)(
    'come from a script that can be run again, and not only by a superuser, on PostgreSQL %i',
    async (version) => {
      const open = await emptyDatabase(version);
      const admin = open();
      const boss = role('boss');
      const odd = { writer: `${writer} "w'`, relay: `${relay} \\ $$`, consumer: `${consumer} ;`, migrator };
      const tables = { schema: `Odd "schema"; it's 名`, tablePrefix: `Präfix "x' \\;-- ` };
      await admin.query(`CREATE ROLE ${boss} LOGIN CREATEROLE`);
      onTestFinished(async () => {
        for (const name of [odd.writer, odd.relay, odd.consumer, migrator, boss].map(pg.escapeIdentifier)) {
          await admin.query(`DROP OWNED BY ${name}; DROP ROLE ${name}`);
        }
      });
      const { rows } = await admin.query<{ name: string }>('SELECT quote_ident(current_database()) AS name');
      await admin.query(`GRANT CREATE ON DATABASE ${rows[0]!.name} TO ${boss}`);
      const bosses = open(boss);
      await new PostgresStore(bosses, tables).migrate();
      // Somebody else's function next to ours.
      const others = pg.escapeIdentifier(`${tables.tablePrefix}store`);
      await bosses.query(
        `CREATE FUNCTION ${pg.escapeIdentifier(tables.schema)}.${others}(text) RETURNS text LANGUAGE sql AS 'SELECT $1'`,
      );
      for (let run = 0; run < 2; run++) await bosses.query(rolesScript({ ...odd, ...tables }));
      await admin.query(`ALTER ROLE ${migrator} LOGIN`);
      await open(migrator).query(rolesScript({ ...odd, ...tables }));
      await admin.query(`CREATE ROLE ${role('login')} LOGIN IN ROLE ${pg.escapeIdentifier(odd.writer)}`);
      onTestFinished(() => admin.query(`DROP ROLE ${role('login')}`).then(() => undefined));
      const logins = open(role('login'));
      await addTo(new PostgresStore(logins, tables), logins, newMessage('x'));
    },
  );

  it.each(postgresVersions)(
    'of the migrator can do everything that an operator does, on PostgreSQL %i',
    async (version) => {
      const { writers, relays, migrators } = await prepared(version);
      const store = new PostgresStore(migrators);
      expect(await store.migrate()).toEqual([]);
      await store.admin.addDestination('end', { from: 'end' });
      await store.admin.addDestination('since', { from: new Date(0) });
      await store.admin.updateDestination('end', { forgetAfter: 60_000 });
      await addTo(new PostgresStore(writers), writers, [newMessage('1', { key: 'a' }), newMessage('2', { key: 'b' })]);
      await relayEverything(relays);
      expect(await store.admin.requeue({ all: true })).toBe(1);
      expect(await store.admin.discard({ all: true })).toBe(0);
      expect(await store.admin.deadLetters()).toEqual([]);
      await store.admin.removeDestination('default', { discard: true });
      await store.admin.repartition(4);
      expect(await store.admin.destinations()).toMatchObject([{ name: 'end', partitions: 4 }, { name: 'since' }]);
    },
  );

  it('need each of these rights', async () => {
    const { admin, writers, relays, consumers } = await prepared(17);
    const store = new PostgresStore(writers);
    const message = (destination?: string) =>
      newMessage('x', { key: 'k', topic: 't', metadata: { a: 'b' }, destination });
    await new PostgresStore(admin).declareDestinations(['there']);
    const addAll = async () => {
      await addTo(store, writers, message());
      await addTo(store, writers, message('there'));
      const { text, values } = store.statement(message());
      await writers.query(text, values);
    };
    await addAll();
    for (const grant of grantsOf(writer)) {
      await admin.query(`REVOKE ${grant} FROM ${writer}`);
      // The application itself sends a batch.
      await expect(addAll(), grant).rejects.toMatchObject({
        code: expect.stringMatching(/^(NOT_ALLOWED|42501)$/) as string,
      });
      await admin.query(`GRANT ${grant} TO ${writer}`);
    }
    for (const grant of grantsOf(consumer)) {
      await admin.query(`REVOKE ${grant} FROM ${consumer}`);
      await expect(receiveEverything(consumers, grant), grant).rejects.toMatchObject(NOT_ALLOWED);
      await admin.query(`GRANT ${grant} TO ${consumer}`);
    }
    for (const grant of grantsOf(relay)) {
      await admin.query(
        'DELETE FROM messenger.cursors; DELETE FROM messenger.claims; DELETE FROM messenger.parked; DELETE FROM messenger.relays',
      );
      await admin.query(`INSERT INTO messenger.cursors (destination, partition) VALUES ('abandoned', 0)`);
      await admin.query(
        `INSERT INTO messenger.destinations VALUES ('abandoned', '2020-01-01', NULL, 1, NULL) ON CONFLICT (name) DO UPDATE SET forgotten_at = NULL`,
      );
      await addTo(store, writers, [message(), newMessage('2', { key: 'b' })]);
      await admin.query(`REVOKE ${grant} FROM ${relay}`);
      await expect(relayEverything(relays), grant).rejects.toThrow(
        /`messenger roles --sql --schema messenger` prints|not given back/,
      );
      await admin.query(`GRANT ${grant} TO ${relay}`);
    }
  });
});

describe.each(postgresVersions)('retention on PostgreSQL %i', (version) => {
  const settings = async (pool: pg.Pool) =>
    (await pool.query<{ value: string }>("SELECT value FROM messenger.settings WHERE name = 'slice_seconds'")).rows[0];

  it('that differs from the tables is reported, changed by migrate, and loses no stored message', async () => {
    const pool = (await emptyDatabase(version))();
    const old = new PostgresStore(pool, { retention: 600_000 });
    await old.migrate();
    const ids: string[] = [];
    const add = async (store: PostgresStore, count: number) => {
      const messages = Array.from({ length: count }, (_, n) => newMessage('x', { key: `k${n % 3}` }));
      await addTo(store, pool, messages);
      ids.push(...messages.map(({ id }) => id));
    };
    await add(old, 10);
    const listed = await old.messages(4);
    await old.published(...listed);
    await old.close();

    const next = new PostgresStore(pool, { retention: 60_000 });
    await expect(next.messages(1)).rejects.toMatchObject({
      code: 'SCHEMA_MISMATCH',
      message: expect.stringMatching(
        /retention of 600000 ms, .* given 60000 ms: .*`messenger migrate --retention`/,
      ) as string,
    });
    expect(await next.migrate()).toEqual(['retention 60000 ms']);
    expect(await next.migrate()).toEqual([]);
    expect(await settings(pool)).toEqual({ value: '10' });
    const restarted = new PostgresStore(pool, { retention: 600_000 });
    await expect(restarted.messages(1)).rejects.toMatchObject({ code: 'SCHEMA_MISMATCH' });

    // Writers from before continue, and one without the option uses what the tables have.
    const silent = new PostgresStore(pool);
    expect(await silent.migrate()).toEqual([]);
    await add(old, 10);
    await add(silent, 10);
    const { rows } = await pool.query<{ right: boolean }>(
      `SELECT slice = floor(date_part('epoch', stored_at) / 10)::bigint % 8 OR slice = (floor(date_part('epoch', stored_at) / 10)::bigint + 7) % 8 AS right
         FROM messenger.messages ORDER BY seq OFFSET 10`,
    );
    expect(rows.map(({ right }) => right)).toEqual(Array.from({ length: 20 }, () => true));
    const rest: string[] = [];
    for (;;) {
      const page = await silent.messages(7);
      if (page.length === 0) break;
      await silent.deletePublishedByExpiration(0);
      rest.push(...page.map(({ id }) => id));
      await silent.published(...page);
    }
    expect([...listed.map(({ id }) => id), ...rest]).toEqual(ids);
    expect(await silent.deletePublishedByExpiration(60_000)).toMatchObject({ emptied: 0 });
    await expect(silent.deletePublishedByExpiration(60_001)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    await silent.deletePublishedByExpiration(0);
    await silent.close();
    expect((await pool.query('SELECT id FROM messenger.messages')).rows).toEqual([]);
  });

  it('does not wait long for a transaction that uses the log, and then stays as it was', async () => {
    const pool = (await emptyDatabase(version))();
    await new PostgresStore(pool, { retention: 600_000 }).migrate();
    const writer = await pool.connect();
    await writer.query("BEGIN; INSERT INTO messenger.messages (id, payload) VALUES ('open', 'x')");
    await expect(new PostgresStore(pool, { retention: 60_000 }).migrate()).rejects.toMatchObject({
      code: 'CONFLICT',
    });
    await writer.query('COMMIT');
    writer.release();
    expect(await settings(pool)).toEqual({ value: '100' });
  });
});

it('is not upgraded during a long transaction that uses the log, and does not hold up writers', async () => {
  const pool = (await emptyDatabase())();
  const script = await migrationScript();
  await pool.query(`${script.slice(0, script.indexOf('\n-- 0004_'))}\nCOMMIT;`);
  const writer = await pool.connect();
  await writer.query("BEGIN; INSERT INTO messenger.messages (id, payload) VALUES ('open', 'x')");
  const store = new PostgresStore(pool);
  await expect(store.migrate()).rejects.toMatchObject({
    code: 'CONFLICT',
    message: expect.stringMatching(/could not be changed: .* Nothing was changed: try again$/) as string,
  });
  await pool.query("INSERT INTO messenger.messages (id, payload) VALUES ('meanwhile', 'x')");
  await writer.query('COMMIT');
  writer.release();
  expect(await store.migrate()).toEqual(await filesFrom(4));
  expect(await migrationScript({ from: 3 })).toMatch(
    /^BEGIN;\nSET LOCAL standard_conforming_strings = on;\n[^;]*;\nSET LOCAL lock_timeout = 2000;\n/,
  );
});

it('is upgraded while a relay is in a transaction, because it locks in the order of relays', async () => {
  const pool = (await emptyDatabase())();
  const script = await migrationScript();
  await pool.query(`${script.slice(0, script.indexOf('\n-- 0007_'))}\nCOMMIT;`);
  const relay = await pool.connect();
  await relay.query('BEGIN; LOCK TABLE messenger.cursors IN ROW EXCLUSIVE MODE');
  const migrating = new PostgresStore(pool).migrate();
  const waiting =
    'SELECT count(*)::int AS count FROM pg_locks JOIN pg_database d ON d.oid = database WHERE NOT granted AND datname = current_database()';
  await expect.poll(async () => (await pool.query<{ count: number }>(waiting)).rows[0]?.count).toBe(1);
  await relay.query('SELECT FROM messenger.messages');
  await relay.query('COMMIT');
  relay.release();
  expect(await migrating).toEqual(await filesFrom(7));
});

it('does not upgrade tables that a subscription fills, and says how to upgrade them', async () => {
  const pool = (await emptyDatabase())();
  const script = await migrationScript();
  await pool.query(`${script.slice(0, script.indexOf('\n-- 0009_'))}\nCOMMIT;`);
  const name = `s_${String(process.pid)}_${String(Math.random()).slice(2)}`;
  await pool.query(
    `CREATE SUBSCRIPTION ${name} CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)`,
  );
  // What the initial copy leaves there.
  await pool.query(`INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)
    SELECT oid, 'messenger.migrations'::regclass, 'r' FROM pg_subscription WHERE subname = '${name}'`);
  const store = new PostgresStore(pool);
  await expect(store.migrate()).rejects.toMatchObject({
    code: 'CONFLICT',
    message: expect.stringContaining('run the SQL of `messenger migrate --sql --from 8` here once') as string,
  });
  await pool.query(await migrationScript({ from: 8 }));
  // The publisher must record that.
  const { rows } = await pool.query('SELECT max(number) AS number FROM messenger.migrations');
  expect(rows).toEqual([{ number: 8 }]);
  for (const name of await filesFrom(9)) {
    await pool.query('INSERT INTO messenger.migrations (number, name) VALUES ($1, $2)', [
      Number(name.slice(0, 4)),
      name,
    ]);
  }
  expect(await store.migrate()).toEqual([]);
  await pool.query(`DROP SUBSCRIPTION ${name}`);
});

it('makes the scripts of its own tables through `admin`', async () => {
  const tables = { schema: 's', tablePrefix: 'p_', partitions: 3 };
  const { admin } = new PostgresStore((await emptyDatabase())(), { ...tables, lease: 5_000 });
  expect(await admin.migrationScript({ from: 8 })).toBe(await migrationScript({ ...tables, from: 8 }));
  expect(admin.rolesScript({ writer: 'w' })).toBe(rolesScript({ schema: 's', tablePrefix: 'p_', writer: 'w' }));
});

it('refuses keys that could not be parked, even from SQL, and leaves existing ones', async () => {
  const pool = (await emptyDatabase())();
  const script = await migrationScript();
  await pool.query(`${script.slice(0, script.indexOf('\n-- 0006_'))}\nCOMMIT;`);
  const store = (key: string) =>
    pool.query("INSERT INTO messenger.messages (id, key, payload) VALUES ('x', $1, 'x')", [key]);
  const longest = '名'.repeat(666) + '12';
  await store(`${longest}3`);
  expect(await new PostgresStore(pool).migrate()).toEqual(await filesFrom(6));
  await store(longest);
  await expect(store(`${longest}4`)).rejects.toThrow('violates check constraint "key_at_most_2000_bytes"');
  const { rows } = await pool.query('SELECT octet_length(key) AS bytes FROM messenger.messages ORDER BY seq');
  expect(rows).toEqual([{ bytes: 2_001 }, { bytes: 2_000 }]);
});

describe('a schema that is not of this version', () => {
  it('causes an error that says what to run, which repairs it', async () => {
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
    // As an older version of this library would have left the tables.
    await pool.query('DELETE FROM s.p_migrations WHERE number > 1');
    await expect(new PostgresStore(pool, { schema: 's', tablePrefix: 'p_' }).messages(1)).rejects.toMatchObject({
      code: clear.code,
      message: expect.stringContaining('messenger migrate') as string,
    });
  });

  it('is used as it is if it is newer', async () => {
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

/**
 * What a platform grants by default on everything that is created: a migration takes it back, and reports later grants.
 */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import pg from 'pg';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { newMessage } from '../../../src/core/contracts/message.js';
import { migrationScript, PostgresStore, rolesScript } from '../../../src/stores/postgres/index.js';
import { newDatabase } from '../../support/database.js';
import { postgresVersions, type PostgresVersion } from '../../support/embedded-postgres.js';

const role = (kind: string) => `privileges_${kind}_${String(process.pid)}`;
const anon = role('anon');
const OPTIONS = { schema: 'public', tablePrefix: 'outbox_' };

/** A database whose platform grants everything in its schema, in all forms, to a role that anybody has. */
async function platform(version: PostgresVersion): Promise<pg.Pool> {
  const pool = new pg.Pool({ connectionString: await newDatabase(inject('postgres')[version]), max: 3 });
  await pool.query(`CREATE ROLE ${anon} LOGIN; GRANT ALL ON SCHEMA public TO ${anon}`);
  onTestFinished(async () => {
    await pool.query(`DROP OWNED BY ${anon}; DROP ROLE ${anon}`);
    await pool.end();
  });
  for (const kind of ['TABLES', 'SEQUENCES', 'FUNCTIONS'])
    await pool.query(`ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON ${kind} TO ${anon} WITH GRANT OPTION;
      ALTER DEFAULT PRIVILEGES GRANT ALL ON ${kind} TO PUBLIC, ${anon}`);
  return pool;
}

/** Everything in the schema, and the rights of everybody but its owner. */
async function granted(pool: pg.Pool): Promise<string[]> {
  const { rows } = await pool.query<{
    found: string;
  }>(`SELECT concat_ws(' ', what, grantee::regrole, privilege_type) AS found FROM (
      SELECT relname::text AS what, relowner AS owner, relacl AS acl FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind <> 'i'
      UNION ALL SELECT proname, proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ) o CROSS JOIN LATERAL aclexplode(acl) a WHERE grantee <> owner ORDER BY 1`);
  return rows.map(({ found }) => found);
}

/** What anybody can do with the connection string of `anon`. */
async function attempts(pool: pg.Pool): Promise<string[]> {
  const url = new URL((pool as unknown as { options: { connectionString: string } }).options.connectionString);
  url.username = anon;
  const client = new pg.Client({ connectionString: url.href });
  await client.connect();
  const { rows } = await pool.query<{ name: string; kind: string }>(
    `SELECT oid::regclass::text AS name, relkind AS kind FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S')`,
  );
  expect(rows.length).toBeGreaterThanOrEqual(18);
  const tries = rows.flatMap(({ name, kind }) =>
    kind === 'S'
      ? [`SELECT * FROM ${name}`, `SELECT nextval('${name}')`, `SELECT setval('${name}', 1)`]
      : [`SELECT * FROM ${name}`, `DELETE FROM ${name}`, `TRUNCATE ${name}`, `INSERT INTO ${name} DEFAULT VALUES`],
  );
  tries.push(
    `UPDATE outbox_cursors SET from_snapshot = '1:1:'`,
    `SELECT outbox_store('[]', 'bytea', NULL, 8, 8, 'x')`,
    `SELECT outbox_store_addressed('[]', 'bytea', NULL, 8, 8, 'x')`,
    `CALL outbox_store_in_transaction('[]', 'bytea', NULL, 8, 8, 'x', false, '', NULL)`,
    `CALL outbox_receive_in_transaction('billing', 'x', NULL)`,
  );
  const done: string[] = [];
  for (const text of tries) {
    const code = await client.query(text).then(
      () => undefined,
      (error: unknown) => (error as { code?: string }).code,
    );
    if (code !== '42501') done.push(`${text}: ${String(code)}`);
  }
  await client.end();
  return done;
}

describe.each(postgresVersions)('default privileges on PostgreSQL %i', (version) => {
  it.each(['migrate', 'script', 'script of a tool'])('give nobody a right on what %s creates', async (how) => {
    const pool = await platform(version);
    const store = new PostgresStore(pool, OPTIONS);
    if (how === 'migrate') await store.migrate();
    else await pool.query(await migrationScript({ ...OPTIONS, transaction: how === 'script' }));
    expect(await granted(pool)).toEqual([]);
    expect(await attempts(pool)).toEqual([]);
    expect(await store.admin.excessGrants()).toEqual([]);
  });

  it('are left on existing objects, as are later grants, and are reported', async () => {
    const pool = await platform(version);
    const script = await migrationScript(OPTIONS);
    // As the previous version made them, with the rights that were granted there.
    await pool.query(`${script.slice(0, script.indexOf('\n-- 0005_')).replace(/^DO '[^]*?\nEND';$/gm, '')}\nCOMMIT`);
    const before = await granted(pool);
    expect(before.length).toBeGreaterThan(100);
    const store = new PostgresStore(pool, OPTIONS);
    await store.migrate();
    // Whoever could store or receive may do so with the new functions too.
    expect((await granted(pool)).filter((each) => !each.includes('_in_transaction '))).toEqual(before);
    await pool.query(`REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, ${anon};
      REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM PUBLIC, ${anon}; REVOKE ALL ON ALL ROUTINES IN SCHEMA public FROM PUBLIC, ${anon};
      GRANT SELECT ON outbox_messages TO ${anon}; GRANT UPDATE (high) ON outbox_cursors TO ${anon}`);
    expect(await store.migrate()).toEqual([]);
    const excess = await store.admin.excessGrants();
    expect(excess).toEqual([
      {
        grantee: anon,
        grant: 'SELECT ON "public"."outbox_messages"',
        revoke: `REVOKE SELECT ON "public"."outbox_messages" FROM "${anon}"`,
      },
      {
        grantee: anon,
        grant: 'UPDATE (high) ON "public"."outbox_cursors"',
        revoke: `REVOKE UPDATE (high) ON "public"."outbox_cursors" FROM "${anon}"`,
      },
    ]);
    for (const { revoke } of excess) await pool.query(revoke);
    expect(await granted(pool)).toEqual([]);
  });

  it('let writers store with the roles', async () => {
    const pool = await platform(version);
    const store = new PostgresStore(pool, OPTIONS);
    await store.migrate();
    const roles = { writer: role('w'), relay: role('r'), consumer: role('c'), migrator: role('m') };
    await pool.query(rolesScript({ ...OPTIONS, ...roles }));
    onTestFinished(async () => {
      for (const name of Object.values(roles)) await pool.query(`DROP OWNED BY ${name} CASCADE; DROP ROLE ${name}`);
    });
    expect(await store.admin.excessGrants(roles)).toEqual([]);
    await pool.query(`GRANT SELECT ON outbox_messages TO ${roles.writer}`);
    expect(await store.admin.excessGrants(roles)).toMatchObject([{ grantee: roles.writer }]);
    const client = await pool.connect();
    await client.query(`BEGIN; SET LOCAL ROLE ${roles.writer}`);
    await store.add(client, newMessage('x'));
    await client.query('COMMIT');
    client.release();
  });
});

it('take nothing from writers: whoever may store may call a function that an upgrade adds', async () => {
  const pool = await platform(17);
  const script = await migrationScript(OPTIONS);
  await pool.query(`${script.slice(0, script.indexOf('\n-- 0004_'))}\nCOMMIT;
    REVOKE ALL ON outbox_messages FROM ${anon}, PUBLIC; GRANT INSERT (id, payload) ON outbox_messages TO ${anon}`);
  await new PostgresStore(pool, OPTIONS).migrate();
  const added = (await granted(pool)).filter((each) => each.startsWith('outbox_store_addressed '));
  expect(added).toEqual([`outbox_store_addressed ${anon} EXECUTE`]);
});

it('are shown by the command, with the SQL that revokes them', async () => {
  const pool = await platform(17);
  await new PostgresStore(pool, OPTIONS).migrate();
  const url = (pool as unknown as { options: { connectionString: string } }).options.connectionString;
  const root = fileURLToPath(new URL('../../../', import.meta.url));
  const roles = async () => {
    const args = ['--import', 'tsx', 'src/cli/main.ts', 'roles', '--schema', 'public', '--table-prefix', 'outbox_'];
    return (await promisify(execFile)(process.execPath, [...args, '--url', url], { cwd: root })).stdout;
  };
  expect(await roles()).toBe(
    '-- nobody has more privileges than the roles need: pass --sql to print the SQL for the roles\n',
  );
  await pool.query(`GRANT SELECT ON outbox_messages TO ${anon}`);
  expect(await roles()).toBe(
    `-- ${anon} holds SELECT ON "public"."outbox_messages"\nREVOKE SELECT ON "public"."outbox_messages" FROM "${anon}";\n`,
  );
});

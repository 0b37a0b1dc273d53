/** Prisma's schema engine, in a database that has an outbox too. */
import { expect, it } from 'vitest';
import { migrationScript, PostgresStore } from 'messenger-outbox/postgres';
import { shellLines } from '../docs/shell.js';
import { catalog } from '../support/catalog.js';
import { prisma, type Migrations } from './prisma-engine.js';
import { database, ELSEWHERE, fileOfVersion1, migrated, project, shell, withMessage } from './support.js';

const order = 'model Order {\n  id String @id\n  @@map("orders")\n}';
const init: Migrations = [
  ['20260101000000_init', 'CREATE TABLE orders (id text NOT NULL, CONSTRAINT orders_pkey PRIMARY KEY (id));'],
];
/** Every table of an outbox, but for the slices of `messages`, which Prisma does not look at. */
const TABLES = ['messages', 'cursors', 'claims', 'parked', 'settings', 'destinations', 'relays', 'inbox', 'migrations'];

it('deploy migrates the application and the outbox, which is the same as by migrate()', async () => {
  const { url, pool } = await database();
  const folder = await project({ 'prisma/schema.prisma': '' });
  const lines = shellLines('prisma/migrations')
    .split('\n')
    .filter((line) => !line.includes('npx prisma'));
  const { failed, output } = await shell(
    folder,
    url,
    `${lines.join('\n')}\ncat prisma/migrations/*_outbox/migration.sql`,
  );
  expect(failed, output).toBe(false);
  const migrations: Migrations = [...init, ['20260131000000_outbox', output]];
  const { deploy, dev, push } = await prisma(url, { models: order, migrations });
  expect(await deploy()).toEqual(['20260101000000_init', '20260131000000_outbox']);
  expect(await catalog(pool, 'messenger')).toEqual(await migrated());
  expect(await new PostgresStore(pool).migrate()).toEqual([]);
  const unharmed = await withMessage(pool);
  expect(await deploy()).toEqual([]);
  expect(await dev()).toEqual({ next: null });
  expect(await push(true)).toEqual({ executedSteps: 0, unexecutable: [], warnings: [] });
  await unharmed();
});

it('brings an older outbox to this version', async () => {
  const { url, pool } = await database();
  const first: Migrations = [...init, ['20260131000000_outbox', await fileOfVersion1()]];
  await (await prisma(url, { models: order, migrations: first })).deploy();
  await expect(new PostgresStore(pool).messages(1)).rejects.toMatchObject({ code: 'SCHEMA_MISMATCH' });
  const second = await migrationScript({ from: 1, transaction: false });
  const { deploy, dev } = await prisma(url, {
    models: order,
    migrations: [...first, ['20270101000000_outbox', second]],
  });
  expect(await deploy()).toEqual(['20270101000000_outbox']);
  expect(await catalog(pool, 'messenger')).toEqual(await migrated());
  expect(await dev()).toEqual({ next: null });
  await (
    await withMessage(pool)
  )();
});

it.each([
  ['one schema', { models: order }],
  ['several schemas', { models: `${order.slice(0, -1)}@@schema("shop")\n}`, schemas: ['public', 'shop'] }],
])('%s: push, dev and pull know nothing of an outbox in a schema of its own, whatever they drop', async (_, models) => {
  const { url, pool } = await database();
  const unharmed = await withMessage(pool);
  const { push, dev, pull } = await prisma(url, models);
  expect((await push()).executedSteps).toBeGreaterThan(0);
  const pulled = await pull();
  expect(pulled).toContain('model orders');
  expect(pulled).not.toMatch(/messages|messenger|cursors/);
  const without = await prisma(url, { ...models, models: '' });
  expect(await without.push(true)).toMatchObject({ executedSteps: 1 });
  await unharmed();
  expect(await dev()).toEqual({ next: expect.stringMatching(/CREATE TABLE "(shop"\.")?orders"/) as string });
  await unharmed();
});

it('reset leaves the outbox, and its migration can run again when it is dropped as well', async () => {
  const { url, pool } = await database();
  const migrations: Migrations = [...init, ['20260131000000_outbox', await migrationScript({ transaction: false })]];
  const { deploy, reset } = await prisma(url, { models: order, migrations });
  await deploy();
  const unharmed = await withMessage(pool);
  await reset();
  await unharmed();
  await pool.query('DROP SCHEMA messenger CASCADE');
  expect(await deploy()).toHaveLength(2);
  await (
    await withMessage(pool)
  )();
});

it('wants to drop an outbox among the tables of the application, unless they are external', async () => {
  const { url, pool } = await database();
  const script = await migrationScript({ ...ELSEWHERE, transaction: false });
  const models = { models: order, migrations: [...init, ['20260131000000_outbox', script] as const] };
  const plain = await prisma(url, models);
  await plain.deploy();
  const unharmed = await withMessage(pool, ELSEWHERE);
  const { next } = await plain.dev();
  for (const table of TABLES) expect(next).toContain(`DROP TABLE "outbox_${table}"`);
  // It does nothing before that is allowed.
  expect((await plain.push()).warnings.join()).toContain(
    'drop the `outbox_messages` table, which is not empty (1 rows)',
  );
  await unharmed();
  const external = TABLES.map((table) => `public.outbox_${table}`);
  const { dev, push } = await prisma(url, { ...models, external });
  expect(await dev()).toEqual({ next: null });
  expect(await push(true)).toEqual({ executedSteps: 0, unexecutable: [], warnings: [] });
  await unharmed();
});

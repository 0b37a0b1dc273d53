/** The real drizzle-kit, in a database that has an outbox too. */
import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { drizzle } from 'drizzle-orm/node-postgres';
import { migrate } from 'drizzle-orm/node-postgres/migrator';
import { expect, it } from 'vitest';
import { PostgresStore } from 'messenger-outbox/postgres';
import { shellLines } from '../docs/shell.js';
import { catalog } from '../support/catalog.js';
import { oldest } from '../support/embedded-postgres.js';
import { database, ELSEWHERE, fileOfVersion1, migrated, project, shell, withMessage } from './support.js';

const orders = (columns = 'total: integer().notNull()') => `
  import { integer, pgSchema, pgTable, text } from 'drizzle-orm/pg-core';
  export const orders = pgTable('orders', { id: text().primaryKey(), ${columns} });`;
const config = (settings: object = {}) => `export default {
  dialect: 'postgresql', schema: './schema.ts', dbCredentials: { url: process.env.DATABASE_URL }, ...${JSON.stringify(settings)}
};`;

/** An application with drizzle-kit, and its commands; those that fail throw. */
async function application(url: string, settings?: object) {
  const folder = await project({ 'schema.ts': orders(), 'drizzle.config.ts': config(settings) });
  const run = async (lines: string) => {
    const { failed, output } = await shell(folder, url, lines);
    if (failed) throw new Error(`${lines} failed:\n${output}`);
    return output;
  };
  const write = (name: string, text: string) => writeFile(path.join(folder, name), text);
  return { folder, run, write };
}

it('push, generate and pull know nothing of an outbox in a schema of its own, whatever they drop', async () => {
  const { url, pool } = await database();
  const unharmed = await withMessage(pool);
  const { run, write, folder } = await application(url);
  expect(await run('npx drizzle-kit push')).toContain('Changes applied');
  expect(await run('npx drizzle-kit push')).toContain('No changes detected');
  await unharmed();
  await write('schema.ts', orders(''));
  expect(await run('npx drizzle-kit push --force --verbose')).toContain('DROP COLUMN "total"');
  await write('schema.ts', '');
  expect(await run('npx drizzle-kit push --force --verbose')).toContain('DROP TABLE "orders"');
  await unharmed();

  await write('schema.ts', orders());
  await run('npx drizzle-kit generate && npx drizzle-kit migrate');
  expect(await run('npx drizzle-kit generate')).toContain('No schema changes');
  await run('npx drizzle-kit pull --out pulled --dialect postgresql --url "$DATABASE_URL"');
  const pulled = await readFile(path.join(folder, 'pulled/schema.ts'), 'utf8');
  expect(pulled).toContain('"orders"');
  expect(pulled).not.toMatch(/messages|messenger|cursors/);
  await unharmed();
});

it('push with a schemaFilter for other schemas of the application leaves it alone', async () => {
  const { url, pool } = await database();
  const unharmed = await withMessage(pool);
  const { run, write, folder } = await application(url, { schemaFilter: ['public', 'shop'] });
  const shop = "export const shop = pgSchema('shop'); export const carts = shop.table('carts', { id: text() });";
  await write('schema.ts', orders() + shop);
  expect(await run('npx drizzle-kit push --force --verbose')).toContain('CREATE TABLE "shop"."carts"');
  await write('schema.ts', orders());
  const output = await run('npx drizzle-kit push --force --verbose');
  expect(output).toContain('DROP');
  // It names the files that it reads, in a clone of whatever name.
  expect(output.replaceAll(path.dirname(folder), '')).not.toContain('messenger');
  await unharmed();
});

it('push stops at an outbox among the tables of the application, and loses nothing of it', async () => {
  const { url, pool } = await database();
  const unharmed = await withMessage(pool, ELSEWHERE);
  const { run, write } = await application(url);
  const push = 'npx drizzle-kit push --force --verbose 2>&1 || true';
  // It asks a partition's identity column for the name of its sequence.
  expect(await run(push)).toContain('public.outbox_messages_0');
  await write('drizzle.config.ts', config({ tablesFilter: ['!outbox_*'] }));
  // tablesFilter leaves out tables, and not their sequences.
  expect(await run(push)).toContain('cannot drop sequence outbox_messages_seq_seq');
  await unharmed();
  // Files of migrations are made without a look at the database.
  await run('npx drizzle-kit generate');
  expect(await run('npx drizzle-kit generate')).toContain('No schema changes');
});

it('push on PostgreSQL 14 drops what is in an outbox among the tables of the application', async () => {
  const { url, pool } = await database(oldest);
  await withMessage(pool, ELSEWHERE);
  await pool.query('CREATE TABLE orders (id text PRIMARY KEY, total integer NOT NULL)');
  const { run } = await application(url);
  expect(await run('npx drizzle-kit push --force --verbose')).toContain('DROP TABLE "outbox_messages_0"');
  expect((await pool.query('SELECT id FROM outbox_messages')).rows).toEqual([]);
});

it('one command migrates the application and the outbox, which is the same as by migrate()', async () => {
  const { url, pool } = await database();
  const { run } = await application(url);
  await run('npx drizzle-kit generate');
  await run(shellLines('drizzle-kit generate --custom'));
  expect(await catalog(pool, 'messenger')).toEqual(await migrated());
  expect(await new PostgresStore(pool).migrate()).toEqual([]);
  const unharmed = await withMessage(pool);
  await pool.query('SELECT id, total FROM orders');
  await run('npx drizzle-kit migrate');
  expect(await run('npx drizzle-kit generate')).toContain('No schema changes');
  expect(await run('npx drizzle-kit push')).toContain('No changes detected');
  await unharmed();
});

it.each(['npx drizzle-kit migrate', 'the migrator of drizzle-orm'])(
  '%s brings an older outbox to this version',
  async (by) => {
    const { url, pool } = await database();
    const { run, write, folder } = await application(url);
    const apply = () =>
      by.startsWith('npx') ? run(by) : migrate(drizzle(pool), { migrationsFolder: path.join(folder, 'drizzle') });
    await run('npx drizzle-kit generate --custom --name outbox');
    await write('drizzle/0000_outbox.sql', await fileOfVersion1());
    await apply();
    await expect(new PostgresStore(pool).messages(1)).rejects.toMatchObject({ code: 'SCHEMA_MISMATCH' });
    await run('npx drizzle-kit generate --name orders');
    await run('npx drizzle-kit generate --custom --name outbox-2');
    await run('npx messenger migrate --sql --no-transaction --from 1 > drizzle/0002_outbox-2.sql');
    await apply();
    expect(await catalog(pool, 'messenger')).toEqual(await migrated());
    await (
      await withMessage(pool)
    )();
    expect(await run('npx drizzle-kit generate')).toContain('No schema changes');
    await rm(path.join(folder, 'drizzle'), { recursive: true });
  },
);

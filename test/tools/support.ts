/** An application that has an outbox in its database, and a tool that changes the database of the application. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { expect, inject, onTestFinished } from 'vitest';
import { newMessage } from 'messenger-outbox';
import { migrationScript, PostgresStore, type PostgresTableOptions } from 'messenger-outbox/postgres';
import { catalog } from '../support/catalog.js';
import { newDatabase } from '../support/database.js';
import type { PostgresVersion } from '../support/embedded-postgres.js';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** Where the tables are that a tool must leave alone. */
export const ELSEWHERE: PostgresTableOptions = { schema: 'public', tablePrefix: 'outbox_' };

/** An empty database, and a pool on it. */
export async function database(version: PostgresVersion = 17): Promise<{ url: string; pool: pg.Pool }> {
  const url = await newDatabase(inject('postgres')[version]);
  const pool = new pg.Pool({ connectionString: url, max: 2 });
  onTestFinished(() => pool.end());
  return { url, pool };
}

/** Fails unless the outbox is as it was, the message in it included. */
export type Unharmed = () => Promise<void>;

/** Makes the tables unless a tool did, and stores a message. */
export async function withMessage(pool: pg.Pool, options: PostgresTableOptions = {}): Promise<Unharmed> {
  const store = new PostgresStore(pool, options);
  await store.migrate();
  const message = newMessage('kept');
  const client = await pool.connect();
  await client.query('BEGIN');
  await store.add(client, message);
  await client.query('COMMIT');
  client.release();
  const { schema = 'messenger', tablePrefix = '' } = options;
  const facts = () => catalog(pool, schema, tablePrefix);
  const before = await facts();
  expect(before.length).toBeGreaterThan(100);
  return async () => {
    expect(await facts()).toEqual(before);
    const found = new PostgresStore(pool, options);
    expect((await found.messages(10)).map(({ id }) => id)).toEqual([message.id]);
    await found.close();
  };
}

/** What `migrate()` makes in an empty database. */
export async function migrated(options: PostgresTableOptions = {}): Promise<string[]> {
  const { pool } = await database();
  await new PostgresStore(pool, options).migrate();
  return catalog(pool, options.schema ?? 'messenger');
}

/** A file for a tool that brings the tables to version 1 only, as a former version of the library wrote it. */
export async function fileOfVersion1(): Promise<string> {
  const script = await migrationScript({ transaction: false });
  const recorded = script.indexOf("'0001_outbox.sql'");
  expect(recorded).toBeGreaterThan(1_000);
  return script.slice(0, script.indexOf(';\n', recorded) + 2);
}

/** A folder inside the repository, so that packages resolve, with these files; removed with the test. */
export async function project(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(path.join(root, '.tools-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(path.dirname(path.join(folder, name)), { recursive: true });
    await writeFile(path.join(folder, name), text);
  }
  return folder;
}

/** Runs shell lines in a folder, with `npx` for the programs of this repository; whether they succeeded, and what they printed. */
export function shell(cwd: string, url: string, lines: string): Promise<{ failed: boolean; output: string }> {
  const env = { PATH: `${root}node_modules/.bin:${process.env['PATH'] ?? ''}`, DATABASE_URL: url };
  const messenger = `'${process.execPath}' --import tsx '${root}src/cli/main.ts'`;
  const script = `npx() { "$@"; }\nmessenger() { ${messenger} "$@"; }\n${lines}`;
  return new Promise((resolve) => {
    const child = execFile('sh', ['-euc', script], { cwd, env, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      resolve({ failed: error !== null, output: `${stdout}${stderr}` });
    });
    // Nobody is there to answer.
    child.stdin?.end();
  });
}

import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, it } from 'vitest';
import { PostgresStore } from 'messenger-outbox/postgres';
import { database, project, shell } from '../tools/support.js';
import { commands } from './commands.js';
import { root } from './sample-runner.js';
import { callsOfMessenger, NOT_RUN, shellBlocks } from './shell.js';

/** What tests ask of `shellLines`. */
async function partsRun(): Promise<string[]> {
  const folder = path.join(root, 'test');
  const files = (await readdir(folder, { recursive: true })).filter((file) => file.endsWith('.test.ts'));
  const texts = await Promise.all(files.map((file) => readFile(path.join(folder, file), 'utf8')));
  return texts.flatMap((text) => [...text.matchAll(/\bshellLines\('([^']+)'/g)].map(([, part = '']) => part));
}

it('runs the shell lines of every page, or lists why not', async () => {
  const parts = [...(await partsRun()), ...Object.keys(NOT_RUN)];
  const holding = (part: string) => shellBlocks.filter(({ lines }) => lines.includes(part));
  expect(parts.filter((part) => holding(part).length === 0)).toEqual([]);
  const known = new Set([...callsOfMessenger, ...parts.flatMap(holding)]);
  expect(shellBlocks.filter((block) => !known.has(block))).toEqual([]);
});

it('shows only valid messenger commands on the pages', () => {
  const calls = shellBlocks.flatMap(({ page, lines }) =>
    [...lines.replaceAll('\\\n', ' ').matchAll(/\bmessenger ([a-z-]+)([^\n|;&>]*)/g)].map(
      ([call, name = '', rest = '']) => ({ page, call, name, flags: rest.match(/--[a-z-]+/g) ?? [] }),
    ),
  );
  const known = ({ name, flags }: (typeof calls)[number]) =>
    name === 'help' || flags.every((flag) => commands.get(name)?.includes(flag));
  expect(calls.length).toBeGreaterThan(10);
  expect(calls.filter((call) => !known(call))).toEqual([]);
});

/** What a block needs to be there, beside the tables. */
const PREPARED: Readonly<Record<string, (store: PostgresStore) => Promise<unknown>>> = {
  'remove-destination kafka': (store) => store.admin.addDestination('kafka', { from: 'end' }),
  'destinations audit kafka': async (store) => {
    for (const name of ['audit', 'kafka']) await store.admin.addDestination(name, { from: 'end' });
  },
};

it('has no preparation for commands that are on no page', () => {
  const unused = Object.keys(PREPARED).filter((part) => !callsOfMessenger.some(({ lines }) => lines.includes(part)));
  expect(unused).toEqual([]);
});

it.each(callsOfMessenger)('runs the messenger commands of $page: $lines', async ({ lines }) => {
  const { url, pool } = await database();
  const store = new PostgresStore(pool);
  await store.migrate();
  await store.admin.addDestination('default', { from: 'end' });
  for (const [part, prepare] of Object.entries(PREPARED)) if (lines.includes(part)) await prepare(store);
  if (lines.includes('import-go')) {
    await pool.query(
      'CREATE TABLE messages (id uuid, metadata jsonb, payload text, published boolean, at timestamptz)',
    );
  }
  const { failed, output } = await shell(await project({}), url, lines);
  expect(failed, output).toBe(false);
});

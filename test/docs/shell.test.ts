import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, it } from 'vitest';
import { commands } from './commands.js';
import { root } from './sample-runner.js';
import { NOT_RUN, shellBlocks } from './shell.js';

/** What tests ask of `shellLines`. */
async function partsRun(): Promise<string[]> {
  const folder = path.join(root, 'test');
  const files = (await readdir(folder, { recursive: true })).filter((file) => file.endsWith('.test.ts'));
  const texts = await Promise.all(files.map((file) => readFile(path.join(folder, file), 'utf8')));
  return texts.flatMap((text) => [...text.matchAll(/\bshellLines\('([^']+)'/g)].map(([, part = '']) => part));
}

it('runs the shell lines of every page, or says why not', async () => {
  const parts = [...(await partsRun()), ...Object.keys(NOT_RUN)];
  const holding = (part: string) => shellBlocks.filter(({ lines }) => lines.includes(part));
  expect(parts.filter((part) => holding(part).length === 0)).toEqual([]);
  const known = new Set(parts.flatMap(holding));
  expect(shellBlocks.filter((block) => !known.has(block))).toEqual([]);
});

it('calls messenger on the pages as it can be called', () => {
  const calls = shellBlocks.flatMap(({ page, lines }) =>
    [...lines.replaceAll('\\\n', ' ').matchAll(/\bmessenger ([a-z-]+)([^\n|;&>]*)/g)].map(
      ([call, name = '', rest = '']) => ({ page, call, name, flags: rest.match(/--[a-z-]+/g) ?? [] }),
    ),
  );
  const wrong = calls.filter(
    ({ name, flags }) =>
      name !== 'help' && flags.some((flag) => !commands.get(name)?.includes(flag) && flag !== '--help'),
  );
  const unknown = calls.filter(({ name }) => name !== 'help' && !commands.has(name));
  expect([...unknown, ...wrong]).toEqual([]);
});

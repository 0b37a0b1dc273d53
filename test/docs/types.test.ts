import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { root, samples } from './sample-runner.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(root, '.readme-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** As an application has it: `strict`, and what the language itself needs. */
const tsconfig = {
  extends: '../tsconfig.json',
  compilerOptions: {
    lib: ['ESNext'],
    exactOptionalPropertyTypes: false,
    noUncheckedIndexedAccess: false,
    noPropertyAccessFromIndexSignature: false,
    experimentalDecorators: true,
  },
  include: ['./*.ts'],
};

it('every program on the pages compiles under strict', async () => {
  await writeFile(path.join(folder, 'tsconfig.json'), JSON.stringify(tsconfig));
  for (const [name, code] of samples) {
    // The types of Node.js here are of the oldest version that is supported, which has no SQLite.
    if (!code.includes(`'node:sqlite'`)) await writeFile(path.join(folder, `${name}.ts`), code);
  }
  // What `prisma generate` makes for the page of Prisma.
  await mkdir(path.join(folder, 'generated'));
  const client = `export * from '../../examples/prisma/generated/client.js';\n`;
  await writeFile(path.join(folder, 'generated/client.ts'), client);
  const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
  const { stdout } = spawnSync(process.execPath, [tsc, '-p', folder], { encoding: 'utf8' });
  expect(stdout).toBe('');
});

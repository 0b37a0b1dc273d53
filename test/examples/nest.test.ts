import path from 'node:path';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { newDatabase } from '../support/database.js';
import { command, installed, program } from '../support/installed.js';
import { shopSuite } from './shop-suite.js';
import { startShop } from './shop.js';

/** The example as its README has it: copied, installed, and compiled to CommonJS. */
let copy: Awaited<ReturnType<typeof installed>>;
beforeAll(async () => {
  copy = await installed('nest');
  await command(copy.folder, [...program('typescript/bin/tsc'), '-p', 'tsconfig.build.json']);
});
afterAll(() => copy.remove());

const main = () => [path.join(copy.folder, 'dist/main.js')];

shopSuite('nest', {
  run: main,
  handled: ({ id }) => [`shipped ${id}`],
  beyond: ['shipping.ts', 'health.controller.ts'],
});

it('tells how it does, and handles what it publishes', async () => {
  const shop = startShop(main(), await newDatabase(inject('postgres')[17]));
  try {
    const answer = await fetch(`${await shop.origin()}/health`);
    expect([answer.status, await answer.json()]).toEqual([200, { status: 'running', failed: [] }]);
    expect(await shop.order({ id: 'order-1', item: 'chair', pieces: 1 })).toBe(201);
    await shop.printed('shipped order-1');
  } finally {
    shop.kill();
  }
});

it('passes its own tests, under Jest, in CommonJS', async () => {
  const env = { DATABASE_URL: await newDatabase(inject('postgres')[17]) };
  const output = await command(copy.folder, [...program('jest/bin/jest.js'), '--ci', '--colors=false'], env);
  expect(output).toContain('Tests:       2 passed, 2 total');
});

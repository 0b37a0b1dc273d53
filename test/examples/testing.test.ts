import { afterAll, beforeAll, expect, test } from 'vitest';
import { command, installed, program } from '../support/installed.js';

let copy: Awaited<ReturnType<typeof installed>>;
beforeAll(async () => {
  copy = await installed('testing');
});
afterAll(() => copy.remove());

/** How the tests of the example are run, and what the runner prints when the three tests have passed. */
const runners = [
  ['Vitest', [...program('vitest/vitest.mjs'), 'run', '--dir', 'vitest', '--no-color'], /Tests {2}3 passed \(3\)/],
  ['Jest', [...program('jest/bin/jest.js'), '--config', 'jest/jest.config.json'], /Tests: +3 passed, 3 total/],
  ['node:test', [process.execPath, '--import', 'tsx', '--test', 'node-test/shop.test.ts'], /pass 3\n.*fail 0\n/],
] as const;

test.each(runners)('an application’s tests pass under %s', async (_name, run, passed) => {
  expect(await command(copy.folder, run)).toMatch(passed);
});

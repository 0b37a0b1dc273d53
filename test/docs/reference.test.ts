/** The programs and commands of docs/reference. */
import { expect, inject, it } from 'vitest';
import { newDatabase } from '../support/database.js';
import { sampleRunner, type Sample } from './sample-runner.js';

const start = sampleRunner();

const database = () => newDatabase(inject('postgres')[17]);

/** That a program of node:test ended with many tests passed, and none failed. */
async function passes(sample: Sample): Promise<void> {
  const code = await sample.ended;
  expect(sample.output()).toMatch(/pass ([6-9]|\d{2})/);
  expect([code, sample.output()]).toEqual([0, expect.stringMatching(/fail 0/)]);
}

it('write-a-store: in SQLite, and passes the suites', async () => {
  await passes(await start('write-a-store', {}));
});

it('publish-function: a function is a publisher', async () => {
  const sample = await start('publish-function', {});
  expect([await sample.ended, sample.output()]).toEqual([0, 'order.created of order-1: {"total":42}\npublished 1\n']);
});

it('write-a-publisher: to a webhook, and passes the suite', async () => {
  await passes(await start('write-a-publisher', {}));
});

it('write-a-subscriber: from a queue, and passes the suite', async () => {
  await passes(await start('write-a-subscriber', {}));
});

it('write-a-bridge: stores through a transaction, and refuses what is none', async () => {
  const sample = await start('write-a-bridge', { DATABASE_URL: await database() });
  expect([await sample.ended, sample.output().trim().split('\n')]).toEqual([
    0,
    ['stored 1', 'no stock', 'INVALID_TRANSACTION', 'published 1'],
  ]);
});

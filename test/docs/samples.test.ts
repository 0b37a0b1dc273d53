import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, inject, it } from 'vitest';
import { startAws } from '../support/aws.js';
import { newDatabase } from '../support/database.js';
import { startNeonProxy } from '../support/neon-proxy.js';
import { pages, sampleRunner, samples } from './sample-runner.js';

const start = sampleRunner();

/** All that the pages say. */
const said = [...pages.values()].join('\n');

it('runs every program on the pages by a test in this folder', async () => {
  expect([...said.matchAll(/<!-- sample: [\w-]+ -->\s+```ts\n/g)]).toHaveLength([...said.matchAll(/```ts\n/g)].length);
  const folder = import.meta.dirname;
  const files = (await readdir(folder)).filter((file) => file.endsWith('.test.ts'));
  const tests = await Promise.all(files.map((file) => readFile(path.join(folder, file), 'utf8')));
  const run = tests.flatMap((text) => [...text.matchAll(/\bstart\('([\w-]+)'/g)].map(([, name]) => name));
  expect(new Set(run)).toEqual(new Set(samples.keys()));
});

it('readme: stores with Drizzle, relays, and ends on Ctrl-C', async () => {
  const sample = await start('readme', { DATABASE_URL: await newDatabase(inject('postgres')[17]) });
  await sample.printed('published order.created of order-1');
  sample.child.kill('SIGINT');
  expect([await sample.ended, sample.output()]).toEqual([0, expect.not.stringContaining('Error')]);
});

it('readme-messenger: publishes through the lower layer', async () => {
  const sample = await start('readme-messenger', { DATABASE_URL: await newDatabase(inject('postgres')[17]) });
  expect([await sample.ended, sample.output().trim()]).toEqual([0, 'published order.created']);
});

it('quick start: stores in a transaction, relays, and ends on Ctrl-C', async () => {
  const sample = await start('quick-start', { DATABASE_URL: await newDatabase(inject('postgres')[17]) });
  await sample.printed('published order.created of order-1: {"total":42}');
  sample.child.kill('SIGINT');
  expect([await sample.ended, sample.output()]).toEqual([0, expect.not.stringContaining('Error')]);
});

it('destinations: publishes each topic to its own broker', async () => {
  const sample = await start('destinations', { DATABASE_URL: await newDatabase(inject('postgres')[17]) });
  expect([await sample.ended, sample.output().trim()]).toEqual([0, 'closed order.created closed mail.wanted']);
});

it('handles: stores with postgres.js, a bare function and a statement', async () => {
  const sample = await start('handles', { DATABASE_URL: await newDatabase(inject('postgres')[17]) });
  await sample.printed('stored 3 messages');
  expect(await sample.ended).toBe(0);
});

it('neon: stores over WebSockets and over HTTP', async () => {
  const url = await newDatabase(inject('postgres')[17]);
  const proxy = await startNeonProxy(url);
  // What Neon runs before its servers, on this machine.
  const setup = `
    import { neonConfig } from '@neondatabase/serverless';
    import { WebSocket } from 'ws';
    Object.assign(neonConfig, { webSocketConstructor: WebSocket, useSecureWebSocket: false, pipelineConnect: false });
    neonConfig.wsProxy = () => '${proxy.webSocket}';
    neonConfig.fetchEndpoint = () => '${proxy.http}';
  `;
  try {
    const sample = await start('neon', { DATABASE_URL: url }, setup);
    await sample.printed('stored 2 messages');
    expect(await sample.ended).toBe(0);
  } finally {
    await proxy.close();
  }
});

it('typed: stores typed topics with Drizzle, relays and handles them', async () => {
  const sample = await start('typed', { DATABASE_URL: await newDatabase(inject('postgres')[17]) });
  await sample.printed('an invoice of 42 for order-1');
  await sample.printed('the circuit is closed');
  expect(await sample.ended).toBe(0);
});

it('server: relays beside Express until SIGTERM', async () => {
  const sample = await start('server', { DATABASE_URL: await newDatabase(inject('postgres')[17]), PORT: '0' });
  await sample.printed('ready');
  sample.child.kill('SIGTERM');
  expect([await sample.ended, sample.output().trim()]).toEqual([0, 'ready']);
});

it('testing: shows what a transaction stores and what would be published', async () => {
  const sample = await start('testing', {});
  await sample.printed('drained order.created of order-1');
  expect(await sample.ended).toBe(0);
});

it('testing-rolled-back: runs in a transaction of the test', async () => {
  const sample = await start('testing-rolled-back', { DATABASE_URL: await newDatabase(inject('postgres')[17]) });
  await sample.printed('pass 1');
  expect(await sample.ended).toBe(0);
});

it('inbox: has one effect from three deliveries, with Drizzle', async () => {
  const sample = await start('inbox', { DATABASE_URL: await newDatabase(inject('postgres')[17]) });
  await sample.printed('invoices: 1');
  expect([await sample.ended, sample.output()]).toEqual([0, expect.not.stringContaining('Error')]);
});

it('inbox-pg: opens the transaction by hand', async () => {
  const sample = await start('inbox-pg', { DATABASE_URL: await newDatabase(inject('postgres')[17]) });
  await sample.printed('delivery 1: handled\ndelivery 2: handled before');
  expect([await sample.ended, sample.output()]).toEqual([0, expect.not.stringContaining('Error')]);
});

it('aws: publishes through SNS and SQS to a handler', async () => {
  const aws = await startAws();
  try {
    const queue = await aws.queue();
    const topic = await aws.topic();
    await aws.subscribe(topic, queue);
    const sample = await start('aws', {
      AWS_ENDPOINT_URL: `http://127.0.0.1:${String(aws.port)}`,
      AWS_REGION: 'us-east-1',
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test',
      TOPIC_ARN: topic,
      QUEUE: queue.arn,
    });
    await sample.printed('received order-1: {"total":42}');
    expect(await sample.ended).toBe(0);
  } finally {
    await aws.stop();
  }
});

it('has no figure left to fill in', () => {
  expect(said).not.toMatch(/BENCH|TODO|0xHASH/);
});

it('states the test vectors of key_hash', () => {
  const vectors = [...said.matchAll(/`([^`]+)` → 0x([0-9a-f]{4})/g)];
  expect(new Set(vectors.map(([whole]) => whole)).size).toBe(2);
  for (const [, key = '', hash] of vectors) {
    expect(createHash('sha256').update(key).digest('hex').slice(0, 4)).toBe(hash);
  }
});

import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, inject, it } from 'vitest';
import { startAws } from '../support/aws.js';
import { newDatabase } from '../support/database.js';
import { root, sampleRunner } from './sample-runner.js';

const start = sampleRunner();

const database = async () => ({ DATABASE_URL: await newDatabase(inject('postgres')[17]) });

/** Ends a service as Ctrl-C does: it must end by itself, and without an error. */
async function ends(sample: Awaited<ReturnType<typeof start>>): Promise<void> {
  sample.child.kill('SIGINT');
  expect([await sample.ended, sample.output()]).toEqual([0, expect.not.stringMatching(/error/i)]);
}

const ORDER = 'published order.created of order-1: {"id":"order-1","total":42}';
/** Where the database makes the id. */
const ANY_ORDER = 'published order.created: ';

type Env = Awaited<ReturnType<typeof database>>;
it.each([
  ['Drizzle', (env: Env) => start('drizzle', env), ORDER],
  ['Kysely', (env: Env) => start('kysely', env), ORDER],
  ['Knex', (env: Env) => start('knex', env), ORDER],
  ['pg', (env: Env) => start('pg', env), ORDER],
  ['TypeORM', (env: Env) => start('typeorm', env), ANY_ORDER],
  ['MikroORM', (env: Env) => start('mikro-orm', env), ANY_ORDER],
  ['Sequelize', (env: Env) => start('sequelize', env), ANY_ORDER],
] as const)('%s: stores a row and its message', async (_, run, printed) => {
  const sample = await run(await database());
  await sample.printed(printed);
  await ends(sample);
});

it('prisma: stores a row and its message, in both forms of a transaction', async () => {
  // The client that `prisma generate` made of the example's schema, which has the page's model too.
  const client = pathToFileURL(path.join(root, 'examples/prisma/generated/client.ts')).href;
  const setup = `
    import { registerHooks } from 'node:module';
    registerHooks({
      resolve: (name, context, next) => next(name === './generated/client.js' ? '${client}' : name, context),
    });
  `;
  const sample = await start('prisma', await database(), setup);
  await sample.printed('"item":"chair","pieces":2}');
  await sample.printed('"item":"table","pieces":1}');
  await ends(sample);
});

it('pglite: stores a row and its message, and drains', async () => {
  const sample = await start('pglite', {});
  await sample.printed('published order.created of order-1\n1 message');
  expect(await sample.ended).toBe(0);
});

it('fastify: relays beside the app until SIGTERM', async () => {
  const sample = await start('fastify', { ...(await database()), PORT: '0' });
  await sample.printed('health: 200');
  sample.child.kill('SIGTERM');
  expect([await sample.ended, sample.output().trim()]).toEqual([0, 'health: 200']);
});

it('hono: relays beside the server until SIGTERM', async () => {
  const sample = await start('hono', { ...(await database()), PORT: '0' });
  await sample.printed('ready');
  sample.child.kill('SIGTERM');
  expect([await sample.ended, sample.output().trim()]).toEqual([0, 'ready']);
});

it('nest: stores in a service and handles in a method', async () => {
  // As every application of Nest has it: tsx reads the decorators of the program by this file.
  const TSX_TSCONFIG_PATH = path.join(root, 'test/docs/tsconfig.decorators.json');
  const sample = await start('nest', { ...(await database()), PORT: '0', TSX_TSCONFIG_PATH });
  await sample.printed('health: 200');
  await sample.printed('an invoice of 42 for order-1');
  await ends(sample);
});

it('drain: publishes every stored message', async () => {
  const sample = await start('drain', await database());
  await sample.printed('published order.created\n1 message');
  expect(await sample.ended).toBe(0);
});

it('drain-route: answers a cron job and refuses strangers', async () => {
  const sample = await start('drain-route', { ...(await database()), CRON_SECRET: 'secret' });
  expect([await sample.ended, sample.output()]).toEqual([0, '{"published":0}\n401\n']);
});

it('testing-handlers: gives a handler every message twice', async () => {
  const sample = await start('testing-handlers', {});
  expect([await sample.ended, sample.output().trim()]).toEqual([0, '1 invoice, 0 dead']);
});

it('second-destination: publishes one topic to a second destination', async () => {
  const sample = await start('second-destination', await database());
  const lines = ['broker: order.created', 'broker: order.paid', 'audit: order.created'];
  expect([await sample.ended, sample.output().trim().split('\n').toSorted()]).toEqual([0, lines.toSorted()]);
});

it('delayed: delivers later with and without holdKey', async () => {
  const sample = await start('delayed', await database());
  await sample.printed('{"cart":"a","what":"reminder"}');
  await sample.printed('{"cart":"b","what":"changed"}');
  const of = (cart: string) =>
    [...sample.output().matchAll(RegExp(`"${cart}","what":"(\\w+)"`, 'g'))].map(([, it]) => it);
  expect([of('a'), of('b')]).toEqual([
    ['changed', 'reminder'],
    ['opened', 'changed'],
  ]);
  await ends(sample);
});

it('dead-letters: gives up, lists, requeues and publishes a message', async () => {
  const sample = await start('dead-letters', await database());
  expect(await sample.ended).toBe(0);
  expect(sample.output()).toMatch(
    'order-1: the message is too large, attempts: 1\nrequeued 1\npublished order.created of order-1',
  );
});

it('blocked-keys: holds a key until its blocked message is discarded', async () => {
  const sample = await start('blocked-keys', await database());
  expect(await sample.ended).toBe(0);
  expect(sample.output()).toMatch(
    /published .*"bob"[\s\S]*blocked: .*-1}\nbehind: .*2}\ndiscarded 1\npublished .*"ann","amount":2}/,
  );
});

it('sqs-fifo: publishes a typed topic through a FIFO queue', async () => {
  const aws = await startAws();
  try {
    const { name } = await aws.queue({ fifo: true });
    const sample = await start('sqs-fifo', {
      ...(await database()),
      AWS_ENDPOINT_URL: `http://127.0.0.1:${String(aws.port)}`,
      AWS_REGION: 'us-east-1',
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test',
      QUEUE: `http://127.0.0.1:${String(aws.port)}/000000000000/${name}`,
    });
    expect([await sample.ended, sample.output().trim()]).toEqual([0, 'received order-1']);
  } finally {
    await aws.stop();
  }
});

it('upcast: handles a message that an older version stored', async () => {
  const sample = await start('upcast', {});
  expect([await sample.ended, sample.output()]).toEqual([0, 'a message of version 1\norder-1: 4200 cents\n']);
});

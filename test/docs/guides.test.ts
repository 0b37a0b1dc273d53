import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, inject, it } from 'vitest';
import { newDatabase } from '../support/database.js';
import { root, sampleRunner } from './sample-runner.js';

const start = sampleRunner();

const database = async () => ({ DATABASE_URL: await newDatabase(inject('postgres')[17]) });

/** Ends a service as Ctrl-C does: it must end by itself, and without an error. */
async function ends({ child, ended, output }: Awaited<ReturnType<typeof start>>): Promise<void> {
  child.kill('SIGINT');
  expect([await ended, output()]).toEqual([0, expect.not.stringMatching(/error/i)]);
}

it('drizzle: a row and its message', async () => {
  const sample = await start('drizzle', await database());
  await sample.printed('published order.created of order-1: {"id":"order-1","total":42}');
  await ends(sample);
});

it('kysely: a row and its message', async () => {
  const sample = await start('kysely', await database());
  await sample.printed('published order.created of order-1: {"id":"order-1","total":42}');
  await ends(sample);
});

it('prisma: a row and its message, and both forms of a transaction', async () => {
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

it('knex: a row and its message', async () => {
  const sample = await start('knex', await database());
  await sample.printed('published order.created of order-1: {"id":"order-1","total":42}');
  await ends(sample);
});

it('typeorm: a row and its message', async () => {
  const sample = await start('typeorm', await database());
  await sample.printed('published order.created: ');
  await ends(sample);
});

it('mikro-orm: an entity and its message', async () => {
  const sample = await start('mikro-orm', await database());
  await sample.printed('published order.created: ');
  await ends(sample);
});

it('sequelize: a row and its message', async () => {
  const sample = await start('sequelize', await database());
  await sample.printed('published order.created: ');
  await ends(sample);
});

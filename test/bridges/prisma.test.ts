import { PrismaPg } from '@prisma/adapter-pg';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { prismaBridge } from '../../src/bridges/prisma.js';
import { newDatabase } from '../support/database.js';
import { PrismaClient, type Prisma } from '../../examples/prisma/generated/client.js';
import { batchSuite } from './batch-suite.js';
import { bridgeSuite, ORDERS, type Library } from './suite.js';

const FEATURES = { savepoints: true, refusesEnded: 'library', ownHandles: true, tellsOfCommit: false } as const;
const ofChairs = (id: string) => ({ id, item: 'chair', pieces: 1 });
const clientOf = (url: string) => new PrismaClient({ adapter: new PrismaPg({ connectionString: url, max: 5 }) });

bridgeSuite('Prisma on pg', FEATURES, (url) => {
  const prisma = clientOf(url);
  return Promise.resolve<Library<Prisma.TransactionClient>>({
    bridge: prismaBridge(),
    transaction: (work) => prisma.$transaction(work, { timeout: 60_000 }),
    savepoint: (tx, work) => tx.$transaction(work),
    insert: (tx, id) => tx.order.create({ data: ofChairs(id) }),
    roots: [prisma, prisma.$extends({})],
    close: () => prisma.$disconnect(),
  });
});

batchSuite('Prisma’s array form', (url) => {
  const prisma = clientOf(url);
  return Promise.resolve({
    batch: (statements, orders) =>
      prisma.$transaction([
        ...statements.map(({ text, values }) => prisma.$executeRawUnsafe(text, ...values)),
        ...orders.map((id) => prisma.order.create({ data: ofChairs(id) })),
      ]),
    close: () => prisma.$disconnect(),
  });
});

describe('Prisma', () => {
  let pool: pg.Pool;
  let prisma: PrismaClient;
  let store: PostgresStore;
  beforeAll(async () => {
    const url = await newDatabase(inject('postgres')[17]);
    pool = new pg.Pool({ connectionString: url, max: 5 });
    await pool.query(ORDERS);
    prisma = clientOf(url);
    store = new PostgresStore(pool);
    await store.migrate();
  });
  afterAll(async () => {
    await store.close();
    await prisma.$disconnect();
    await pool.end();
  });
  beforeEach(() => pool.query('DELETE FROM orders'));

  const stored = async () => (await store.messages(10)).map(({ payload }) => Buffer.from(payload).toString());

  it('says what to pass instead of the handles of Prisma 8', async () => {
    // The tx of Prisma 8.0.0-rc.13 inherits from an object with these two methods.
    const inherited = { query: () => undefined, execute: () => Promise.resolve(0) };
    const tx = Object.assign(Object.create(inherited) as object, { sql: {}, orm: {}, enums: {}, nativeEnums: {} });
    const bridged = new PostgresStore(pool, { bridge: prismaBridge() });
    await expect(bridged.add(tx as never, 'never')).rejects.toMatchObject({
      code: 'INVALID_TRANSACTION',
      message: expect.stringMatching(
        /Prisma 8.*postgres\(\{ contract, pg: client \}\), and pass that client/,
      ) as string,
    });
    expect(await stored()).toEqual([]);
  });

  it('stores through the transaction of an extended client', async () => {
    const bridged = new PostgresStore(pool, { bridge: prismaBridge() });
    const extended = prisma.$extends({ query: { order: { create: ({ args, query }) => query(args) } } });
    await expect(
      extended.$transaction(async (tx) => {
        await tx.order.create({ data: ofChairs('order-1') });
        await bridged.add(tx, 'never');
        throw new Error('the application changed its mind');
      }),
    ).rejects.toThrow('changed its mind');
    await extended.$transaction(async (tx) => bridged.add(tx, 'extended'));
    expect(await stored()).toEqual(['extended']);
  });

  it('says why it refuses a PrismaClient, which does not compile either', async () => {
    const bridged = new PostgresStore(pool, { bridge: prismaBridge() });
    // @ts-expect-error a PrismaClient is no transaction
    await expect(bridged.add(prisma, 'never')).rejects.toThrow('a PrismaClient commits every query by itself');
    // @ts-expect-error nor is an extended one
    await expect(bridged.add(prisma.$extends({}), 'never')).rejects.toThrow('a PrismaClient commits');
    expect(await stored()).not.toContain('never');
  });
});

import { EntitySchema, MikroORM, type EntityManager } from '@mikro-orm/postgresql';
import pg from 'pg';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { mikroOrmBridge, type MikroOrmTransaction } from '../../src/bridges/mikro-orm.js';
import { newDatabase } from '../support/database.js';
import { bridgeSuite, type Library } from './suite.js';

const Order = new EntitySchema<{ id: string }>({
  name: 'Order',
  tableName: 'orders',
  properties: { id: { type: 'text', primary: true } },
});

const FEATURES = { savepoints: true, refusesEnded: 'library', ownHandles: true, tellsOfCommit: false } as const;
const open = (url: string) => MikroORM.init({ clientUrl: url, entities: [Order], pool: { min: 0, max: 5 } });

bridgeSuite('MikroORM', FEATURES, async (url): Promise<Library<EntityManager, MikroOrmTransaction>> => {
  const orm = await open(url);
  return {
    bridge: mikroOrmBridge(),
    transaction: (work) => orm.em.fork().transactional(work),
    savepoint: (em, work) => em.transactional(work),
    insert: (em, id) => em.insert(Order, { id }),
    roots: [orm.em, orm.em.fork()],
    close: () => orm.close(),
  };
});

/** A transaction that the application begins and ends by hand. */
async function byHand<T>(em: EntityManager, work: () => Promise<T>): Promise<T> {
  await em.begin();
  try {
    const result = await work();
    await em.commit();
    return result;
  } catch (error) {
    await em.rollback();
    throw error;
  }
}

bridgeSuite(
  'MikroORM’s begin',
  { ...FEATURES, savepoints: false, refusesEnded: 'bridge' },
  async (url): Promise<Library<EntityManager, MikroOrmTransaction>> => {
    const orm = await open(url);
    return {
      bridge: mikroOrmBridge(),
      transaction: (work) => {
        const em = orm.em.fork();
        return byHand(em, () => work(em));
      },
      insert: (em, id) => em.insert(Order, { id }),
      roots: [orm.em],
      close: () => orm.close(),
    };
  },
);

let pool: pg.Pool;
let orm: Awaited<ReturnType<typeof open>>;
let store: PostgresStore<object | string, MikroOrmTransaction>;
beforeAll(async () => {
  const url = await newDatabase(inject('postgres')[17]);
  pool = new pg.Pool({ connectionString: url, max: 5 });
  await pool.query('CREATE TABLE orders (id text PRIMARY KEY)');
  orm = await open(url);
  store = new PostgresStore(pool, { bridge: mikroOrmBridge() });
  await store.migrate();
});
afterAll(async () => {
  await store.close();
  await orm.close();
  await pool.end();
});

it('stores together with what the commit flushes', async () => {
  await orm.em.fork().transactional(async (em) => {
    em.create(Order, { id: 'order-1' });
    await store.add(em, 'stored');
  });
  expect(await orm.em.fork().count(Order)).toBe(1);
  expect(await store.messages(10)).toHaveLength(1);
});

it('uses the transaction around the global em, as MikroORM does', async () => {
  await expect(
    orm.em.transactional(async () => {
      await store.add(orm.em, 'never');
      throw new Error('the application changed its mind');
    }),
  ).rejects.toThrow('changed its mind');
  await expect(store.add(orm.em, 'never')).rejects.toThrow('outside a transaction');
  expect(await store.messages(10)).toHaveLength(1);
});

it('accepts an em of MikroORM, and no other object', () => {
  const compiles = () => {
    // @ts-expect-error a MikroORM is no em
    void store.add(orm, 'never');
  };
  expect(compiles).toBeTypeOf('function');
});

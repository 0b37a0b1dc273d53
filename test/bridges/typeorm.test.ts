import pg from 'pg';
import { DataSource, EntitySchema, EntitySchemaOptions, type EntityManager, type QueryRunner } from 'typeorm';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { typeormBridge, type TypeormTransaction } from '../../src/bridges/typeorm.js';
import { newDatabase } from '../support/database.js';
import { bridgeSuite, type Library } from './suite.js';

const Order = new EntitySchema<{ id: string }>(
  Object.assign(new EntitySchemaOptions<{ id: string }>(), {
    name: 'Order',
    tableName: 'orders',
    columns: { id: { type: 'text', primary: true } },
  }),
);

const FEATURES = { savepoints: true, refusesEnded: 'bridge', ownHandles: true, tellsOfCommit: false } as const;
const open = (url: string) =>
  new DataSource({ type: 'postgres', url, entities: [Order], extra: { max: 5 } }).initialize();

bridgeSuite('TypeORM on pg', FEATURES, async (url): Promise<Library<EntityManager, TypeormTransaction>> => {
  const dataSource = await open(url);
  return {
    bridge: typeormBridge(),
    transaction: (work) => dataSource.transaction(work),
    savepoint: (manager, work) => manager.transaction(work),
    insert: (manager, id) => manager.insert(Order, { id }),
    roots: [dataSource, dataSource.manager, dataSource.createQueryRunner(), dataSource.createQueryRunner().manager],
    close: () => dataSource.destroy(),
  };
});

/** A transaction that the application begins and ends by hand. */
async function byHand<T>(runner: QueryRunner, work: () => Promise<T>): Promise<T> {
  await runner.startTransaction();
  try {
    const result = await work();
    await runner.commitTransaction();
    return result;
  } catch (error) {
    await runner.rollbackTransaction();
    throw error;
  } finally {
    await runner.release();
  }
}

bridgeSuite(
  'TypeORM’s QueryRunner',
  { ...FEATURES, savepoints: false },
  async (url): Promise<Library<QueryRunner, TypeormTransaction>> => {
    const dataSource = await open(url);
    return {
      bridge: typeormBridge(),
      transaction: (work) => {
        const runner = dataSource.createQueryRunner();
        return byHand(runner, () => work(runner));
      },
      insert: (runner, id) => runner.manager.insert(Order, { id }),
      roots: [dataSource.createQueryRunner()],
      close: () => dataSource.destroy(),
    };
  },
);

let pool: pg.Pool;
let dataSource: DataSource;
let store: PostgresStore<object | string, TypeormTransaction>;
beforeAll(async () => {
  const url = await newDatabase(inject('postgres')[17]);
  pool = new pg.Pool({ connectionString: url, max: 5 });
  dataSource = await open(url);
  store = new PostgresStore(pool, { bridge: typeormBridge() });
  await store.migrate();
});
afterAll(async () => {
  await store.close();
  await dataSource.destroy();
  await pool.end();
});

it('refuses a QueryRunner before and after its transaction, even while it still has its connection', async () => {
  const runner = dataSource.createQueryRunner();
  const refused = () =>
    expect(store.add(runner.manager, 'never')).rejects.toMatchObject({ code: 'INVALID_TRANSACTION' });
  await runner.connect();
  await refused();
  await runner.startTransaction();
  await store.add(runner.manager, 'stored');
  await runner.commitTransaction();
  await refused();
  await runner.release();
  expect(await store.messages(10)).toHaveLength(1);
});

it('says why it refuses a DataSource, which does not compile either', async () => {
  // @ts-expect-error a DataSource is no transaction
  await expect(store.add(dataSource, 'never')).rejects.toThrow('commit every query by themselves');
});

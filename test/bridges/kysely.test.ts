import { CompiledQuery, Kysely, PostgresDialect, sql, type ControlledTransaction, type Transaction } from 'kysely';
import pg from 'pg';
import { describe, expectTypeOf, it } from 'vitest';
import { PostgresStore } from '../../src/stores/postgres/index.js';
import { kyselyBridge, type KyselyTransaction } from '../../src/bridges/kysely.js';
import { bridgeSuite, type Library } from './suite.js';

interface Tables {
  orders: { id: string };
}
type Trx = Transaction<Tables>;

const open = (url: string) =>
  new Kysely<Tables>({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url, max: 5 }) }) });
const library = (db: Kysely<Tables>) => ({
  bridge: kyselyBridge(CompiledQuery),
  insert: (trx: Trx, id: string) => trx.insertInto('orders').values({ id }).execute(),
  roots: [db, db.withSchema('public')],
  close: () => db.destroy(),
});

bridgeSuite('Kysely', { savepoints: true, refusesEnded: 'library', ownHandles: true, tellsOfCommit: false }, (url) => {
  const db = open(url);
  return Promise.resolve<Library<Trx, KyselyTransaction>>({
    ...library(db),
    transaction: (work) => db.transaction().execute(work),
    savepoint: async (trx, work) => {
      await sql`SAVEPOINT part`.execute(trx);
      try {
        // What is derived from a transaction is a transaction too.
        await work(trx.withSchema('public'));
      } catch (error) {
        await sql`ROLLBACK TO SAVEPOINT part`.execute(trx);
        throw error;
      }
    },
  });
});

bridgeSuite(
  'Kysely, controlled',
  { savepoints: true, refusesEnded: 'bridge', ownHandles: true, tellsOfCommit: false },
  (url) => {
    const db = open(url);
    return Promise.resolve<Library<ControlledTransaction<Tables>, KyselyTransaction>>({
      ...library(db),
      transaction: async (work) => {
        const trx = await db.startTransaction().execute();
        try {
          const result = await work(trx);
          await trx.commit().execute();
          return result;
        } catch (error) {
          await trx.rollback().execute();
          throw error;
        }
      },
      savepoint: async (trx, work) => {
        const inner = await trx.savepoint('part').execute();
        try {
          await work(inner as unknown as ControlledTransaction<Tables>);
        } catch (error) {
          await inner.rollbackToSavepoint('part').execute();
          throw error;
        }
      },
    });
  },
);

describe('The types of kyselyBridge', () => {
  it('accept a transaction of any kind, but no db', () => {
    const store = new PostgresStore(new pg.Pool(), { bridge: kyselyBridge(CompiledQuery) });
    expectTypeOf((transaction: Trx) => store.add(transaction, 'taken')).toBeFunction();
    expectTypeOf((transaction: ControlledTransaction<Tables, ['part']>) =>
      store.add(transaction, 'taken'),
    ).toBeFunction();
    // @ts-expect-error it commits every query by itself
    expectTypeOf((db: Kysely<Tables>) => store.add(db, 'refused')).toBeFunction();
  });
});

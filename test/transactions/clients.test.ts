import pg from 'pg';
import postgres from 'postgres';
import type { PostgresJsTransaction } from '../../src/stores/postgres/drivers/postgres-js.js';
import { bridgeSuite, type Library } from './suite.js';

bridgeSuite('pg', { savepoints: true, refusesEnded: 'bridge', ownHandles: false, tellsOfCommit: true }, (url) => {
  const pool = new pg.Pool({ connectionString: url, max: 5 });
  return Promise.resolve<Library<pg.PoolClient>>({
    client: pool,
    transaction: async (work) => {
      const client = await pool.connect();
      try {
        await client.query('BEGIN');
        const result = await work(client);
        await client.query('COMMIT');
        return result;
      } catch (error) {
        await client.query('ROLLBACK');
        throw error;
      } finally {
        client.release();
      }
    },
    savepoint: async (client, work) => {
      await client.query('SAVEPOINT inner_one');
      try {
        await work(client);
        await client.query('RELEASE inner_one');
      } catch (error) {
        await client.query('ROLLBACK TO inner_one');
        throw error;
      }
    },
    insert: (client, id) => client.query('INSERT INTO orders (id) VALUES ($1)', [id]),
    roots: [pool],
    close: () => pool.end(),
  });
});

bridgeSuite(
  'postgres.js',
  { savepoints: true, refusesEnded: 'bridge', ownHandles: true, tellsOfCommit: false },
  (url) => {
    // Behind a PgBouncer in transaction mode it must not prepare.
    const prepare = process.env['POSTGRES_POOLER'] === undefined;
    const sql = postgres(url, { max: 5, prepare, onnotice: () => undefined });
    type Transaction = PostgresJsTransaction & postgres.TransactionSql;
    return Promise.resolve<Library<Transaction>>({
      client: sql,
      transaction: (work) => sql.begin((tx) => work(tx as Transaction)) as ReturnType<typeof work>,
      savepoint: (tx, work) => tx.savepoint((inner: postgres.TransactionSql) => work(inner as Transaction)),
      insert: (tx, id) => tx`INSERT INTO orders (id) VALUES (${id})`,
      roots: [sql],
      close: () => sql.end(),
    });
  },
);

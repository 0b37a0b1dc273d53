import pg from 'pg';
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

import pg from 'pg';
import { inject, onTestFinished } from 'vitest';
import { newDatabase } from '../support/database.js';

/** A pool on a new database, ended with the test. */
export async function newPool(): Promise<pg.Pool> {
  const pool = new pg.Pool({ connectionString: await newDatabase(inject('postgres')[17]), max: 8 });
  onTestFinished(() => pool.end());
  return pool;
}

/** A transaction, as an application on plain `pg` has it. */
export async function inTransaction<T>(
  pool: pg.Pool,
  work: (client: pg.PoolClient) => Promise<T>,
  begin = 'BEGIN',
): Promise<T> {
  const client = await pool.connect();
  try {
    await client.query(begin);
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  } finally {
    client.release();
  }
}

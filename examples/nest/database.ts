import pg from 'pg';

export const pool = new pg.Pool({ connectionString: process.env['DATABASE_URL'] });

export async function createTables(): Promise<void> {
  await pool.query(`
    CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, item text NOT NULL, pieces integer NOT NULL);
    CREATE TABLE IF NOT EXISTS stock (item text PRIMARY KEY, pieces integer NOT NULL);
    CREATE TABLE IF NOT EXISTS shipments (id text PRIMARY KEY);
    INSERT INTO stock VALUES ('chair', 10), ('table', 2) ON CONFLICT DO NOTHING`);
}

export async function inTransaction<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
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
}

import { drizzle } from 'drizzle-orm/node-postgres';
import { integer, pgTable, text } from 'drizzle-orm/pg-core';
import pg from 'pg';

/** Of Drizzle and of the outbox. */
export const pool = new pg.Pool({ connectionString: process.env['DATABASE_URL'] });
export const db = drizzle(pool);

export const orders = pgTable('orders', {
  id: text().primaryKey(),
  item: text().notNull(),
  pieces: integer().notNull(),
});
export const stock = pgTable('stock', { item: text().primaryKey(), pieces: integer().notNull() });

export async function createTables(): Promise<void> {
  await pool.query(`
    CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, item text NOT NULL, pieces integer NOT NULL);
    CREATE TABLE IF NOT EXISTS stock (item text PRIMARY KEY, pieces integer NOT NULL);
    INSERT INTO stock VALUES ('chair', 10), ('table', 2) ON CONFLICT DO NOTHING`);
}

import { PrismaPg } from '@prisma/adapter-pg';
import pg from 'pg';
import { PrismaClient } from './generated/client.js';

/** Of Prisma and of the outbox. */
export const pool = new pg.Pool({ connectionString: process.env['DATABASE_URL'] });
export const prisma = new PrismaClient({ adapter: new PrismaPg(pool) });

export async function createTables(): Promise<void> {
  await pool.query(`
    CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, item text NOT NULL, pieces integer NOT NULL);
    CREATE TABLE IF NOT EXISTS stock (item text PRIMARY KEY, pieces integer NOT NULL);
    INSERT INTO stock VALUES ('chair', 10), ('table', 2) ON CONFLICT DO NOTHING`);
}

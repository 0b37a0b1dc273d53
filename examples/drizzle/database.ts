import { drizzle } from 'drizzle-orm/node-postgres';
import { integer, pgTable, text } from 'drizzle-orm/pg-core';
import pg from 'pg';
import { z } from 'zod';

export const pool = new pg.Pool({ connectionString: process.env['DATABASE_URL'] });
export const db = drizzle(pool);
export const orders = pgTable('orders', { id: text().primaryKey(), total: integer().notNull() });
export const Order = z.object({ id: z.string(), total: z.number() });

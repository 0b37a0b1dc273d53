import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { pgTable, text } from 'drizzle-orm/pg-core';
import pg from 'pg';
import { drizzleBridge, type DrizzleTransaction } from '../../src/bridges/drizzle.js';
import { bridgeSuite, type Library } from './suite.js';

const orders = pgTable('orders', { id: text().primaryKey() });

const FEATURES = { savepoints: true, refusesEnded: 'bridge', ownHandles: true, tellsOfCommit: false } as const;

bridgeSuite('Drizzle on pg', FEATURES, (url) => {
  const pool = new pg.Pool({ connectionString: url, max: 5 });
  const db = drizzle(pool);
  type Tx = Parameters<Parameters<typeof db.transaction>[0]>[0];
  return Promise.resolve<Library<Tx, DrizzleTransaction>>({
    bridge: drizzleBridge(sql),
    transaction: (work) => db.transaction(work),
    savepoint: (tx, work) => tx.transaction(work),
    insert: (tx, id) => tx.insert(orders).values({ id }),
    roots: [db],
    close: () => pool.end(),
  });
});

import { sql } from 'drizzle-orm';
import { defineOutbox } from 'messenger-outbox';
import { drizzleBridge } from 'messenger-outbox/drizzle';
import { PostgresStore } from 'messenger-outbox/postgres';
import { Order, pool } from './database.js';

export const outbox = defineOutbox({
  store: new PostgresStore(pool, { bridge: drizzleBridge(sql) }),
  topics: { 'order.created': { schema: Order, key: (order) => order.id } },
});

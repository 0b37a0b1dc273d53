import { sql } from 'drizzle-orm';
import { defineOutbox } from 'messenger-outbox';
import { drizzleBridge } from 'messenger-outbox/drizzle';
import { PostgresStore } from 'messenger-outbox/postgres';
import { pool } from './database.js';
import { Order } from './order.js';

const store = new PostgresStore(pool, { bridge: drizzleBridge(sql) });
export const outbox = defineOutbox({ store, topics: { 'order.placed': { schema: Order, key: ({ item }) => item } } });

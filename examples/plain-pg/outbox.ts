import { defineOutbox } from 'messenger-outbox';
import { PostgresStore } from 'messenger-outbox/postgres';
import { pool } from './database.js';
import { Order } from './order.js';

export const outbox = defineOutbox({
  store: new PostgresStore(pool),
  topics: { 'order.placed': { schema: Order, key: ({ item }) => item } },
});

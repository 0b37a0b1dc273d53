import { defineOutbox } from 'messenger-outbox';
import { PostgresStore } from 'messenger-outbox/postgres';
import { pool } from './database';
import { Order } from './order';

const store = new PostgresStore(pool);
export const outbox = defineOutbox({ store, topics: { 'order.placed': { schema: Order, key: ({ item }) => item } } });

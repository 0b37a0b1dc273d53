import { defineOutbox } from 'messenger-outbox';
import { PostgresStore } from 'messenger-outbox/postgres';
import { prismaBridge } from 'messenger-outbox/prisma';
import { pool } from './database.js';
import { Order } from './order.js';

const store = new PostgresStore(pool, { bridge: prismaBridge() });
export const outbox = defineOutbox({ store, topics: { 'order.placed': { schema: Order, key: ({ item }) => item } } });

/**
 * The outbox in PostgreSQL, through `pg`, `postgres.js` or PGlite.
 *
 * @module
 */
export { PostgresStore } from './store.js';
export type { PostgresStoreOptions } from './store.js';
export type { PostgresClient, TransactionHandle } from './drivers/index.js';

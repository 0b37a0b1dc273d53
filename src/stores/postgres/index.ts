/**
 * The outbox in PostgreSQL, through `pg`, `postgres.js` or PGlite.
 *
 * @module
 */
export { migrationScript, PostgresStore } from './store.js';
export type { PostgresStoreOptions, PostgresTableOptions } from './store.js';
export type { RebasedDestination, RebaseOptions, RebaseResult } from './rebase.js';
export type { PostgresClient, TransactionHandle } from './drivers/index.js';

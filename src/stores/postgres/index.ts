/**
 * The outbox in PostgreSQL, through `pg`, `postgres.js` or PGlite.
 *
 * @module
 */
export { PostgresStore } from './store.js';
export type { PostgresStoreOptions } from './store.js';
export { migrationScript } from './options.js';
export type { MigrationScriptOptions, PostgresTableOptions } from './options.js';
export { rolesScript } from './schema/roles.js';
export type { ExcessGrant, RolesOptions } from './schema/roles.js';
export type {
  AddDestinationOptions,
  LimitDestinationOptions,
  RemovedDestination,
  RemoveDestinationOptions,
} from './ops/destinations.js';
export type { DestinationState } from './ops/destination-state.js';
export type { DeadLetter, DeadLettersOptions, FailedFilter, FailedSelection } from './ops/dead-letters.js';
export type { WaitingMessage, WaitingOptions, WaitingState } from './ops/waiting.js';
export type { RebasedDestination, RebaseOptions, RebaseResult } from './ops/rebase.js';
export type { AdoptOptions } from './ops/import-go.js';
export type { PostgresClient, TransactionHandle } from './drivers/index.js';

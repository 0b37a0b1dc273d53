/**
 * The outbox in PostgreSQL, through `pg`, `postgres.js` or PGlite.
 *
 * @module
 */
export { PostgresStore } from './store.js';
export type { PostgresStoreOptions } from './store.js';
export { migrationScript } from './tables.js';
export type { MigrationScriptOptions, PostgresTableOptions } from './tables.js';
export { rolesScript } from './roles.js';
export type { ExcessGrant, RolesOptions } from './roles.js';
export type {
  AddDestinationOptions,
  LimitDestinationOptions,
  RemovedDestination,
  RemoveDestinationOptions,
} from './destinations.js';
export type { DestinationState } from './state.js';
export type { DeadLetter, DeadLettersOptions, FailedFilter, FailedSelection } from './failed.js';
export type { WaitingMessage, WaitingOptions, WaitingState } from './waiting.js';
export type { RebasedDestination, RebaseOptions, RebaseResult } from './rebase.js';
export type { AdoptOptions } from './adopt.js';
export type { PostgresClient, TransactionHandle } from './drivers/index.js';

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
export type { PostgresAdmin } from './admin.js';
export type {
  AddDestinationOptions,
  DeadLetter,
  DeadLetterFilter,
  DeadLetterSelection,
  DeadLettersOptions,
  DestinationState,
  OutboxAdmin,
  ParkedMessage,
  ParkedOptions,
  ParkedState,
  RemovedDestination,
  RemoveDestinationOptions,
  UpdateDestinationOptions,
} from '../../core/contracts/admin.js';
export type { RebasedDestination, RebaseOptions, RebaseResult } from './ops/rebase.js';
export type { ImportFromGoOptions } from './ops/import-go.js';
export type { PostgresClient, TransactionHandle } from './drivers/index.js';

import type { OutboxAdmin } from '../../core/contracts/admin.js';
import type { StoreCallOptions } from '../../core/contracts/call-options.js';
import { deadLetters, discard, requeue } from './ops/dead-letters.js';
import { addDestination, updateDestination, removeDestination } from './ops/destinations.js';
import { importFromGo, type ImportFromGoOptions } from './ops/import-go.js';
import { destinations } from './ops/list-destinations.js';
import { rebase, type RebaseOptions, type RebaseResult } from './ops/rebase.js';
import { repartition } from './ops/repartition.js';
import { parkedMessages } from './ops/parked-messages.js';
import { migrationScript, type MigrationScriptOptions, type PostgresTableOptions } from './options.js';
import { excessGrants, rolesScript, type ExcessGrant, type RolesOptions } from './schema/roles.js';
import { storeError } from './schema/store-error.js';
import type { OperationContext } from './sql/transact.js';

/** Operator functions for an outbox in PostgreSQL. */
export interface PostgresAdmin extends OutboxAdmin {
  /**
   * Changes the number of partitions. All relays must be stopped.
   * @throws MessengerError `CONFLICT`. The error says what prevents the change.
   */
  repartition(partitions: number, options?: StoreCallOptions): Promise<void>;
  /**
   * Prepares the tables of a restored dump or a logical copy for this cluster, so that relays can continue from them
   * without losing messages. With the `environment` option, it also assigns the database to that environment. All
   * relays must be stopped. Writers wait until the rebase ends. It must run with the role that owns the tables.
   *
   * @returns the messages that each destination will publish. Some of them may already have been published.
   * @throws MessengerError `CONFLICT` while a relay holds a destination, or while a transaction that stored messages is
   *   open; `SCHEMA_MISMATCH` if the tables are missing, incomplete, or at an older version.
   */
  rebase(options?: RebaseOptions): Promise<RebaseResult>;
  /**
   * Imports the unpublished messages from the table of the Go module. A second run imports the messages that were
   * stored there since the first run.
   * @returns the number of imported messages.
   */
  importFromGo(options?: ImportFromGoOptions): Promise<number>;
  /** Lists the grants that the roles from `rolesScript` do not need. Revokes nothing. */
  excessGrants(options?: Parameters<typeof excessGrants>[1]): Promise<readonly ExcessGrant[]>;
  /** Returns the SQL that creates the four roles for these tables, each with the fewest privileges. */
  rolesScript(options?: Omit<RolesOptions, 'schema' | 'tablePrefix'>): string;
  /** Returns the SQL that creates these tables, for `psql` or a migration tool. */
  migrationScript(options?: Omit<MigrationScriptOptions, keyof PostgresTableOptions>): Promise<string>;
}

/** Runs an operation on a store's tables, and translates its errors into errors that say what to do. */
export async function operating<T>(
  context: OperationContext,
  work: (context: OperationContext) => Promise<T>,
  table?: string,
): Promise<T> {
  try {
    return await work(context);
  } catch (error) {
    throw storeError(error, context.names, table);
  }
}

/** Returns the operations on one store's tables. `tables` contains the store's options for its tables. */
export function postgresAdmin(context: OperationContext, tables: PostgresTableOptions): PostgresAdmin {
  const { schema, tablePrefix } = tables;
  const operate = <T>(work: (context: OperationContext) => Promise<T>) => operating(context, work);
  return {
    destinations: (options) => operate((admin) => destinations(admin, options)),
    addDestination: (name, options) => operate((admin) => addDestination(admin, name, options)),
    updateDestination: (name, options) => operate((admin) => updateDestination(admin, name, options)),
    removeDestination: (name, options) => operate((admin) => removeDestination(admin, name, options)),
    parked: (options) => operate((admin) => parkedMessages(admin, options)),
    deadLetters: (options) => operate((admin) => deadLetters(admin, options)),
    requeue: (selection) => operate((admin) => requeue(admin, selection)),
    discard: (selection) => operate((admin) => discard(admin, selection)),
    repartition: (partitions, options) => operate((admin) => repartition(admin, partitions, options)),
    rebase: (options = {}) => operate(({ database, names }) => rebase(database, names, options)),
    importFromGo: (options) => operate((admin) => importFromGo(admin, options)),
    excessGrants: (options) => operate((admin) => excessGrants(admin, options)),
    rolesScript: (options) =>
      rolesScript({
        ...options,
        ...(schema !== undefined && { schema }),
        ...(tablePrefix !== undefined && { tablePrefix }),
      }),
    migrationScript: (options) => migrationScript({ ...options, ...tables }),
  };
}

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

/** An operator's functions for an outbox in PostgreSQL. */
export interface PostgresAdmin extends OutboxAdmin {
  /**
   * Changes the number of partitions. All relays must be stopped.
   * @throws MessengerError `CONFLICT`, which says what prevents the change.
   */
  repartition(partitions: number, options?: StoreCallOptions): Promise<void>;
  /**
   * Prepares the tables of a restored dump or a logical copy for this cluster, so that relays can continue from them
   * without losing anything. On request it also gives the database to another environment. All relays must be stopped,
   * and writers wait meanwhile. Needs the role that owns the tables.
   *
   * @returns which messages will be published from here, some of them again.
   * @throws MessengerError `CONFLICT` while a relay works here, or while a transaction that stored messages is open;
   *   `SCHEMA_MISMATCH` for tables that are missing, older or incomplete.
   */
  rebase(options?: RebaseOptions): Promise<RebaseResult>;
  /**
   * Imports the unpublished messages from the table of the Go module. A second run imports the messages that were
   * stored there since.
   * @returns how many were imported.
   */
  importFromGo(options?: ImportFromGoOptions): Promise<number>;
  /** Lists the grants beyond those that the roles of `rolesScript` need. It revokes nothing. */
  excessGrants(options?: Parameters<typeof excessGrants>[1]): Promise<readonly ExcessGrant[]>;
  /** Returns the SQL that creates the four roles for these tables, with the fewest rights. */
  rolesScript(options?: Omit<RolesOptions, 'schema' | 'tablePrefix'>): string;
  /** Returns the SQL that creates these tables, for `psql` or a migration tool. */
  migrationScript(options?: Omit<MigrationScriptOptions, keyof PostgresTableOptions>): Promise<string>;
}

/** Runs an operation on a store's tables. Its errors say what to do. */
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

/** Returns the operations on one store's tables. The store's options say which tables these are. */
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

import { MessengerError } from '../../../core/errors.js';
import type { StoreCallOptions } from '../../../core/contracts/call-options.js';
import { preamble, type Connection, type Database } from './database.js';
import type { Names } from './names.js';

/** The context of the operator functions: a database, the names of its tables, and their settings. */
export interface OperationContext {
  readonly database: Database;
  readonly names: Names;
  readonly jsonPayload: boolean;
  /** The time limit for each transaction, in milliseconds. */
  readonly timeout: number;
}

/** The SQLSTATE for a statement that does not get a lock at once or within its time limit. */
export const LOCK_NOT_AVAILABLE = '55P03';

/** Runs one transaction for an operator function. `patience` multiplies its time limit. */
export function transact<T>(
  { database, timeout }: OperationContext,
  { signal }: StoreCallOptions,
  work: (connection: Connection) => Promise<T>,
  { settings = [], patience = 1 }: { settings?: readonly string[]; patience?: number } = {},
): Promise<T> {
  const bounds = { timeout: timeout * patience, signal };
  return database.transaction(preamble(bounds.timeout, ...settings), work, bounds);
}

/**
 * Runs a statement that takes a lock with NOWAIT.
 * @throws MessengerError `CONFLICT` if the lock is held. The error says who holds it.
 */
export async function orConflict<T>(lock: Promise<T>, whoHoldsIt: string): Promise<T> {
  try {
    return await lock;
  } catch (cause) {
    if ((cause as { code?: unknown }).code !== LOCK_NOT_AVAILABLE) throw cause;
    throw conflict(whoHoldsIt, cause);
  }
}

export function conflict(message: string, cause?: unknown): MessengerError {
  return new MessengerError('CONFLICT', message, cause === undefined ? undefined : { cause });
}

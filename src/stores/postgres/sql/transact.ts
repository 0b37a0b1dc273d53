import { MessengerError } from '../../../core/errors.js';
import { describe } from '../../../core/util/describe.js';
import type { StoreCallOptions } from '../../../core/contracts/call-options.js';
import { preamble, type Connection, type Database } from './database.js';
import type { Names } from './names.js';

/** What the functions for operators work on. */
export interface Admin {
  readonly database: Database;
  readonly names: Names;
  readonly jsonPayload: boolean;
  /** Milliseconds for each transaction. */
  readonly timeout: number;
}

/** The SQLSTATE of a statement that does not wait for a lock, or has waited long enough. */
export const LOCK_NOT_AVAILABLE = '55P03';

/** Runs one transaction of a function for operators. `patience` multiplies the time that it may take. */
export function transact<T>(
  { database, timeout }: Admin,
  { signal }: StoreCallOptions,
  work: (connection: Connection) => Promise<T>,
  { settings = [], patience = 1 }: { settings?: readonly string[]; patience?: number } = {},
): Promise<T> {
  const bounds = { timeout: timeout * patience, signal };
  return database.transaction(preamble(bounds.timeout, ...settings), work, bounds);
}

/**
 * Runs a statement that locks NOWAIT.
 * @throws MessengerError `CONFLICT` that says who holds the lock.
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

/** The longest name of a destination, in bytes: what the side table's index takes next to the longest key. */
const LONGEST_DESTINATION = 500;

/** @throws MessengerError `INVALID_OPTION` for a value that cannot be the name of a destination. */
export function assertDestination(name: unknown): asserts name is string {
  const fits = typeof name === 'string' && name !== '' && !name.includes('\u0000');
  if (fits && Buffer.byteLength(name) <= LONGEST_DESTINATION) return;
  throw new MessengerError(
    'INVALID_OPTION',
    `the name of a destination must be a non-empty string of at most ${String(LONGEST_DESTINATION)} bytes, got ${describe(name)}`,
  );
}

/** @throws MessengerError `INVALID_OPTION` for anything but an array of non-empty strings, or `undefined`. */
export function stringsOption(name: string, value: unknown): readonly string[] | undefined {
  if (value === undefined) return undefined;
  const fits = Array.isArray(value) && value.every((each) => typeof each === 'string' && each !== '');
  if (fits && value.length > 0) return value as readonly string[];
  throw new MessengerError('INVALID_OPTION', `${name} must be an array of non-empty strings, got ${describe(value)}`);
}

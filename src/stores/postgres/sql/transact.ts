import { MessengerError } from '../../../core/errors.js';
import { describe } from '../../../core/util/describe.js';
import type { StoreCallOptions } from '../../../core/contracts/call-options.js';
import { preamble, type Connection, type Database } from './database.js';
import type { Names } from './names.js';

/** What an operator's function works on. */
export interface Admin {
  readonly database: Database;
  readonly names: Names;
  readonly jsonPayload: boolean;
  /** Milliseconds for each transaction. */
  readonly timeout: number;
}

/** What a statement fails with that does not wait, or not longer, for a lock. */
export const LOCK_NOT_AVAILABLE = '55P03';

/** One transaction of an operator's function. `patience` multiplies the time that it may take. */
export function transact<T>(
  { database, timeout }: Admin,
  { signal }: StoreCallOptions,
  work: (connection: Connection) => Promise<T>,
  { settings = [], patience = 1 }: { settings?: readonly string[]; patience?: number } = {},
): Promise<T> {
  const bounds = { timeout: timeout * patience, signal };
  return database.transaction(preamble(bounds.timeout, ...settings), work, bounds);
}

/** Runs a statement that locks NOWAIT. @throws MessengerError `CONFLICT`, saying so, where somebody else holds the lock. */
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

/** Beside the longest key, what the index of the side table takes. Bytes. */
const LONGEST_DESTINATION = 500;

/** @throws MessengerError `INVALID_OPTION` for what cannot be the name of a destination. */
export function assertDestination(name: unknown): asserts name is string {
  const fits = typeof name === 'string' && name !== '' && !name.includes('\u0000');
  if (fits && Buffer.byteLength(name) <= LONGEST_DESTINATION) return;
  throw new MessengerError(
    'INVALID_OPTION',
    `a destination is named by a non-empty string of at most ${String(LONGEST_DESTINATION)} bytes, got ${describe(name)}`,
  );
}

/** @throws MessengerError `INVALID_OPTION` for anything but an array of non-empty strings, or nothing. */
export function stringsOption(name: string, value: unknown): readonly string[] | undefined {
  if (value === undefined) return undefined;
  const fits = Array.isArray(value) && value.every((each) => typeof each === 'string' && each !== '');
  if (fits && value.length > 0) return value as readonly string[];
  throw new MessengerError('INVALID_OPTION', `${name} must be an array of non-empty strings, got ${describe(value)}`);
}

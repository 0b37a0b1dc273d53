import { MessengerError, type ErrorCode } from '../../../core/errors.js';
import type { Database } from '../sql/database.js';
import type { Names } from '../sql/names.js';
import { howToMigrate } from './verify.js';

const INSUFFICIENT_PRIVILEGE = '42501';

/**
 * The SQLSTATEs that this library recognizes, and the error code and message for each. Any other error stays as the
 * client throws it.
 */
const MEANINGS: Readonly<
  Record<string, { code: ErrorCode; say: (names: Names, table: string, text: string) => string }>
> = {
  // undefined_table, undefined_function, invalid_schema_name, undefined_column
  '42P01': { code: 'SCHEMA_MISMATCH', say: (names, table) => `${table} is missing: ${howToMigrate(names)}` },
  '42883': {
    code: 'SCHEMA_MISMATCH',
    say: (names) =>
      `a function is missing, either ${names.store} or one of PostgreSQL 14 and newer: ${howToMigrate(names)}`,
  },
  '3F000': {
    code: 'SCHEMA_MISMATCH',
    say: (names, table) => `the schema of ${table} is missing: ${howToMigrate(names)}`,
  },
  '42703': { code: 'SCHEMA_MISMATCH', say: (names, table) => `${table} lacks a column: ${howToMigrate(names)}` },
  // datatype_mismatch
  '42804': {
    code: 'SCHEMA_MISMATCH',
    say: (names) =>
      `the payload column of ${names.messages} has a different type: the jsonPayload option must have the value that the tables were created with`,
  },
  // read_only_sql_transaction
  '25006': {
    code: 'UNSUPPORTED',
    // The server raises the same error in all three cases.
    say: () =>
      'this transaction can only read. If this server is a standby (`SELECT pg_is_in_recovery()` says so), connect to the primary. Otherwise turn off default_transaction_read_only of the database or the role, or begin the transaction READ WRITE',
  },
  [INSUFFICIENT_PRIVILEGE]: {
    code: 'NOT_ALLOWED',
    say: (names, _table, text) => `${text}: ${howToGrant(names)}`,
  },
  // The function that stores messages raises this (migration 4).
  MO001: {
    code: 'UNKNOWN_DESTINATION',
    say: (_names, _table, text) =>
      `${text}, and a message is addressed to it: \`await outbox.migrate()\` adds the destinations of its topics, and \`messenger add-destination NAME --addressed\` adds any other`,
  },
  // The procedures that write through a handle raise these (migration 7).
  MO002: {
    code: 'INVALID_TRANSACTION',
    say: () => ENDED,
  },
  MO003: {
    code: 'UNSUPPORTED',
    say: (_names, _table, text) =>
      `the ${text} in this session, but the client speaks UTF8. Text would be altered, so nothing was written. Leave client_encoding as the client sets it`,
  },
  // in_failed_sql_transaction
  '25P02': {
    code: 'INVALID_TRANSACTION',
    say: () =>
      'the transaction has already failed, and none of its changes will be stored: roll it back and start again',
  },
};

const ENDED =
  'the transaction of this handle has ended, or has not begun, and nothing was written: await each call before the transaction ends with COMMIT, ROLLBACK or the return of its callback';

/** Returns the error for a handle whose connection is already in another transaction. */
export function ended(): MessengerError {
  return new MessengerError('INVALID_TRANSACTION', ENDED);
}

/**
 * Returns the command to run if a role lacks a privilege. PostgreSQL's error names the object, but not the privilege.
 */
function howToGrant({ schema, prefix }: Names): string {
  const flags = `--schema ${schema}${prefix === '' ? '' : ` --table-prefix ${prefix}`}`;
  return `the role of this connection lacks a privilege on it. \`messenger roles --sql ${flags}\` prints the grants of each role: run them as the role that owns the tables, and connect as a role that has them`;
}

/** Translates a client's error about the log, or about another table, if this library recognizes the error. */
export function storeError(error: unknown, names: Names, table = names.messages): unknown {
  if (error instanceof MessengerError) return error;
  for (const { code, text } of faultsOf(error)) {
    const meaning = MEANINGS[code];
    if (meaning) return new MessengerError(meaning.code, meaning.say(names, table, text), { cause: error });
  }
  return error;
}

/**
 * Returns a database whose permission errors say what to run. A running relay uses this database. Every other error
 * stays as it is.
 */
export function explained(database: Database, names: Names): Database {
  const explain = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      throw faultsOf(error).some(({ code }) => code === INSUFFICIENT_PRIVILEGE) ? storeError(error, names) : error;
    }
  };
  return {
    transaction: (...given) => explain(database.transaction(...given)),
    once: (...given) => explain(database.once(...given)),
  };
}

/**
 * Collects the codes and messages of an error and of the errors inside it. Query builders and ORMs keep the driver's
 * error in one of these properties.
 */
function faultsOf(error: unknown, depth = 5): { readonly code: string; readonly text: string }[] {
  if (typeof error !== 'object' || error === null || depth === 0) return [];
  const { code, originalCode, message, cause, original, driverError, meta, driverAdapterError } = error as Record<
    string,
    unknown
  >;
  const text = typeof message === 'string' ? message : '';
  const own = [code, originalCode].flatMap((each) => (typeof each === 'string' ? { code: each, text } : []));
  const within = [cause, original, driverError, meta, driverAdapterError];
  return [...own, ...within.flatMap((each) => faultsOf(each, depth - 1))];
}

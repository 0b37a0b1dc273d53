import { MessengerError, type ErrorCode } from '../../../core/errors.js';
import type { Database } from '../sql/database.js';
import type { Names } from '../sql/names.js';
import { howToMigrate } from './verify.js';

const INSUFFICIENT_PRIVILEGE = '42501';

/** SQLSTATEs that mean something of ours, and what to say. Anything else stays the client's own error. */
const MEANINGS: Readonly<
  Record<string, { code: ErrorCode; say: (names: Names, table: string, text: string) => string }>
> = {
  // undefined_table, undefined_function, invalid_schema_name, undefined_column
  '42P01': { code: 'SCHEMA_MISMATCH', say: (names, table) => `${table} is missing: ${howToMigrate(names)}` },
  '42883': {
    code: 'SCHEMA_MISMATCH',
    say: (names) => `a function is missing, ${names.store} or one of PostgreSQL 14 and newer: ${howToMigrate(names)}`,
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
      `the payload column of ${names.messages} is of another type: the option jsonPayload must be what the tables were made with`,
  },
  // read_only_sql_transaction
  '25006': {
    code: 'UNSUPPORTED',
    // The server says the same of all three.
    say: () =>
      'this transaction can only read. Connect to the primary, if this server is a standby (`SELECT pg_is_in_recovery()` says so); else turn off default_transaction_read_only of the database or the role, or begin the transaction READ WRITE',
  },
  [INSUFFICIENT_PRIVILEGE]: {
    code: 'NOT_ALLOWED',
    say: (names, _table, text) => `${text}: ${howToGrant(names)}`,
  },
  // raised by the function that stores (migration 4)
  MO001: {
    code: 'UNKNOWN_DESTINATION',
    say: (_names, _table, text) =>
      `${text}, and a message is for it: \`await outbox.migrate()\` makes the destinations of its topics, \`messenger add-destination NAME --addressed\` any`,
  },
  // raised by the procedures that write through a handle (migration 7)
  MO002: {
    code: 'INVALID_TRANSACTION',
    say: () => ENDED,
  },
  MO003: {
    code: 'UNSUPPORTED',
    say: (_names, _table, text) =>
      `the ${text} in this session, and the client speaks UTF8: texts would be altered, so nothing was written. Leave client_encoding as the client sets it`,
  },
  // in_failed_sql_transaction
  '25P02': {
    code: 'INVALID_TRANSACTION',
    say: () => 'the transaction has failed before: roll it back and start again, nothing of it will be stored',
  },
};

const ENDED =
  'the transaction of this handle has ended, or has not begun, and nothing was written: await each call before the transaction ends, by COMMIT, by ROLLBACK or with its callback';

/** The error of a handle whose connection is in another transaction by now. */
export function ended(): MessengerError {
  return new MessengerError('INVALID_TRANSACTION', ENDED);
}

/** What to run where a role lacks a privilege. PostgreSQL names what it is on, and not which it is. */
function howToGrant({ schema, prefix }: Names): string {
  const flags = `--schema ${schema}${prefix === '' ? '' : ` --table-prefix ${prefix}`}`;
  return `the role of this connection lacks a privilege on it. \`messenger roles --sql ${flags}\` prints the grants of each role: run them with the role that owns the tables, and connect with the role that has them`;
}

/** A client's error, in the words of this library where it means something of ours: about the log, or another table. */
export function storeError(error: unknown, names: Names, table = names.messages): unknown {
  if (error instanceof MessengerError) return error;
  for (const { code, text } of faultsOf(error)) {
    const meaning = MEANINGS[code];
    if (meaning) return new MessengerError(meaning.code, meaning.say(names, table, text), { cause: error });
  }
  return error;
}

/** A database whose refusals say what to run: for what a relay does once it runs. Everything else fails as it does. */
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

/** The code and text of an error, and of what it wraps: query builders and ORMs keep the driver's in one of these. */
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

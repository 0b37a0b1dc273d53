import { MessengerError } from '../../../core/errors.js';
import type { Database, Row } from '../sql/database.js';

/** Runs one statement in the caller's transaction. */
export type Run = (text: string, values: readonly Bound[]) => Promise<unknown>;

/** A string, or an object from which `pg` gets a string or null when it sends the statement. */
export type Bound = string | { toPostgres(): string | null };

/** Runs SQL in a handle's transaction. */
export interface Runner {
  readonly run: Run;
  /**
   * Whether this handle belongs to only one transaction. If so, and its connection is in a different transaction, the
   * handle's own transaction has ended.
   */
  readonly isOneTransaction: boolean;
  /**
   * Null if the statement will certainly be sent in a transaction, so that the server does not need to check. Otherwise
   * an empty string.
   */
  readonly known: Bound;
}

/**
 * The store's adapter for one client library. A driver recognises clients and handles by their methods, and imports
 * nothing from the library.
 */
export interface Driver {
  /** The library's name, for error messages. */
  readonly name: string;
  /**
   * Returns the database behind a client that was passed to the store, or `undefined` for a client from another
   * library.
   */
  database(client: unknown): Database | undefined;
  /**
   * Returns a function that writes through a transaction handle, or the reason why the handle is rejected. Returns
   * `undefined` for a handle from another library.
   */
  handle(handle: unknown): Run | Refusal | undefined;
  /** Whether each transaction has its own handle. @default no */
  isOneTransaction?(handle: unknown): boolean;
  /**
   * Returns null if the handle will certainly be in a transaction when its statement is sent, and an empty string
   * otherwise.
   * @default an empty string
   */
  known?(handle: unknown): Bound;
  /** Returns a function that listens for notifications through a client, or `undefined` if the client cannot listen. */
  listen?(client: unknown): Listen | undefined;
  /**
   * Calls back when a handle's transaction has ended and its rows can be read. Never calls back if the client does not
   * report when a transaction ends.
   */
  onEnd?(handle: unknown, callback: () => void, forMany: () => void): void;
}

/** Opens a session directly on the server. The session lasts until it is closed or lost. */
export type Listen = (heard: {
  readonly onNotification: (channel: string, payload: string) => void;
  /** Called when the session is lost, together with its locks and its LISTENs. */
  readonly onEnd: () => void;
}) => Promise<ListeningSession>;

/** A session for LISTEN, and for locks that outlive a transaction. */
export interface ListeningSession {
  /** Runs one statement outside of any transaction. */
  query(text: string): Promise<readonly Row[]>;
  /** Ends the session, and releases its locks. */
  close(): void;
}

/** The reason why a handle is rejected, and what to pass instead. */
export interface Refusal {
  readonly refused: string;
}

/** PostgreSQL's OIDs for the two column types that our statements return. */
export const BYTEA = 17;
export const TEXT = 25;

const BACKSLASH = 0x5c;

/**
 * Decodes a `bytea` value that the server sent as text, in either format of the `bytea_output` setting. The hex format
 * is `\x` followed by two digits for each byte. The escape format writes a printable character unchanged, a backslash
 * as two backslashes, and any other byte as a backslash and three octal digits. So a value in the escape format never
 * begins with `\x`.
 */
export function bytesOf(text: string): Uint8Array {
  if (text.startsWith('\\x')) return Buffer.from(text.slice(2), 'hex');
  const bytes = Buffer.from(text, 'latin1');
  let length = bytes.indexOf(BACKSLASH);
  if (length < 0) return bytes;
  for (let i = length; i < bytes.length; length++) {
    const isEscape = bytes[i] === BACKSLASH && bytes[i + 1] !== BACKSLASH;
    bytes[length] = isEscape ? parseInt(text.slice(i + 1, i + 4), 8) : (bytes[i] as number);
    i += isEscape ? 4 : bytes[i] === BACKSLASH ? 2 : 1;
  }
  return bytes.subarray(0, length);
}

/**
 * Whether an error means that the connection is lost. Either the server ended the session (severity FATAL or PANIC), or
 * the client library (`CONNECTION_…`) or the operating system (`ECONNRESET`, `EPIPE` …) reported the loss.
 */
export function endsConnection(error: unknown): boolean {
  const { severity, severity_local, code } = (error ?? {}) as Record<string, unknown>;
  const told = typeof code === 'string' && /^(CONNECTION_|E[A-Z]{3})/.test(code);
  return told || [severity, severity_local].some((each) => each === 'FATAL' || each === 'PANIC');
}

const BEGIN = 'BEGIN ISOLATION LEVEL READ COMMITTED';

const LEFT_OPEN = 'messenger: a transaction was left open on this connection';

/**
 * Returns the script that begins a transaction. If the application left another transaction open on the connection,
 * BEGIN only warns, and our COMMIT would commit that transaction. With `checked`, the script fails instead, because it
 * compares two times. If the script itself began the transaction, the transaction started when the server received the
 * script. A transaction that was left open started earlier.
 */
export function begin(checked: boolean): string {
  if (!checked) return BEGIN;
  return `${BEGIN}; SELECT CASE WHEN pg_catalog.now() OPERATOR(pg_catalog.=) pg_catalog.statement_timestamp() THEN 0 ELSE pg_catalog.concat('${LEFT_OPEN}', pg_catalog.pg_backend_pid())::pg_catalog.int4 END`;
}

/** How many other connections to try, if a transaction was left open on every connection so far. */
export const MOST_LEFT_OPEN = 20;

/** Thrown if a transaction was left open on a connection, so that ours could not begin. */
export class LeftOpenError extends MessengerError {
  constructor(cause?: unknown) {
    super(
      'INVALID_TRANSACTION',
      'the application released connections to the pool while their transactions were open: nothing was committed on them. COMMIT or ROLLBACK before you release a client',
      cause === undefined ? undefined : { cause },
    );
  }
}

/**
 * Translates an error from the script that begins a transaction. Returns a `LeftOpenError` if another transaction was
 * left open, and the error itself otherwise.
 */
export function beginError(error: unknown): unknown {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  // 25P02: the open transaction has failed, and accepts only COMMIT or ROLLBACK. 25001: the open transaction has run a
  // query, so its isolation level can no longer change.
  const found = code === '25P02' || code === '25001' || (code === '22P02' && String(message).includes(LEFT_OPEN));
  return found ? new LeftOpenError(error) : error;
}

/**
 * Runs BEGIN, the preamble, the work, and COMMIT. Runs ROLLBACK if the work rejects and the connection is not lost.
 *
 * @throws LeftOpenError if the connection is already in a transaction. That transaction stays open, but the check may
 * make it fail.
 */
export async function betweenBeginAndCommit<T>(
  script: (sql: string) => Promise<unknown>,
  preamble: string,
  work: () => Promise<T>,
  { checked = true } = {},
): Promise<T> {
  try {
    await script(`${begin(checked)}; ${preamble}`);
  } catch (error) {
    throw beginError(error);
  }
  let result: T;
  try {
    result = await work();
  } catch (error) {
    // If ROLLBACK also fails, both the connection and the transaction are gone. The first error says why.
    if (!endsConnection(error)) await script('ROLLBACK').catch(() => undefined);
    throw error;
  }
  await script('COMMIT');
  return result;
}

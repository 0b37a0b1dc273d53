import { MessengerError } from '../../../core/errors.js';
import type { Database, Row } from '../sql/database.js';

/** Runs one statement in the caller's transaction. */
export type Run = (text: string, values: readonly Bound[]) => Promise<unknown>;

/** A text, or an object that `pg` asks for a text or null when it sends the statement. */
export type Bound = string | { toPostgres(): string | null };

/** How to run SQL in a handle's transaction. */
export interface Runner {
  readonly run: Run;
  /**
   * Whether this handle belongs to one transaction only. If the handle's connection is then in another transaction, the
   * handle's own transaction has ended.
   */
  readonly isOneTransaction: boolean;
  /**
   * Null if the statement will certainly be sent in a transaction, so that the server need not check. Otherwise an
   * empty text.
   */
  readonly known: Bound;
}

/**
 * What the store knows about one client library. A driver recognises clients and handles by their shape, and imports
 * nothing from the library.
 */
export interface Driver {
  /** The library's name, for error messages. */
  readonly name: string;
  /**
   * Returns the database behind a client that was passed to the store, or `undefined` for a client of another library.
   */
  database(client: unknown): Database | undefined;
  /**
   * Returns how to write through a transaction handle, or a reason to refuse it. Returns `undefined` for a handle of
   * another library.
   */
  handle(handle: unknown): Run | Refusal | undefined;
  /** Whether each transaction has its own handle. @default no */
  isOneTransaction?(handle: unknown): boolean;
  /**
   * Returns null if the handle will certainly be in a transaction when its statement is sent, otherwise an empty text.
   * @default empty
   */
  known?(handle: unknown): Bound;
  /** Returns how to listen for notifications through a client, or `undefined` if the client cannot listen. */
  listen?(client: unknown): Listen | undefined;
  /**
   * Calls back when a handle's transaction has ended and its rows can be read. Never calls back if the client does not
   * report the end.
   */
  onEnd?(handle: unknown, callback: () => void, forMany: () => void): void;
}

/** Opens a session on the server itself, which lasts until it is closed or lost. */
export type Listen = (heard: {
  readonly onNotification: (channel: string, payload: string) => void;
  /** Called when the session is lost, and with it everything that it held. */
  readonly onEnd: () => void;
}) => Promise<ListeningSession>;

/** A session, for LISTEN and for locks that outlive a transaction. */
export interface ListeningSession {
  /** Runs one statement outside of any transaction. */
  query(text: string): Promise<readonly Row[]>;
  /** Ends the session, and releases everything that it holds. */
  close(): void;
}

/** Why a handle is refused, and what to pass instead. */
export interface Refusal {
  readonly refused: string;
}

/** PostgreSQL's numbers for the two types of columns that our statements return. */
export const BYTEA = 17;
export const TEXT = 25;

const BACKSLASH = 0x5c;

/**
 * Decodes the text that the server writes for a `bytea`, in either format of the setting `bytea_output`. One format is
 * `\x` and two digits for each byte. The other format writes a printable character as it is, a backslash as two, and
 * any other byte as a backslash and three octal digits. So text in the other format never begins with `\x`.
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
 * Whether an error means that its connection is gone. The server may have ended the session (severity FATAL or PANIC).
 * Or the client library (`CONNECTION_…`) or the operating system (`ECONNRESET`, `EPIPE` …) reported the loss.
 */
export function endsConnection(error: unknown): boolean {
  const { severity, severity_local, code } = (error ?? {}) as Record<string, unknown>;
  const told = typeof code === 'string' && /^(CONNECTION_|E[A-Z]{3})/.test(code);
  return told || [severity, severity_local].some((each) => each === 'FATAL' || each === 'PANIC');
}

const BEGIN = 'BEGIN ISOLATION LEVEL READ COMMITTED';

const LEFT_OPEN = 'messenger: a transaction was left open on this connection';

/**
 * Returns the script with which a transaction begins. If somebody left another transaction open, BEGIN only warns, and
 * our COMMIT would commit that transaction. The `checked` script fails instead, because it compares times. A
 * transaction that begins in a message has the start time of that message, and a transaction that was left open has an
 * earlier time.
 */
export function begin(checked: boolean): string {
  if (!checked) return BEGIN;
  return `${BEGIN}; SELECT CASE WHEN pg_catalog.now() OPERATOR(pg_catalog.=) pg_catalog.statement_timestamp() THEN 0 ELSE pg_catalog.concat('${LEFT_OPEN}', pg_catalog.pg_backend_pid())::pg_catalog.int4 END`;
}

/**
 * How often a transaction is tried on another connection, if each connection so far was left in an open transaction.
 */
export const MOST_LEFT_OPEN = 20;

/** The error when a connection was left in an open transaction, so that ours could not begin. */
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
 * Translates the error of a script that begins a transaction. Returns a `LeftOpenError` if another transaction was left
 * open.
 */
export function beginError(error: unknown): unknown {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  // A failed transaction (25P02) accepts only its end. A transaction that has run a query (25001) cannot change its
  // isolation level.
  const found = code === '25P02' || code === '25001' || (code === '22P02' && String(message).includes(LEFT_OPEN));
  return found ? new LeftOpenError(error) : error;
}

/**
 * Runs BEGIN, the preamble, the work, and COMMIT. Runs ROLLBACK if the work rejects and the connection still works.
 *
 * @throws LeftOpenError if the connection is already in a transaction. This transaction stays open, or fails.
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
    // If ROLLBACK also fails, the connection is gone, and the transaction with it. The first error says why.
    if (!endsConnection(error)) await script('ROLLBACK').catch(() => undefined);
    throw error;
  }
  await script('COMMIT');
  return result;
}

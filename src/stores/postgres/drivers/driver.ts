import { MessengerError } from '../../../core/errors.js';
import type { Database, Row } from '../sql/database.js';

/** Runs one statement in the caller's transaction. */
export type Run = (text: string, values: readonly Bound[]) => Promise<unknown>;

/** A text; or an object that `pg` asks for a text or null at the moment when it sends the statement. */
export type Bound = string | { toPostgres(): string | null };

/** How SQL is run in the transaction of a handle. */
export interface Runner {
  readonly run: Run;
  /**
   * Whether this handle belongs to one transaction only. Such a handle's transaction has ended if the handle is found
   * in another one.
   */
  readonly isOneTransaction: boolean;
  /**
   * An empty text; null where the statement is known to be sent in a transaction, so that the server need not find out.
   */
  readonly known: Bound;
}

/**
 * What the store knows of one client library. A driver recognises clients and handles by their shape, and imports
 * nothing from the library.
 */
export interface Driver {
  /** The library's name, for error messages. */
  readonly name: string;
  /** The database behind a client that the store is built on; `undefined` for a client of another library. */
  database(client: unknown): Database | undefined;
  /**
   * How to write through a transaction handle; a reason to refuse it; or `undefined` for a handle of another library.
   */
  handle(handle: unknown): Run | Refusal | undefined;
  /** Whether each transaction has a handle of its own. @default no */
  isOneTransaction?(handle: unknown): boolean;
  /**
   * Null, as the statement of a handle is sent, if the handle is then known to be in a transaction; otherwise an empty
   * text. @default empty
   */
  known?(handle: unknown): Bound;
  /** How to listen for notifications through a client; `undefined` where that is impossible. */
  listen?(client: unknown): Listen | undefined;
  /**
   * Calls back when a handle's transaction has ended and its rows can be read. Never calls back where nothing tells of
   * the end.
   */
  onEnd?(handle: unknown, callback: () => void, forMany: () => void): void;
}

/** Opens a session on the server itself, which lasts until it is closed or lost. */
export type Listen = (heard: {
  readonly onNotification: (channel: string, payload: string) => void;
  /** The session was lost, and everything that it held is gone. */
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

/** The types of all columns that our statements return, by PostgreSQL's numbers. */
export const BYTEA = 17;
export const TEXT = 25;

const BACKSLASH = 0x5c;

/**
 * The bytes of a `bytea` as the server writes it, in either form of the setting `bytea_output`. One form is `\x` and
 * two digits for each byte. The other form writes a printable character as it is, a backslash as two, and any other
 * byte as a backslash and three octal digits, so it never begins with `\x`.
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
 * Whether an error means that its connection is gone: the server ended the session (severity FATAL or PANIC), or the
 * client library (`CONNECTION_…`) or the operating system (`ECONNRESET`, `EPIPE` …) reported it.
 */
export function endsConnection(error: unknown): boolean {
  const { severity, severity_local, code } = (error ?? {}) as Record<string, unknown>;
  const told = typeof code === 'string' && /^(CONNECTION_|E[A-Z]{3})/.test(code);
  return told || [severity, severity_local].some((each) => each === 'FATAL' || each === 'PANIC');
}

const BEGIN = 'BEGIN ISOLATION LEVEL READ COMMITTED';

const LEFT_OPEN = 'messenger: a transaction was left open on this connection';

/**
 * How the transactions of a `Database` begin. If somebody left another transaction open, BEGIN only warns, and our
 * COMMIT would commit that transaction. The `checked` script fails instead: a transaction that begins in a message has
 * the start time of that message, and one that was left open has an earlier one.
 */
export function begin(checked: boolean): string {
  if (!checked) return BEGIN;
  return `${BEGIN}; SELECT CASE WHEN pg_catalog.now() OPERATOR(pg_catalog.=) pg_catalog.statement_timestamp() THEN 0 ELSE pg_catalog.concat('${LEFT_OPEN}', pg_catalog.pg_backend_pid())::pg_catalog.int4 END`;
}

/** How often a transaction is tried on another connection, when a transaction was left open on each so far. */
export const MOST_LEFT_OPEN = 20;

/** Why a transaction could not begin. */
export class LeftOpenError extends MessengerError {
  constructor(cause?: unknown) {
    super(
      'INVALID_TRANSACTION',
      'the application released connections to the pool while their transactions were open: nothing was committed on them. COMMIT or ROLLBACK before you release a client',
      cause === undefined ? undefined : { cause },
    );
  }
}

/** The error of a script that begins a transaction; a `LeftOpenError` where it means that another one was left open. */
export function beginError(error: unknown): unknown {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  // A failed transaction (25P02) accepts nothing but its end. A transaction that has run a query (25001) cannot change
  // its isolation level.
  const found = code === '25P02' || code === '25001' || (code === '22P02' && String(message).includes(LEFT_OPEN));
  return found ? new LeftOpenError(error) : error;
}

/**
 * Runs BEGIN, the preamble, the work, and COMMIT. Runs ROLLBACK if the work rejects and the connection still works.
 *
 * @throws LeftOpenError where the connection is in a transaction already. That transaction stays as it is, or fails.
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
    // If ROLLBACK fails too, the connection is gone, and the transaction with it. The first error says why.
    if (!endsConnection(error)) await script('ROLLBACK').catch(() => undefined);
    throw error;
  }
  await script('COMMIT');
  return result;
}

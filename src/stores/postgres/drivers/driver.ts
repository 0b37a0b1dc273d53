import { MessengerError } from '../../../core/errors.js';
import type { Database, Row } from '../sql/database.js';

/** Runs one statement in the caller's transaction. */
export type Run = (text: string, values: readonly Bound[]) => Promise<unknown>;

/** Bound as text; or what `pg` asks for a text, or null, at the moment that it sends the statement. */
export type Bound = string | { toPostgres(): string | null };

/** How SQL is run in the transaction of a handle. */
export interface Runner {
  readonly run: Run;
  /** No other transaction ever has this handle: one that finds itself in another is over. */
  readonly isOneTransaction: boolean;
  /** Empty; null where it is known that the statement is sent in a transaction, which the server need not find out. */
  readonly known: Bound;
}

/**
 * What the store knows of one client library. Everything is told apart by shape: nothing of the
 * library is imported.
 */
export interface Driver {
  /** The library's name, for error messages. */
  readonly name: string;
  /** The database behind a client that the store is built on, or `undefined` for another library's. */
  database(client: unknown): Database | undefined;
  /** How to write through a transaction handle, `undefined` for another library's, or a reason to refuse it. */
  handle(handle: unknown): Run | Refusal | undefined;
  /** Whether each transaction has a handle of its own. @default no */
  isOneTransaction?(handle: unknown): boolean;
  /** Null, as a handle's statement is sent, where it is known to be in a transaction; empty where it is not. @default empty */
  known?(handle: unknown): Bound;
  /** How to hear notifications through a client, or `undefined` where that cannot be. */
  listen?(client: unknown): Listen | undefined;
  /** Calls back when a handle's transaction is over and what it wrote can be read; never, where nothing tells. */
  onEnd?(handle: unknown, callback: () => void, forMany: () => void): void;
}

/** Opens a session of the server itself, which lasts until it is closed or lost. */
export type Listen = (heard: {
  readonly onNotification: (channel: string, payload: string) => void;
  /** It was lost: what it held is gone. */
  readonly onEnd: () => void;
}) => Promise<ListeningSession>;

/** A session, for LISTEN and for locks that outlive a transaction. */
export interface ListeningSession {
  /** Runs one statement outside of any transaction. */
  query(text: string): Promise<readonly Row[]>;
  /** Ends the session, and all that it holds. */
  close(): void;
}

/** Why a handle is refused, and what to pass instead. */
export interface Refusal {
  readonly refused: string;
}

/** The types of all columns that our statements return, as PostgreSQL numbers them. */
export const BYTEA = 17;
export const TEXT = 25;

const BACKSLASH = 0x5c;

/**
 * The bytes of a `bytea` as the server writes it, in either form of its setting `bytea_output`: `\x` and two digits for
 * each, or what can be printed as it is, a backslash twice, and anything else as a backslash and three octal digits. So
 * the other form never begins with `\x`.
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
 * Whether an error says that its connection is gone: the server ended the session (severity FATAL or
 * PANIC), the client library says so (`CONNECTION_…`), or the operating system (`ECONNRESET`, `EPIPE` …).
 */
export function endsConnection(error: unknown): boolean {
  const { severity, severity_local, code } = (error ?? {}) as Record<string, unknown>;
  const told = typeof code === 'string' && /^(CONNECTION_|E[A-Z]{3})/.test(code);
  return told || [severity, severity_local].some((each) => each === 'FATAL' || each === 'PANIC');
}

const BEGIN = 'BEGIN ISOLATION LEVEL READ COMMITTED';

const LEFT_OPEN = 'messenger: a transaction was left open on this connection';

/**
 * How transactions of a `Database` begin. Where somebody left another one open, BEGIN is a warning, and our COMMIT would
 * commit what is theirs: `checked`, the script fails there. What begins in one message begins when that does.
 */
export function begin(checked: boolean): string {
  if (!checked) return BEGIN;
  return `${BEGIN}; SELECT CASE WHEN pg_catalog.now() OPERATOR(pg_catalog.=) pg_catalog.statement_timestamp() THEN 0 ELSE pg_catalog.concat('${LEFT_OPEN}', pg_catalog.pg_backend_pid())::pg_catalog.int4 END`;
}

/** How often a transaction is tried on another connection, where each was left in one. */
export const MOST_LEFT_OPEN = 20;

/** Why a transaction was not begun. */
export class LeftOpenError extends MessengerError {
  constructor(cause?: unknown) {
    super(
      'INVALID_TRANSACTION',
      'the connections of the pool are in transactions that the application left open: nothing was committed on them. COMMIT or ROLLBACK before a client is released',
      cause === undefined ? undefined : { cause },
    );
  }
}

/** An error of the script that begins, as a `LeftOpenError` where it means that. */
export function beginError(error: unknown): unknown {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  // In one that has failed, nothing but its end can be run; of one that has run a query, the isolation cannot be changed.
  const found = code === '25P02' || code === '25001' || (code === '22P02' && String(message).includes(LEFT_OPEN));
  return found ? new LeftOpenError(error) : error;
}

/**
 * BEGIN, the preamble, the work, COMMIT; or ROLLBACK when the work rejects and the connection is left.
 *
 * @throws LeftOpenError where the connection is in a transaction already, which stays as it is, or fails.
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
    // Where this fails too, the connection is gone and the transaction with it: the first error says why.
    if (!endsConnection(error)) await script('ROLLBACK').catch(() => undefined);
    throw error;
  }
  await script('COMMIT');
  return result;
}

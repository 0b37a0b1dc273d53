import { MessengerError } from '../../../core/errors.js';
import { onAbort } from '../../../core/util/async.js';

/** Values are bound as text, and the statements cast them, so that any driver can bind them. */
export type Value = string | number | null;
/** A row as an array. Every column is text, except a `bytea`, which is bytes. */
export type Row = readonly unknown[];

/** A statement of constant text. The name lets a driver prepare it once per connection. */
export interface Statement {
  readonly name: string;
  readonly text: string;
}

/** One connection inside a transaction. */
export interface Connection {
  query(statement: Statement, values?: readonly Value[]): Promise<readonly Row[]>;
}

/** The bounds of one transaction. */
export interface TransactionBounds {
  /** Milliseconds for the whole transaction, including the wait for a connection. */
  readonly timeout: number;
  readonly signal?: AbortSignal | undefined;
}

/** What the store needs from a driver: transactions on a connection of their own. */
export interface Database {
  /**
   * Runs `work` between BEGIN and COMMIT, at READ COMMITTED whatever the database's default is, because the cursor
   * needs a fresh snapshot for each statement. Rolls back if the work rejects. `preamble` is SQL without parameters
   * that runs first, in the same round trip if the driver can do that. When the bounds are exceeded, the connection is
   * given up and not reused, because its state is unknown.
   */
  transaction<T>(preamble: string, work: (connection: Connection) => Promise<T>, bounds: TransactionBounds): Promise<T>;
  /** The same for a single statement with few rows: in one round trip instead of three, if the driver can do that. */
  once(
    preamble: string,
    statement: Statement,
    values: readonly Value[],
    bounds: TransactionBounds,
  ): Promise<readonly Row[]>;
}

/** Timeouts in milliseconds, which the server enforces even when this process is frozen, and further settings. */
export function preamble(
  bounds: number | { readonly timeout: number; readonly idle: number },
  ...more: readonly string[]
): string {
  const { timeout, idle } = typeof bounds === 'number' ? { timeout: bounds, idle: bounds } : bounds;
  const whole = (ms: number) => String(Math.max(1, Math.ceil(ms)));
  return [
    `SET LOCAL statement_timeout = ${whole(timeout)}`,
    `SET LOCAL idle_in_transaction_session_timeout = ${whole(idle)}`,
    ...more,
  ].join('; ');
}

/**
 * The result of `work`, unless the time or the signal ends the wait first. `why` says what the wait was for, if it was
 * not for `what`.
 *
 * @throws MessengerError `TIMEOUT` after the time; the signal's own reason once it aborts.
 */
export async function bounded<T>(
  work: Promise<T>,
  { timeout, signal }: TransactionBounds,
  what: string,
  why?: () => string | undefined,
): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let forget: (() => void) | undefined;
  try {
    return await new Promise<T>((resolve, reject) => {
      work.then(resolve, reject);
      timer = setTimeout(() => {
        const within = `within ${String(timeout)} ms`;
        const text = why?.();
        reject(new MessengerError('TIMEOUT', text ? `${text} ${within}` : `${what} did not answer ${within}`));
      }, timeout);
      const giveUp = () => {
        reject(signal?.reason as Error);
      };
      if (signal?.aborted === true) giveUp();
      else forget = signal && onAbort(signal, giveUp);
    });
  } finally {
    clearTimeout(timer);
    forget?.();
  }
}

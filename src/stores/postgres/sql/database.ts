import { MessengerError } from '../../../core/errors.js';
import { onAbort } from '../../../core/util/async.js';

/** A value to bind. Every value is bound as text and cast by the statement, so that any driver can bind it. */
export type Value = string | number | null;
/** A row as an array. Every column is text, except for `bytea` columns, which are bytes. */
export type Row = readonly unknown[];

/** A statement with constant SQL. Its name lets a driver prepare the statement once per connection. */
export interface Statement {
  readonly name: string;
  readonly text: string;
}

/** One connection inside a transaction. */
export interface Connection {
  query(statement: Statement, values?: readonly Value[]): Promise<readonly Row[]>;
}

/** The limits for one transaction. */
export interface TransactionBounds {
  /** The time limit in milliseconds for the whole transaction, including the wait for a connection. */
  readonly timeout: number;
  readonly signal?: AbortSignal | undefined;
}

/** Runs the store's transactions through a driver, each on a connection that nothing else uses meanwhile. */
export interface Database {
  /**
   * Runs `work` between BEGIN and COMMIT, and rolls back if the work rejects. The isolation level is always READ
   * COMMITTED, because the cursor needs a fresh snapshot for each statement. `preamble` is SQL without parameters that
   * runs first, in the same round trip if the driver can do that. If a limit is exceeded, the driver discards the
   * connection, because its state is unknown.
   */
  transaction<T>(preamble: string, work: (connection: Connection) => Promise<T>, bounds: TransactionBounds): Promise<T>;
  /**
   * Does the same for a single statement that returns few rows. It takes one round trip instead of three if the driver
   * can do that.
   */
  once(
    preamble: string,
    statement: Statement,
    values: readonly Value[],
    bounds: TransactionBounds,
  ): Promise<readonly Row[]>;
}

/**
 * Returns SQL that sets timeouts, in milliseconds, and further settings. The server enforces these timeouts even when
 * this process is frozen.
 */
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
 * Resolves to the result of `work`, unless the time limit or the signal ends the wait first. A timeout error says that
 * `what` did not answer, or contains the string that `why` returns.
 *
 * @throws MessengerError `TIMEOUT` when the time limit has passed. When the signal aborts, throws the signal's own
 * reason.
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

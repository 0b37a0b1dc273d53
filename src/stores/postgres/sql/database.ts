import { MessengerError } from '../../../core/errors.js';
import { onAbort } from '../../../core/util/async.js';

/** Values are bound as text: the statements cast them, so that any driver can bind them. */
export type Value = string | number | null;
/** A row as an array. Every column is text, but for a `bytea`, which is bytes. */
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

/** Bounds of one transaction. */
export interface TransactionBounds {
  /** Milliseconds for the whole of it, waiting for a connection included. */
  readonly timeout: number;
  readonly signal?: AbortSignal | undefined;
}

/** What the store needs of a driver: transactions on a connection of its own. */
export interface Database {
  /**
   * Runs `work` between BEGIN and COMMIT, at READ COMMITTED whatever the database's default: the cursor's arithmetic
   * needs a fresh snapshot per statement. Rolls back when it rejects. `preamble` is SQL without
   * parameters that runs first, in the same round trip where the driver can. When the bounds are
   * passed the connection is given up, not reused: nobody knows what it is doing.
   */
  transaction<T>(preamble: string, work: (connection: Connection) => Promise<T>, bounds: TransactionBounds): Promise<T>;
  /** The same for one statement alone, whose rows are few: in one round trip where the driver can, and not in three. */
  once(
    preamble: string,
    statement: Statement,
    values: readonly Value[],
    bounds: TransactionBounds,
  ): Promise<readonly Row[]>;
}

/** Timeouts, in milliseconds, that hold on the server's side when this process is frozen, and more settings. */
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
 * The result of `work`, unless the time or the signal ends the wait first. `why` says what else than `what` was waited
 * for, if it was.
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

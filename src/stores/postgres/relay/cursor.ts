/**
 * A place in the log. It says which messages were delivered, as a pair of snapshots. Its sequence numbers serve to find
 * late commits. The idea comes from PgQ (Skype, 2007), but it needs no ticker.
 *
 * All messages visible in `from` were delivered. While a window is open (`to` is set), some more were delivered: the
 * messages up to `after` that `to` sees and `from` does not.
 */
export interface Cursor {
  readonly from: string;
  /**
   * The end of the open window, or `null` when no window is open. It does not change while the window is read page by
   * page.
   */
  readonly to: string | null;
  /** The last sequence number delivered in the open window. */
  readonly after: number;
  /**
   * Rows above `low` are found by their sequence number. Rows at or below it are found by the transactions that `from`
   * saw running. `low` differs from `high`. A transaction at or above the xmax of `from` may have been running when
   * `from` was taken, without being listed. It may own a sequence number below the numbers that were delivered by then.
   */
  readonly low: number;
  /**
   * The value for `low` when the window closes. It is the `high` from the last update that was acknowledged before the
   * statement that took `to` was sent. That update is a transaction that completed before `to`. So every transaction
   * that `to` does not list began later, and draws sequence numbers above it.
   */
  readonly nextLow: number;
  /**
   * The largest sequence number that the cursor has certainly passed. Either its message was delivered, or the sequence
   * had given it out before a window was opened that is now delivered to its end. It also grows when no message for
   * this cursor is stored.
   */
  readonly high: number;
}

/** Returns the cursor after opening the window that ends at `to`. */
export function opened({ from, low, high }: Cursor, to: string, acknowledgedHigh: number): Cursor {
  return { from, to, after: 0, low, nextLow: acknowledgedHigh, high };
}

/** Returns the cursor after delivering the open window up to `seq`. */
export function advanced({ from, to, low, nextLow, high }: Cursor, seq: number): Cursor {
  return { from, to, after: seq, low, nextLow, high: Math.max(high, seq) };
}

/**
 * Returns the cursor after delivering the open window to its end. `passed` is the last number that the sequence had
 * given out when the window was opened, or 0 if that number is unknown.
 */
export function closed(cursor: Cursor, passed: number): Cursor {
  const { to, nextLow, high } = cursor;
  if (to === null) return cursor;
  return { from: to, to: null, after: 0, low: nextLow, nextLow, high: Math.max(high, passed) };
}

/**
 * Joins the cursors of partitions that have all delivered the same windows to the end. The result has the lowest `low`,
 * because a search for more rows by sequence number never misses a row.
 */
export function joined(cursors: readonly Cursor[]): Cursor {
  const [first] = cursors;
  if (first === undefined || cursors.some(({ from, to }) => from !== first.from || to !== null)) {
    throw new Error('cursors of different windows cannot be joined');
  }
  return {
    ...first,
    low: Math.min(...cursors.map(({ low }) => low)),
    high: Math.max(...cursors.map(({ high }) => high)),
  };
}

/** Whether two cursors are at the same place and are stored in the same way. */
export function sameCursor(a: Cursor, b: Cursor): boolean {
  return (
    a.from === b.from &&
    a.to === b.to &&
    a.after === b.after &&
    a.low === b.low &&
    a.nextLow === b.nextLow &&
    a.high === b.high
  );
}

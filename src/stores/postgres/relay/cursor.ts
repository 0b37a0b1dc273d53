/**
 * A position in the log. Its two snapshots show which messages were delivered. Its sequence numbers help to find
 * messages that were committed late. The idea comes from PgQ (Skype, 2007), but this cursor needs no ticker.
 *
 * All messages visible in `from` were delivered. While a window is open (`to` is set), the messages up to `after` that
 * are visible in `to` but not in `from` were delivered too.
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
   * Rows above `low` are found by their sequence number. Rows at or below `low` are found by the transactions that
   * `from` lists as running. `low` differs from `high` for this reason: a transaction at or above the xmax of `from`
   * may have been running when `from` was taken, although `from` does not list it. It may have a sequence number below
   * the numbers that had been delivered by then.
   */
  readonly low: number;
  /**
   * The value for `low` when the window closes. The reader opens the window with a statement that takes the snapshot
   * `to`. This is the `high` of the last cursor update that was acknowledged before the reader sent that statement. That
   * update's transaction was over before `to` was taken. So every transaction that is neither visible in `to` nor listed
   * there began later, and takes sequence numbers above this value.
   */
  readonly nextLow: number;
  /**
   * The largest sequence number that the cursor has certainly passed. Either the message with this number was
   * delivered, or the sequence had assigned the number before the opening of a window that is now delivered to its end.
   * `high` also grows while no messages for this cursor are stored.
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
 * assigned when the window was opened, or 0 if that number is unknown.
 */
export function closed(cursor: Cursor, passed: number): Cursor {
  const { to, nextLow, high } = cursor;
  if (to === null) return cursor;
  return { from: to, to: null, after: 0, low: nextLow, nextLow, high: Math.max(high, passed) };
}

/**
 * Joins the cursors of partitions that have all delivered the same windows to the end. The result has the lowest `low`.
 * This is safe, because finding more of the rows by sequence number never misses a row.
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

/** Whether all fields of two cursors are equal. */
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

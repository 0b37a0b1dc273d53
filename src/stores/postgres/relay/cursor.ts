/**
 * The cursor over the log. It says which messages were delivered, as a pair of snapshots, and has the sequence numbers
 * with which late commits are found. After PgQ (Skype, 2007), without its ticker.
 *
 * Everything visible in `from` was delivered. While a window is open (`to` is set), the messages up to `after` that
 * `to` sees and `from` does not were delivered as well.
 */
export interface Cursor {
  readonly from: string;
  /** The end of the open window, which is fixed while the window is paged; `null` when no window is open. */
  readonly to: string | null;
  /** The last sequence number delivered in the open window. */
  readonly after: number;
  /**
   * Rows above `low` are found by their sequence number; rows at or below it, by the transactions that `from` saw
   * running. `low` is not `high`, because a transaction at or above `from`'s xmax may have been running, unlisted, when
   * `from` was taken, and may own a sequence number below those delivered by then.
   */
  readonly low: number;
  /**
   * What `low` becomes when the window closes: the `high` whose update was acknowledged before the statement that took
   * `to` was sent. That update is a transaction that completed before `to`. So every transaction that `to` does not
   * list began after it, and draws sequence numbers above it.
   */
  readonly nextLow: number;
  /**
   * The largest sequence number that is known to be passed. Either it was delivered, or the sequence had given it out
   * before a window was opened that is now delivered to its end. It also moves when no message of ours is stored.
   */
  readonly high: number;
}

/** The cursor after opening the window that `to` ends. */
export function opened({ from, low, high }: Cursor, to: string, acknowledgedHigh: number): Cursor {
  return { from, to, after: 0, low, nextLow: acknowledgedHigh, high };
}

/** The cursor after delivering everything up to `seq` of the open window. */
export function advanced({ from, to, low, nextLow, high }: Cursor, seq: number): Cursor {
  return { from, to, after: seq, low, nextLow, high: Math.max(high, seq) };
}

/**
 * The cursor after delivering the open window to its end. `passed` is the last number that the sequence had given out
 * when the window was opened; 0 if that is unknown.
 */
export function closed(cursor: Cursor, passed: number): Cursor {
  const { to, nextLow, high } = cursor;
  if (to === null) return cursor;
  return { from: to, to: null, after: 0, low: nextLow, nextLow, high: Math.max(high, passed) };
}

/**
 * One cursor for partitions that have all delivered the same windows to the end. It has the lowest `low`, because
 * looking for more rows by sequence number never misses one.
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

/** Whether two cursors stand for the same place and are stored in the same way. */
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

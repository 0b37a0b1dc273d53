/**
 * The cursor over the log: which messages were delivered, as a pair of snapshots and the sequence
 * numbers that make late commits findable. After PgQ (Skype, 2007), without its ticker.
 *
 * Everything visible in `from` was delivered. While a window is open (`to` is set), of what `to` sees
 * beyond `from` everything up to `after` was delivered as well.
 */
export interface Cursor {
  readonly from: string;
  /** The end of the open window, fixed while the window is paged; `null` when none is open. */
  readonly to: string | null;
  /** The last sequence number delivered in the open window. */
  readonly after: number;
  /**
   * Rows above `low` are looked for by sequence; at or below it, by the transactions that `from` saw
   * running. Not `high`: a transaction at or above `from`'s xmax may have been running unlisted when
   * `from` was taken, and own a sequence number below what was delivered by then.
   */
  readonly low: number;
  /**
   * What `low` becomes when the window closes: the `high` whose update was acknowledged before the
   * statement that took `to` was sent. That update is a transaction, completed before `to`, so every
   * transaction that `to` does not list began after it, and draws its sequence numbers above it.
   */
  readonly nextLow: number;
  /**
   * The largest sequence number that is known to be behind: delivered, or given out by the sequence before
   * a window that is delivered to its end was opened. It moves also where nothing of ours is stored.
   */
  readonly high: number;
}

/** The cursor once the window that `to` ends is open. */
export function opened({ from, low, high }: Cursor, to: string, acknowledgedHigh: number): Cursor {
  return { from, to, after: 0, low, nextLow: acknowledgedHigh, high };
}

/** The cursor once everything up to `seq` of the open window is delivered. */
export function advanced({ from, to, low, nextLow, high }: Cursor, seq: number): Cursor {
  return { from, to, after: seq, low, nextLow, high: Math.max(high, seq) };
}

/**
 * The cursor once the open window is delivered to its end. `passed` is the last number that the sequence
 * had given out when the window was opened, 0 where that is not known.
 */
export function closed(cursor: Cursor, passed: number): Cursor {
  const { to, nextLow, high } = cursor;
  if (to === null) return cursor;
  return { from: to, to: null, after: 0, low: nextLow, nextLow, high: Math.max(high, passed) };
}

/**
 * One cursor for partitions that have all delivered the same windows to the end: the lowest `low`, since
 * looking for more rows by sequence never misses one.
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

/** Whether two cursors stand for the same place, stored in the same way. */
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

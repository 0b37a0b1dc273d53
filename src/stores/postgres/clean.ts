import { MessengerError } from '../../core/errors.js';
import { preamble, type Connection, type Database, type Statement, type TransactionBounds } from './database.js';
import { forgetAbandoned, notForgotten } from './forget.js';
import { SLICES, type Names } from './names.js';
import { INDEX_SETTINGS, statement } from './statements.js';

const LOCK_NOT_AVAILABLE = '55P03';

/** How long a slice may be kept from its readers, also when this process is frozen meanwhile. Milliseconds. */
const LONGEST_LOCK = 5_000;

/**
 * Truncates every slice of which each message is finished for every destination and older than
 * `expiration` milliseconds, by the database's clock. A slice that is in use is left for the next time.
 *
 * @returns the names of the slices that were emptied.
 * @throws MessengerError `INVALID_OPTION` for an expiration that the ring of slices is too short for.
 */
export async function cleanSlices(
  database: Database,
  names: Names,
  expiration: number,
  bounds: TransactionBounds,
): Promise<string[]> {
  const sliceSeconds = await database.transaction(
    preamble(bounds.timeout),
    async (connection) => {
      const [row] = await connection.query(
        statement('width', `SELECT value FROM ${names.settings} WHERE name = 'slice_seconds'`),
      );
      return Number(row?.[0]);
    },
    bounds,
  );
  const longest = sliceSeconds * (SLICES - 2) * 1000;
  if (expiration > longest) {
    throw new MessengerError(
      'INVALID_OPTION',
      `an expiration of ${String(expiration)} ms is longer than the ${String(longest)} ms that the tables were made for: a slice would be written again before it can be emptied. Create the store's tables with a longer \`retention\``,
    );
  }
  await forgetAbandoned(database, names, bounds);
  const emptied: string[] = [];
  for (let n = 0; n < SLICES; n++) {
    bounds.signal?.throwIfAborted();
    if (await cleanSlice(database, names, names.slice(n), expiration, bounds)) emptied.push(names.slice(n));
  }
  return emptied;
}

async function cleanSlice(
  database: Database,
  names: Names,
  slice: string,
  expiration: number,
  bounds: TransactionBounds,
): Promise<boolean> {
  /** Null for an empty slice, else whether the newest message has expired. */
  const expired = statement(
    'expired',
    `SELECT (stored_at <= clock_timestamp() - $1::double precision * interval '1 millisecond')::text FROM ${slice} ORDER BY seq DESC LIMIT 1`,
  );
  const isDone = async (connection: Connection) => {
    const [newest] = await connection.query(expired, [expiration]);
    if (newest?.[0] !== 'true') return false;
    const [open] = await connection.query(unfinished(names, slice));
    return open?.[0] === 'false';
  };
  // By the index on (xid, seq): a scan of a slice would hold its lock for seconds.
  const settings = preamble(Math.min(bounds.timeout, LONGEST_LOCK), ...INDEX_SETTINGS);
  // First without the lock, so that it is not taken, and held while this is found out, in vain.
  if (!(await database.transaction(settings, isDone, bounds))) return false;
  try {
    return await database.transaction(
      settings,
      async (connection) => {
        // Never waits: a lock that waits holds up every poll and writer behind it.
        await connection.query(statement('lock', `LOCK TABLE ONLY ${slice} IN ACCESS EXCLUSIVE MODE NOWAIT`));
        // Looked at again, in a statement after the lock: a transaction that began earlier may have
        // stored into this slice, and committed, since.
        if (!(await isDone(connection))) return false;
        await connection.query(statement('truncate', `TRUNCATE ONLY ${slice}`));
        return true;
      },
      bounds,
    );
  } catch (error) {
    if ((error as { code?: unknown }).code === LOCK_NOT_AVAILABLE) return false;
    throw error;
  }
}

/**
 * Whether any message of the slice is not yet delivered, or set aside, for some destination. Where
 * no relay ever was, everything is unfinished. A destination that was forgotten is not waited for.
 */
export function unfinished(names: Names, slice: string): Statement {
  return statement(
    'unfinished',
    `SELECT (NOT EXISTS (SELECT FROM ${names.cursors}) OR EXISTS (
  SELECT FROM (SELECT * FROM ${names.cursors} WHERE ${notForgotten(names)}) c
  CROSS JOIN LATERAL (SELECT count(*) AS partitions FROM ${names.cursors} d WHERE d.destination = c.destination) n
  WHERE EXISTS (
      SELECT FROM ${slice} m WHERE m.xid >= pg_snapshot_xmax(c.from_snapshot) AND m.key_hash % n.partitions = c.partition
        AND (c.to_snapshot IS NULL OR m.seq > c.after OR NOT pg_visible_in_snapshot(m.xid, c.to_snapshot)))
    OR EXISTS (
      SELECT FROM pg_snapshot_xip(c.from_snapshot) AS x (xid) CROSS JOIN LATERAL (
        SELECT FROM ${slice} m WHERE m.xid = x.xid AND m.key_hash % n.partitions = c.partition
          AND (c.to_snapshot IS NULL OR m.seq > c.after OR NOT pg_visible_in_snapshot(m.xid, c.to_snapshot)) LIMIT 1) late)
))::text`,
  );
}

import { LOCK_NOT_AVAILABLE } from '../sql/transact.js';
import { MessengerError } from '../../../core/errors.js';
import { CleaningError, type CleanReport, type KeptReason } from '../../../core/contracts/store.js';
import { cleaningOf, type Cleaning } from './clean-statements.js';
import { preamble, type Connection, type Database, type TransactionBounds } from '../sql/database.js';
import { storeError } from '../schema/store-error.js';
import { forgetAbandoned } from './forget.js';
import { SLICES, type Names } from '../sql/names.js';
import { assertAllIsSeen, retentionOf } from '../schema/verify.js';
import { INDEX_SETTINGS, statement } from '../sql/statement.js';

/** The longest time that cleaning can block the readers of a slice, even if this process freezes. In milliseconds. */
const LONGEST_LOCK = 5_000;

/**
 * The largest number of messages that cleaning moves from one slice to the side table. It copies them while it holds
 * the lock, within milliseconds.
 */
const MOST_STRAGGLERS = 1_000;

/** The result of cleaning one slice. */
type Outcome =
  | { readonly emptied: true; readonly rows: number; readonly moved: number }
  | { readonly emptied: false; readonly reason?: KeptReason; readonly destination?: string };

/** Whether a slice can be emptied, or the reason why it is kept. */
type Look = { readonly ready: true; readonly rows: number; readonly stragglers: number } | (Outcome & { ready: false });

/**
 * Truncates each slice whose messages are finished for every destination and older than `expiration` milliseconds, by
 * the database's clock. A slice that is in use is left for the next cleaning. If cleaning fails for one slice, the
 * others are still emptied.
 *
 * If all messages in a slice are older than the tables' retention, writers will soon write to that slice again. It
 * could then not be emptied until they have gone through all slices once more. So cleaning moves the unfinished
 * messages in such a slice to the side table, if there are no more than a thousand and no relay holds their partitions.
 * If a relay holds a partition, it may already have the messages in memory, and the messages that it reads next would
 * overtake them.
 *
 * @throws MessengerError `INVALID_OPTION` for an expiration that is longer than the tables' retention.
 * @throws CleaningError if a part of the cleaning failed, or if the signal was aborted. Its `cause` is the signal's
 *   reason or the first error. It also reports what was cleaned.
 */
export async function cleanSlices(
  database: Database,
  names: Names,
  expiration: number,
  bounds: TransactionBounds,
): Promise<CleanReport> {
  const retention = await tableRetention(database, names, bounds);
  if (expiration > retention) {
    throw new MessengerError(
      'INVALID_OPTION',
      `an expiration of ${String(expiration)} ms is longer than the ${String(retention)} ms that the tables were created for: a slice would be reused before it could be emptied. Migrate the tables to a longer \`retention\`, or clean with a shorter expiration`,
    );
  }
  const forgotten: string[] = [];
  const report = { emptied: 0, rows: 0, moved: 0, kept: [] as CleanReport['kept'][number][] };
  let failed: { readonly error: unknown } | undefined;
  try {
    for await (const name of forgetAbandoned(database, names, bounds)) forgotten.push(name);
  } catch (error) {
    failed = { error };
  }
  for (let n = 0; n < SLICES; n++) {
    let outcome: Outcome;
    try {
      bounds.signal?.throwIfAborted();
      outcome = await cleanSlice(database, cleaningOf(names, n), [expiration, retention], bounds);
    } catch (error) {
      if (bounds.signal?.aborted === true) {
        // The signal ends the cleaning, so its reason is reported even if something failed earlier.
        failed = { error };
        break;
      }
      failed ??= { error };
      // Continue with the other slices. Otherwise they would never be emptied if this slice always fails.
      continue;
    }
    if (outcome.emptied) {
      report.emptied += 1;
      report.rows += outcome.rows;
      report.moved += outcome.moved;
    } else if (outcome.reason !== undefined) {
      const { reason, destination } = outcome;
      report.kept.push({ slice: `${names.prefix}messages_${String(n)}`, reason, ...(destination && { destination }) });
    }
  }
  const done: CleanReport = { ...report, ...(forgotten.length > 0 && { forgotten }) };
  if (failed !== undefined) throw new CleaningError(done, { cause: storeError(failed.error, names) });
  return done;
}

/** Returns the longest expiration that cleaning can use for the tables, in milliseconds. */
export async function tableRetention(database: Database, names: Names, bounds: TransactionBounds): Promise<number> {
  const width = statement('width', `SELECT value FROM ${names.settings} WHERE name = 'slice_seconds'`);
  return database.transaction(
    preamble(bounds.timeout),
    async (connection) => {
      // A relay cannot read messages that a row security policy hides, and its cursor passes them without publishing
      // them. A policy on the log hides messages even if each slice, read directly, shows all its rows.
      await assertAllIsSeen(connection, names);
      const [row] = await connection.query(width);
      return retentionOf(Number(row?.[0]));
    },
    bounds,
  );
}

async function cleanSlice(
  database: Database,
  cleaning: Cleaning,
  ages: readonly [expiration: number, retention: number],
  bounds: TransactionBounds,
): Promise<Outcome> {
  // With these settings PostgreSQL uses the index on (xid, seq). A scan of the whole slice would hold the lock for
  // seconds.
  const settings = preamble(Math.min(bounds.timeout, LONGEST_LOCK), ...INDEX_SETTINGS);
  // Check without the lock first, so that cleaning locks only a slice that it can probably empty.
  const first = await database.transaction(settings, (connection) => look(connection, cleaning, ages), bounds);
  if (!first.ready) return first;
  try {
    return await database.transaction(
      settings,
      async (connection) => {
        await connection.query(cleaning.lock);
        if (first.stragglers > 0) await connection.query(cleaning.fence);
        // Check again in a statement after the lock. Since the first check, another transaction may have stored
        // messages in this slice and committed.
        const second = await look(connection, cleaning, ages);
        if (!second.ready) throw new Kept(second);
        const moved = second.stragglers > 0 ? await move(connection, cleaning, second.stragglers) : 0;
        await connection.query(cleaning.truncate);
        return { emptied: true, rows: second.rows, moved } as const;
      },
      bounds,
    );
  } catch (error) {
    if (error instanceof Kept) return error.outcome;
    if ((error as { code?: unknown }).code === LOCK_NOT_AVAILABLE) return { emptied: false, reason: 'in use' };
    throw error;
  }
}

/** Thrown to roll back a transaction when cleaning finds that it must not change the slice. */
class Kept extends Error {
  constructor(readonly outcome: Outcome) {
    super('the slice is kept');
  }
}

async function look(connection: Connection, cleaning: Cleaning, ages: readonly [number, number]): Promise<Look> {
  const [newest] = await connection.query(cleaning.newest, ages);
  if (!newest) return { ready: false, emptied: false };
  const [expired, retained, rows] = newest as readonly string[];
  if (expired !== 'true') return { ready: false, emptied: false, reason: 'not expired' };
  const mayMove = retained === 'true';
  const left = await connection.query(cleaning.unfinished, [mayMove ? MOST_STRAGGLERS + 1 : 1]);
  const stragglers = left.reduce((sum, [, , count]) => sum + Number(count), 0);
  const inTheWay = left.find(([, held]) => !mayMove || held === 'true' || stragglers > MOST_STRAGGLERS);
  if (!inTheWay) return { ready: true, rows: Number(rows), stragglers };
  const destination = inTheWay[0] as string | null;
  return { ready: false, emptied: false, reason: 'unfinished', ...(destination !== null && { destination }) };
}

/** Moves the counted messages. Moves none if the count has changed, because a relay may have taken a partition. */
async function move(connection: Connection, cleaning: Cleaning, counted: number): Promise<number> {
  const [row] = await connection.query(cleaning.move);
  if (Number(row?.[0]) !== counted) throw new Kept({ emptied: false, reason: 'in use' });
  return Number(row?.[1]);
}

import { conflict, LOCK_NOT_AVAILABLE } from '../sql/transact.js';
import { MessengerError } from '../../../core/errors.js';
import { checkKeys, numberOption, type KeysOf } from '../../../core/util/options.js';
import type { StoreCallOptions } from '../../../core/contracts/call-options.js';
import { preamble, type Connection, type Database } from '../sql/database.js';
import type { Names } from '../sql/names.js';
import { checkEnvironment, environmentOf, isAheadOfCluster, isForeign, setEnvironment } from '../schema/provenance.js';
import { howToMigrate, SCHEMA_VERSION, schemaVersion } from '../schema/verify.js';
import { cellOf, cellsIn, type Cell } from './owed.js';
import { rewriteLog, type Run } from './rewrite.js';
import { advanceSequence, largest, lastDrawn, sequenceOf } from './sequence.js';
import { statement } from '../sql/statement.js';

/** The options of `rebase`. */
export interface RebaseOptions extends StoreCallOptions {
  /** The environment to which this database belongs from now on. @default the environment that it already has */
  environment?: string;
  /**
   * How long the whole rebase can take, in milliseconds: 1 to 86,400,000. The rebase rewrites all messages that are
   * still in the log.
   * @default 3_600_000 (an hour)
   */
  timeout?: number;
}

/** The messages that one destination will publish after a rebase. */
export interface RebasedDestination {
  readonly destination: string;
  /**
   * The number of messages in the log that will be published. They were not settled when the copy was made, or were
   * stored after that. Messages that the original relays published after the copy was made are published again.
   */
  readonly undelivered: number;
  /** The smallest and the largest `seq` of these messages; `undefined` if there are none. */
  readonly first: number | undefined;
  readonly last: number | undefined;
  /**
   * The number of parked messages that will be tried again. Some of them may have been published after the copy was
   * made.
   */
  readonly parked: number;
}

/** The result of `rebase`. */
export interface RebaseResult {
  /** Whether the tables came from another cluster. If not, the rebase changed only the environment. */
  readonly moved: boolean;
  /** Empty unless `moved`. */
  readonly destinations: readonly RebasedDestination[];
  /** The environment to which the database belongs, if it has one. */
  readonly environment: string | undefined;
}

const HOUR = 3_600_000;

/** How long the rebase waits for writers to finish, in milliseconds. Later writers wait behind the rebase. */
const LONGEST_WAIT = 5_000;

/**
 * The new transaction ids for the kept messages. PostgreSQL never assigns ids below 3 to a transaction, and it uses
 * hundreds of ids above that to set up a cluster. So none of these ids will ever belong to a running transaction, and
 * each id is visible in every snapshot that does not list it. The snapshot in a cursor lists exactly the ids of the
 * messages that the cursor's destination still has to publish.
 */
const DELIVERED_EVERYWHERE = 2;
const FIRST_LABEL = 3;
/**
 * The largest number of groups. It keeps the groups' ids below the first id that a user's transaction can have (above
 * 600 in every version).
 */
const MAX_LABELS = 500;

/** Messages that the same destinations still have to publish. */
interface Group extends Omit<Cell, 'name'> {
  /** The new transaction id of the messages. */
  readonly label: number;
}

/**
 * Prepares the tables of a restored dump or a logical copy for this cluster, in one transaction. No message is lost,
 * and a rebase can be run again. If the tables do not come from another cluster, it changes only the environment.
 *
 * A message counts as undelivered if the cursors had not settled it when the copy was made. Such a message has `seq >
 * high`, or it is not visible in `from` and was not delivered in the open window. This test compares transaction ids
 * from the old cluster with snapshots from the old cluster. Then the rebase rewrites the log. Every kept message gets a
 * new transaction id, which depends on the destinations that still have to publish the message. The message keeps its
 * `seq`, so messages with the same key stay in order. Each cursor gets a snapshot of this cluster in which every
 * message is visible, except those that its destination still has to publish.
 *
 * @throws MessengerError `CONFLICT` while a relay holds a destination, or while a transaction that stored messages is
 *   open; `SCHEMA_MISMATCH` if the tables are missing, incomplete, or at an older version.
 */
export async function rebase(database: Database, names: Names, options: RebaseOptions = {}): Promise<RebaseResult> {
  checkKeys(options, { environment: true, timeout: true, signal: true } satisfies KeysOf<RebaseOptions>);
  const timeout = numberOption('timeout', options.timeout, HOUR, { min: 1, max: 24 * HOUR });
  const environment = checkEnvironment(options.environment);
  try {
    return await database.transaction(
      preamble(timeout, `SET LOCAL lock_timeout = ${String(LONGEST_WAIT)}`),
      async (connection) => {
        await lock(connection, names);
        const moved = await isMoved(connection, names);
        const destinations = moved ? await rebaseLog(connection, names) : [];
        if (environment !== undefined) await setEnvironment(connection, names, environment);
        return { moved, destinations, environment: await environmentOf(connection, names) };
      },
      { timeout, signal: options.signal },
    );
  } catch (error) {
    if ((error as { code?: unknown } | null)?.code !== LOCK_NOT_AVAILABLE) throw error;
    throw conflict(
      `a transaction that has stored messages, a prepared transaction, or one that reads messages (such as pg_dump) has been open for ${String(LONGEST_WAIT)} ms: nothing was changed. End that transaction, or stop the writers, and run the rebase again`,
      error,
    );
  }
}

/** Keeps relays and writers out until the end of the transaction. */
async function lock(connection: Connection, names: Names): Promise<void> {
  const version = await schemaVersion(connection, names);
  if (version < SCHEMA_VERSION) {
    throw new MessengerError(
      'SCHEMA_MISMATCH',
      `the schema of ${names.messages} is at version ${String(version)}, but this library needs version ${String(SCHEMA_VERSION)}: ${howToMigrate(names)}`,
    );
  }
  // This also waits for a relay that has locked its rows but not claimed them yet. A lock on the log would not, because
  // no relay locks the log for writing.
  await connection.query(statement('lock', `LOCK TABLE ${names.cursors} IN EXCLUSIVE MODE`));
  // Choose the mode before locking. A transaction that strengthens its lock later must also wait for transactions that
  // are already waiting for its first lock.
  const mode = (await isMoved(connection, names)) ? 'ACCESS EXCLUSIVE' : 'SHARE ROW EXCLUSIVE';
  await connection.query(statement('lock', `LOCK TABLE ${names.messages} IN ${mode} MODE`));
  const [held] = await connection.query(
    statement(
      'held',
      `SELECT string_agg(DISTINCT destination, ', ') FROM ${names.cursors} c
  WHERE owner IS NOT NULL AND expires_at > clock_timestamp() AND NOT (${isForeign('c')})`,
    ),
  );
  if (typeof held?.[0] !== 'string') return;
  throw conflict(
    `a relay holds a lease on destination ${held[0]}: stop every relay of this outbox first, or wait until the lease of a relay that died has expired`,
  );
}

/**
 * Returns whether anything in the tables comes from another cluster. The last condition is needed because a logical
 * copy does not include sequences.
 */
async function isMoved(connection: Connection, names: Names): Promise<boolean> {
  const [row] = await connection.query(
    statement(
      'moved',
      `SELECT (EXISTS (SELECT FROM ${names.cursors} c WHERE ${isForeign('c')}) OR ${isAheadOfCluster(names)}
    OR ${lastDrawn(await sequenceOf(connection, names))} < ${largest(names)})::text`,
    ),
  );
  return row?.[0] === 'true';
}

async function rebaseLog(connection: Connection, names: Names): Promise<RebasedDestination[]> {
  const run: Run = (text, values = []) => connection.query(statement('rebase', text), values);
  const sequence = await sequenceOf(connection, names);
  await advanceSequence(run, names, sequence);

  const partitions = await partitionsOf(run, names);
  const { cell, from } = cellOf(names, partitions);
  const groups = await rewriteLog(run, names, { mark: cell, from }, async ({ table, columns }) => {
    const cells = await cellsIn(run, names, table, partitions);
    const found = labelled(cells);
    const labels = cells.flatMap(({ name, owed }) => {
      const label = found.get(owed)?.label;
      return label === undefined ? [] : [[name, label] as const];
    });
    const kept = columns.filter((name) => name !== 'xid').join(', ');
    await run(
      `INSERT INTO ${names.messages} (xid, ${kept}) OVERRIDING SYSTEM VALUE SELECT coalesce(l.xid, '${String(DELIVERED_EVERYWHERE)}')::xid8, ${kept}
  FROM ${table} LEFT JOIN json_each_text($1::text::json) AS l (mark, xid) USING (mark)`,
      [JSON.stringify(Object.fromEntries(labels))],
    );
    return [...found.values()];
  });
  // Writers are locked out, so a transaction that is not visible in this snapshot has not taken a sequence number yet.
  const [now] = await run(`SELECT pg_current_snapshot()::text, ${lastDrawn(sequence)}::text`);
  const [snapshot, last] = now as [string, string];
  const rebased = [...partitions.keys()].map((destination, i) => {
    const own = groups.filter(({ owed }) => owed[i] === '1');
    return {
      destination,
      own,
      blind: without(
        snapshot,
        own.map(({ label }) => label),
      ),
    };
  });
  await run(
    `UPDATE ${names.cursors} c SET owner = NULL, expires_at = clock_timestamp(), epoch = epoch + 1, from_snapshot = r.blind,
    to_snapshot = NULL, after = 0, low = $2::text::bigint, next_low = $2::text::bigint, high = $2::text::bigint,
    written_by = pg_current_xact_id() FROM json_to_recordset($1::text::json) AS r (destination text, blind pg_snapshot) WHERE c.destination = r.destination`,
    [JSON.stringify(rebased.map(({ destination, blind }) => ({ destination, blind }))), last],
  );
  const parked = new Map(
    (
      await run(`SELECT destination, count(*)::text FROM ${names.parked} WHERE dead_at IS NULL GROUP BY destination`)
    ).map(([name, count]) => [name as string, Number(count)]),
  );
  return rebased.map(({ destination, own }) => ({
    destination,
    undelivered: own.reduce((sum, { count }) => sum + count, 0),
    first: own.length > 0 ? Math.min(...own.map((group) => group.first)) : undefined,
    last: own.length > 0 ? Math.max(...own.map((group) => group.last)) : undefined,
    parked: parked.get(destination) ?? 0,
  }));
}

/** Returns how many partitions each destination has. */
async function partitionsOf(run: Run, names: Names): Promise<Map<string, number>> {
  const rows = await run(
    `SELECT destination, count(*)::text, (min(partition) = 0 AND max(partition) = count(*) - 1)::text FROM ${names.cursors} GROUP BY destination ORDER BY destination`,
  );
  const broken = rows.find(([, , whole]) => whole !== 'true');
  if (broken) {
    throw new MessengerError(
      'SCHEMA_MISMATCH',
      `destination ${JSON.stringify(broken[0])} lacks some of its rows in ${names.cursors}, because they were not copied completely. Copy the tables again`,
    );
  }
  return new Map(rows.map(([name, count]) => [name as string, Number(count)]));
}

/** Groups the messages by the destinations that still have to publish them. Each group gets a new transaction id. */
function labelled(cells: readonly Cell[]): Map<string, Group> {
  const groups = new Map<string, Group>();
  for (const { owed, count, first, last } of cells) {
    if (!owed.includes('1')) continue;
    const group = groups.get(owed);
    groups.set(owed, {
      owed,
      label: group?.label ?? FIRST_LABEL + groups.size,
      count: count + (group?.count ?? 0),
      first: Math.min(first, group?.first ?? first),
      last: Math.max(last, group?.last ?? last),
    });
  }
  if (groups.size > MAX_LABELS) {
    throw new MessengerError(
      'UNSUPPORTED',
      `the destinations differ in ${String(groups.size)} ways in what they have published, which is more than ${String(MAX_LABELS)}: remove the destinations that are no longer used, and run the rebase again`,
    );
  }
  return groups;
}

/**
 * Returns this cluster's snapshot, changed so that these transaction ids are not visible in it. The ids are ascending,
 * and older than any id in the snapshot.
 */
function without(snapshot: string, labels: readonly number[]): string {
  if (labels.length === 0) return snapshot;
  const [, end, running = ''] = snapshot.split(':');
  const blind = running === '' ? labels : [...labels, running];
  return `${String(labels[0])}:${end as string}:${blind.join(',')}`;
}

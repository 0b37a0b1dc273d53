import { LOCK_NOT_AVAILABLE } from './admin.js';
import { MessengerError } from '../../core/errors.js';
import { numberOption } from '../../core/options.js';
import type { StoreCallOptions } from '../../core/call.js';
import { preamble, type Connection, type Database } from './database.js';
import { literal, type Names } from './names.js';
import { checkEnvironment, environmentOf, isAheadOfCluster, isForeign, setEnvironment } from './origin.js';
import { LONGEST_KEY } from './encode.js';
import { howToMigrate, SCHEMA_VERSION, schemaVersion } from './schema.js';
import { advanceSequence, largest, lastDrawn, sequenceOf, type Run } from './sequence.js';
import { statement } from './statements.js';

/** How `rebase` works. */
export interface RebaseOptions extends StoreCallOptions {
  /** The environment that this database belongs to from now on. @default what it says already */
  environment?: string;
  /** How long the whole may take, in milliseconds: it rewrites what is kept of the log. @default 3_600_000 (an hour) */
  timeout?: number;
}

/** What will be published at one destination after a rebase. */
export interface RebasedDestination {
  readonly destination: string;
  /**
   * Messages of the log that had not been settled when the copy was made, and those stored since. They
   * will be published; what the former relays published of them after that moment is published again.
   */
  readonly undelivered: number;
  /** The smallest and the largest `seq` of them; `undefined` where there are none. */
  readonly first: number | undefined;
  readonly last: number | undefined;
  /** Messages that were set aside and will be tried again: these may have been published since, too. */
  readonly waiting: number;
}

/** What `rebase` did. */
export interface RebaseResult {
  /** Whether the tables came from another cluster. If not, nothing was changed but the environment. */
  readonly moved: boolean;
  /** Empty unless `moved`. */
  readonly destinations: readonly RebasedDestination[];
  /** The environment that the database belongs to, if it has been given one. */
  readonly environment: string | undefined;
}

const HOUR = 3_600_000;

/** How long to wait for writers to finish: those that come later wait behind. Milliseconds. */
const LONGEST_WAIT = 5_000;

/**
 * The transaction ids that kept messages get. PostgreSQL gives those below 3 to nobody, and its own
 * set-up uses up hundreds above: so none of them will ever be running, each is visible to every snapshot
 * but for one that lists it, and a cursor lists exactly those that its destination is still to publish.
 */
const DELIVERED_EVERYWHERE = 2;
const FIRST_LABEL = 3;
/** Below the first id that a user's transaction can have (above 600 in every version). */
const MAX_LABELS = 500;

/** Messages that the same destinations are still to publish. */
interface Group {
  /** A digit per destination, in their order: 1 where it is still to publish them. */
  readonly owed: string;
  readonly count: number;
  readonly first: number;
  readonly last: number;
}

/**
 * Makes the tables of a restored dump or a logical copy this cluster's own, in one transaction: nothing is
 * lost, and it can be run again. Where the tables are this cluster's own, it changes the environment alone.
 *
 * Whatever the cursors had not settled when the copy was made is taken as undelivered: `seq > high`, or
 * not visible in `from`, but for what the open window had delivered. There the old cluster's transaction
 * ids are compared with its own snapshots. Every kept message then gets a new transaction id, by which
 * destinations are still to publish it, and keeps its `seq`, so the order of its key; and each cursor
 * becomes this cluster's snapshot, which sees all but those. It is the one thing that updates the log.
 *
 * @throws MessengerError `LEASE_LOST` while a relay works here, `TIMEOUT` while a transaction that stored
 *   messages is open, `SCHEMA_MISMATCH` for tables that are missing, older or not whole.
 */
export async function rebase(database: Database, names: Names, options: RebaseOptions = {}): Promise<RebaseResult> {
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
    throw new MessengerError(
      'TIMEOUT',
      `a transaction that has stored messages, or a prepared one, has been open for ${String(LONGEST_WAIT)} ms: nothing was changed. End it, or stop the writers, and run it again`,
      { cause: error },
    );
  }
}

/** The constraint of migration 6. */
const KEY_LENGTH = 'key_at_most_2000_bytes';

/** Keeps relays and writers out, to the end of the transaction. */
async function lock(connection: Connection, names: Names): Promise<void> {
  const version = await schemaVersion(connection, names);
  if (version < SCHEMA_VERSION) {
    throw new MessengerError(
      'SCHEMA_MISMATCH',
      `the schema of ${names.messages} is at version ${String(version)}, this library needs ${String(SCHEMA_VERSION)}: ${howToMigrate(names)}`,
    );
  }
  // Also against a relay that has locked its rows and not claimed them yet. No relay locks the log for writing.
  await connection.query(statement('lock', `LOCK TABLE ${names.cursors} IN EXCLUSIVE MODE`));
  await connection.query(statement('lock', `LOCK TABLE ${names.messages} IN SHARE ROW EXCLUSIVE MODE`));
  const [held] = await connection.query(
    statement(
      'held',
      `SELECT string_agg(DISTINCT destination, ', ') FROM ${names.cursors} c
  WHERE owner IS NOT NULL AND expires_at > clock_timestamp() AND NOT (${isForeign('c')})`,
    ),
  );
  if (typeof held?.[0] !== 'string') return;
  throw new MessengerError(
    'LEASE_LOST',
    `a relay holds the destination ${held[0]}: stop every relay of this outbox first, or wait for the lease of one that died`,
  );
}

/** Whether anything here is another cluster's. A logical copy brings no sequences along. */
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
  const destinations = [...partitions.keys()];
  const { owed, cursors, where } = owedBy(names, partitions);
  const groups = (
    await run(`SELECT owed, count(*)::text, min(seq)::text, max(seq)::text
  FROM (SELECT m.seq, ${owed} AS owed FROM ${[`${names.messages} m`, ...cursors].join(', ')} WHERE ${where}) m GROUP BY owed ORDER BY owed`)
  ).map(([digits, count, first, last]): Group => ({
    owed: digits as string,
    count: Number(count),
    first: Number(first),
    last: Number(last),
  }));
  const labels = labelsOf(groups);
  const label = `($1::text::json ->> (${owed}))::xid8`;
  // A row is checked whenever it is written: one with a key from before migration 6, also where it was published long ago.
  const [long] = await run(
    `SELECT EXISTS (SELECT FROM ${names.messages} WHERE octet_length(key) > ${String(LONGEST_KEY)})::text`,
  );
  const isUnchecked = long?.[0] === 'true';
  if (isUnchecked) await run(`ALTER TABLE ${names.messages} DROP CONSTRAINT IF EXISTS ${KEY_LENGTH}`);
  await run(
    `UPDATE ${names.messages} m SET xid = ${label} ${cursors.length > 0 ? `FROM ${cursors.join(', ')}` : ''} WHERE ${where} AND m.xid <> ${label}`,
    [JSON.stringify(Object.fromEntries(labels))],
  );
  if (isUnchecked)
    await run(
      `ALTER TABLE ${names.messages} ADD CONSTRAINT ${KEY_LENGTH} CHECK (octet_length(key) <= ${String(LONGEST_KEY)}) NOT VALID`,
    );
  // Writers are kept out: whoever is not in this snapshot has not drawn a number of the log yet.
  const [now] = await run(`SELECT pg_current_snapshot()::text, ${lastDrawn(sequence)}::text`);
  const [snapshot, last] = now as [string, string];
  const waiting = new Map(
    (
      await run(`SELECT destination, count(*)::text FROM ${names.parked} WHERE dead_at IS NULL GROUP BY destination`)
    ).map(([name, count]) => [name as string, Number(count)]),
  );
  const rebased: RebasedDestination[] = [];
  for (const [i, destination] of destinations.entries()) {
    const own = groups.filter((group) => group.owed[i] === '1');
    await run(
      `UPDATE ${names.cursors} SET owner = NULL, expires_at = clock_timestamp(), epoch = epoch + 1, from_snapshot = $2::text::pg_snapshot,
    to_snapshot = NULL, after = 0, low = $3::text::bigint, next_low = $3::text::bigint, high = $3::text::bigint,
    written_by = pg_current_xact_id() WHERE destination = $1::text`,
      [
        destination,
        without(
          snapshot,
          own.map((group) => labels.get(group.owed) as string),
        ),
        last,
      ],
    );
    rebased.push({
      destination,
      undelivered: own.reduce((sum, { count }) => sum + count, 0),
      first: own.length > 0 ? Math.min(...own.map((group) => group.first)) : undefined,
      last: own.length > 0 ? Math.max(...own.map((group) => group.last)) : undefined,
      waiting: waiting.get(destination) ?? 0,
    });
  }
  return rebased;
}

/** How many partitions each destination has. */
async function partitionsOf(run: Run, names: Names): Promise<Map<string, number>> {
  const rows = await run(
    `SELECT destination, count(*)::text, (min(partition) = 0 AND max(partition) = count(*) - 1)::text FROM ${names.cursors} GROUP BY destination ORDER BY destination`,
  );
  const broken = rows.find(([, , whole]) => whole !== 'true');
  if (broken) {
    throw new MessengerError(
      'SCHEMA_MISMATCH',
      `destination ${JSON.stringify(broken[0])} lacks some of its rows in ${names.cursors}: they were not copied as a whole. Copy the tables again`,
    );
  }
  return new Map(rows.map(([name, count]) => [name as string, Number(count)]));
}

/** The destinations that are still to publish a message `m`, as digits, and where to take their cursors from. */
function owedBy(
  names: Names,
  partitions: ReadonlyMap<string, number>,
): { owed: string; cursors: string[]; where: string } {
  const each = [...partitions].map(([destination, count], i) => ({ c: `c${String(i)}`, destination, count }));
  const digits = each.map(
    ({ c }) => `CASE WHEN m.seq <= ${c}.high AND (pg_visible_in_snapshot(m.xid, ${c}.from_snapshot)
      OR coalesce(pg_visible_in_snapshot(m.xid, ${c}.to_snapshot) AND m.seq <= ${c}.after, false)) THEN '0' ELSE '1' END`,
  );
  return {
    owed: ["''", ...digits].join(' || '),
    cursors: each.map(({ c }) => `${names.cursors} ${c}`),
    where: [
      'true',
      ...each.map(
        ({ c, destination, count }) =>
          `${c}.destination = ${literal(destination)} AND ${c}.partition = m.key_hash % ${String(count)}`,
      ),
    ].join(' AND '),
  };
}

/** The new transaction id of each group. */
function labelsOf(groups: readonly Group[]): Map<string, string> {
  let next = FIRST_LABEL;
  const labels = new Map(
    groups.map(({ owed }) => [owed, String(owed.includes('1') ? next++ : DELIVERED_EVERYWHERE)] as const),
  );
  if (next - FIRST_LABEL > MAX_LABELS) {
    throw new MessengerError(
      'UNSUPPORTED',
      `the destinations differ in ${String(next - FIRST_LABEL)} ways in what they have published, more than ${String(MAX_LABELS)}: remove those that are not used any more, and run it again`,
    );
  }
  return labels;
}

/** This cluster's snapshot, blind to these transaction ids, which are ascending and older than any in it. */
function without(snapshot: string, labels: readonly string[]): string {
  if (labels.length === 0) return snapshot;
  const [, end, running = ''] = snapshot.split(':');
  const blind = running === '' ? labels : [...labels, running];
  return `${labels[0] as string}:${end as string}:${blind.join(',')}`;
}

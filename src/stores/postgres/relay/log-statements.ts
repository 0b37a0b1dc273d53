import { columnsOf } from '../sql/columns.js';
import { literal, type Names } from '../sql/names.js';
import { fieldsUpTo, fieldsWithin, LIMITS, messageBytes, MOST_READ } from '../sql/size.js';
import { inShare, isFor, statement } from '../sql/statement.js';
import { MESSAGE, messageColumns } from '../sql/stored-message.js';

/**
 * Settings for the transaction that reads the log (`read` gives the reasons). Each setting makes a poll one percent
 * slower, so there are no more than needed. The statement asks for messages in order. If PostgreSQL cannot sort, only
 * an index gives that order.
 */
export const READ_SETTINGS = [
  'SET LOCAL enable_sort = off',
  'SET LOCAL jit = off',
  'SET LOCAL plan_cache_mode = force_generic_plan',
] as const;

/**
 * The columns of a page of the log. `size` is the size of a message whose payload was left out because it is too large.
 */
export const PAGE = columnsOf(...MESSAGE.names, 'size');

/**
 * What the first row of a page contains: `to`, whether this server is a standby, and the last number of the sequence.
 * The row has the columns of a message, and these are the columns with the three values.
 */
export const HEAD = { until: 'id', isStandby: 'topic', passed: 'key' } as const;

/** The columns that say which messages a destination publishes, and where they are read. */
export const SOURCE = columnsOf('topics', 'sequence', 'limitedAfter', 'encoding');

/** The statements that read the log. */
export function logStatements({ messages, settings, destinations }: Names, jsonPayload: boolean) {
  const sequence = `pg_get_serial_sequence(${literal(messages)}, 'seq')::regclass`;
  const sizeOf = (table: string) => messageBytes(table, jsonPayload);
  const most = `least($9::integer, ${String(MOST_READ)})`;
  /** If a message is too large for this read, or too large to read at all, only its size is returned. */
  const ofAny = PAGE.named({
    ...messageColumns('m', jsonPayload, fieldsUpTo('m', 'm.size', most)),
    size: `CASE WHEN m.size > ${most} THEN m.size::text END`,
  });
  const ofLimited = PAGE.named({
    ...messageColumns('m', jsonPayload, fieldsWithin('m', most, jsonPayload)),
    size: 'NULL',
  });
  const wanted = `${inShare('m', '$6', '$7')} AND ${isFor('m', '$10::text', '$8::text[]')}`;

  const stored = 'm.seq, m.id, m.topic, m.key, m.metadata, m.payload, m.at, m.deliver_at, m.hold_key';
  // Filters and result columns are above the scans. Below the scans, each of eight slices would set them up for itself,
  // and this would be most of the cost of a poll. OFFSET keeps them above.
  const inOrder = (where: string) =>
    `(SELECT ${stored}, m.xid, m.key_hash, m.destination FROM ${messages} m WHERE ${where} ORDER BY m.seq OFFSET 0) m`;
  /** `read` gives the reasons. */
  const lateRows = `    SELECT late.* FROM (
      SELECT xid FROM pg_snapshot_xip($1::pg_snapshot) AS listed (xid) WHERE pg_visible_in_snapshot(xid, (SELECT until FROM w))
    ) x CROSS JOIN LATERAL (
      SELECT ${stored} FROM ${inOrder('m.xid = x.xid AND m.seq > $3::bigint AND m.seq <= $4::bigint')}
      WHERE ${wanted} ORDER BY m.seq LIMIT $5::bigint
    ) late
`;
  const newRows = `    (SELECT ${stored} FROM ${inOrder('m.seq > greatest($4::bigint, $3::bigint)')}
      WHERE NOT pg_visible_in_snapshot(m.xid, $1::pg_snapshot)
        AND pg_visible_in_snapshot(m.xid, (SELECT until FROM w)) AND ${wanted}
      ORDER BY m.seq LIMIT $5::bigint)`;
  const allRows = `    (SELECT * FROM (
${lateRows}    UNION ALL
${newRows}
    ) found ORDER BY seq LIMIT $5::bigint)`;
  const head = PAGE.named({
    ...(Object.fromEntries(PAGE.names.map((name) => [name, 'NULL'])) as Record<(typeof PAGE.names)[number], string>),
    seq: `'0'`,
    [HEAD.until]: 'w.until::text',
    [HEAD.isStandby]: 'pg_is_in_recovery()::text',
    [HEAD.passed]: 'coalesce(pg_sequence_last_value($11::oid), 0)::text',
  });
  const page = (fields: string, rows: string) =>
    statement(
      'read',
      `WITH w AS MATERIALIZED (SELECT coalesce($2::pg_snapshot, pg_current_snapshot()) AS until)
SELECT ${head} FROM w
UNION ALL
SELECT ${PAGE.names.join(', ')} FROM (
  SELECT ${fields} FROM
${rows} m
) page`,
    );
  // OFFSET keeps PostgreSQL from computing the size again for each field.
  const withSize = (rows: string) => `    (SELECT found.*, ${sizeOf('found')} AS size FROM
${rows} found OFFSET 0)`;

  return {
    /**
     * One page of the log. $1 from, $2 to (null opens a window, which ends at this statement's own snapshot), $3 after,
     * $4 low, $5 limit, $6 array of partitions (null: all), $7 number of partitions, $8 array of topics (null: all), $9
     * bytes (null: as many as can be read), $10 destination, $11 the sequence (looking it up by its table takes a tenth
     * of a poll).
     *
     * A message larger than $9 comes without payload and metadata. `readAny` returns its size in the last column, and
     * `read` in the metadata column. The first row (its number is 0) has `to`, whether this server is a standby (where snapshots omit
     * running transactions), and the last value of the sequence.
     *
     * Late rows belong to transactions that `from` saw running and that have ended by `to`. (Other transactions have no
     * visible rows, so the statement does not look for them. With 500 of them, a poll would cost 32 ms instead of 0.3
     * ms.) Late rows are read per transaction, with the order and the limit inside the lateral, because a single `xid =
     * ANY (...) AND seq <= low` would scan the history. New rows are found by their sequence number. Neither part may
     * ever become a scan, even with misleading statistics or a plan from when the table was small. READ_SETTINGS ensure
     * this.
     */
    read: page(ofLimited, allRows),
    /** The same, if `from` lists no running transaction. No row can then be late, and the statement costs half as much. */
    readNew: page(ofLimited, newRows),
    /**
     * The same two statements for messages that were stored before there were limits. Each message costs half a
     * microsecond more.
     */
    readAny: page(ofAny, withSize(allRows)),
    readAnyNew: page(ofAny, withSize(newRows)),

    /**
     * $1 destination. Returns four values. The first is its topics as a JSON array, or null for all topics. The second
     * is the log's sequence. The third is the number after which every message was stored under the limits in
     * `size.ts`, or null if there are no limits. The fourth is the encoding of the database.
     */
    source: statement(
      'source',
      `SELECT ${SOURCE.list({
        topics: `(SELECT to_json(topics)::text FROM ${destinations} WHERE name = $1::text)`,
        sequence: `${sequence}::oid::text`,
        limitedAfter: `(SELECT value FROM ${settings} WHERE name = 'limited_after' AND ${String(LIMITS.length)} = (
      SELECT count(*) FROM pg_constraint WHERE conrelid = ${literal(messages)}::regclass AND conname = ANY('{${LIMITS.join(',')}}'::name[])))`,
        encoding: 'getdatabaseencoding()::text',
      })}`,
    ),
  };
}

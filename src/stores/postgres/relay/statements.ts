import { columnsOf } from '../sql/columns.js';
import { literal, type Names } from '../sql/names.js';
import { fieldsUpTo, fieldsWithin, LIMITS, messageBytes, MOST_READ, payloadBytes, type Fields } from '../sql/size.js';
import { isFor, isoTime, lockDestination, statement, untried } from '../sql/statement.js';
import { MESSAGE, messageColumns } from '../sql/stored-message.js';

/** Every statement of the relay's and the writer's side, as constant text for one store. */
export type Statements = ReturnType<typeof statementsOf>;

/**
 * Settings for the transaction that reads the log. See `read` for why. No more than needed, each costs a poll a
 * hundredth: what is read is asked for in order, and without sorting only an index gives it.
 */
export const READ_SETTINGS = [
  'SET LOCAL enable_sort = off',
  'SET LOCAL jit = off',
  'SET LOCAL plan_cache_mode = force_generic_plan',
] as const;

/** Settings for the transaction that settles: its rows are found by their place, not by reading the table. */
export const SETTLE_SETTINGS = ['SET LOCAL enable_seqscan = off'] as const;

/** With so many bytes before it a message of the side table is left for the next look. */
const MOST_AT_ONCE = 16 * 1024 * 1024;

/** What the error of a fenced update says that would have changed some of its rows, and not all. */
export const PART_OF_LEASE = 'messenger-outbox: the lease was lost in part';

/** A page of the log. `left` is the size of a message of which the payload was left out for it. */
export const PAGE = columnsOf(...MESSAGE.names, 'size');

/** What the first row of a page tells, in columns of a message: `to`, whether this server is a standby, and the last number of the sequence. */
export const HEAD = { until: 'id', isStandby: 'topic', passed: 'key' } as const;

/** What is due. */
export const DUE = columnsOf(...MESSAGE.names, 'attempts', 'uncounted', 'tooLarge');

/** What waits: how many messages of a key and a topic. */
export const WAITING = columnsOf('key', 'topic', 'count');

/** A row of the cursors: whose it is, and whether it was written here, beside the cursor itself. */
export const CURSOR_ROW = columnsOf(
  ...(['partition', 'epoch', 'owner', 'held', 'ours'] as const),
  ...(['from', 'to', 'after', 'low', 'nextLow', 'high'] as const),
);

/** Where a row of the cursors is now. */
export const PLACE = columnsOf('partition', 'place');

/** What a destination publishes, and from where. */
export const SOURCE = columnsOf('topics', 'sequence', 'limitedAfter');

/** When a destination was forgotten, and its topics. */
export const FORGOTTEN = columnsOf('at', 'topics');

export function statementsOf(names: Names, jsonPayload: boolean) {
  const { messages, cursors, claims, parked, settings, destinations, relays } = names;
  const sequence = `pg_get_serial_sequence(${literal(names.messages)}, 'seq')::regclass`;
  /**
   * Our own rows, as we last wrote them, in our epoch, since the last crash of the server. Found by
   * their place alone: an index leads through every version that a held-back vacuum has left. So the
   * destination is no condition that an index knows, and OFFSET keeps the token from becoming a join. $1 has the
   * place of partition n at n + 1: VACUUM FULL and CLUSTER move rows, and another partition of ours may
   * have come to stand there. The array is read once, in a query of its own, and not for each row.
   */
  const fence = `c.ctid = ANY($1::text::tid[]) AND c.ctid = (SELECT $1::text::tid[])[c.partition + 1]
      AND (c.destination || '') = $2::text AND c.owner = $3::text AND c.epoch = $4::bigint
      AND EXISTS (SELECT FROM ${claims} t WHERE t.destination = c.destination AND t.partition = c.partition AND t.epoch = c.epoch OFFSET 0)`;

  /** What makes most settlements change no index, and keeps the one that is a row's identity short: see migration 9. */
  const tick = `tick = (date_part('epoch', clock_timestamp()) * 20)::bigint`;
  /**
   * A fenced update of so many rows, or of none: of others it raises an error before they can be committed, since what
   * is one statement may be a transaction. PostgreSQL has no way to raise one but a cast that fails.
   */
  const whole = (count: string, set: string) => `WITH changed AS (
  UPDATE ${cursors} c SET ${set} WHERE ${fence} RETURNING c.partition, c.ctid AS place)
SELECT ${PLACE.list({ partition: 'partition::text', place: 'place::text' })}, CASE WHEN count(*) OVER () <> ${count}::integer
  THEN ('${PART_OF_LEASE}, ' || count(*) OVER () || ' of ' || ${count}::integer)::integer END::text FROM changed`;

  const cursorColumns = CURSOR_ROW.list({
    partition: 'partition::text',
    epoch: 'epoch::text',
    owner: 'owner',
    held: '(owner IS NOT NULL AND expires_at > clock_timestamp())::text',
    ours: '(xmin = written_by::xid)::text',
    from: 'from_snapshot::text',
    to: 'to_snapshot::text',
    after: 'after::text',
    low: 'low::text',
    nextLow: 'next_low::text',
    high: 'high::text',
  });
  const cursorRows = `SELECT ${cursorColumns}
  FROM ${cursors} WHERE destination = $1::text`;
  /** Of the partitions in the array `share` (null: all of them). */
  const shared = (table: string, share: string, partitions: string) =>
    `(${share}::integer[] IS NULL OR ${table}.key_hash % ${partitions}::integer = ANY(${share}::integer[]))`;

  /** What is set aside, and how: see `parked.ts`. */
  const records =
    'json_to_recordset($2::text::json) AS s (seq bigint, attempts integer, error text, reason text, "retryIn" double precision, fate text, delayed boolean)';
  const retryAt = `CASE WHEN s.fate = 'retry' THEN clock_timestamp() + s."retryIn" * interval '1 millisecond' END`;
  const deadAt = `CASE WHEN s.fate = 'dead' THEN clock_timestamp() END`;
  const blockedAt = `CASE WHEN s.fate = 'blocked' THEN clock_timestamp() END`;
  const failedAt = 'CASE WHEN s.error IS NOT NULL THEN clock_timestamp() END';
  const sizeOf = (table: string) => messageBytes(table, jsonPayload);
  /** Of what is larger than is wanted now, or than can be read, only the size is told. */
  const sized = (fields: Fields, size: string, isLarger: string) =>
    PAGE.named({
      ...messageColumns('m', jsonPayload, fields),
      size: `CASE WHEN ${isLarger} THEN (${size})::text END`,
    });
  const wantedSize = `least($9::integer, ${String(MOST_READ)})`;
  const ofAny = sized(fieldsUpTo('m', 'm.size', wantedSize), 'm.size', `m.size > ${wantedSize}`);
  const payloadSize = payloadBytes('m.payload', jsonPayload);
  const ofLimited = sized(
    fieldsWithin('m', { size: sizeOf('m'), payload: payloadSize, most: '$9::integer' }),
    sizeOf('m'),
    `${payloadSize} > $9::integer`,
  );
  /** What is read of the side table. */
  const again = `p.seq, p.id, p.topic, p.key, p.metadata, p.payload, p.at, p.deliver_at, p.hold_key, p.attempts,
      (p.alone OR ${untried}) AS uncounted, ${sizeOf('p')} AS size`;
  const wanted = `${shared('m', '$6', '$7')} AND ${isFor('m', '$10::text', '$8::text[]')}`;

  const stored = 'm.seq, m.id, m.topic, m.key, m.metadata, m.payload, m.at, m.deliver_at, m.hold_key';
  // What is asked of a message, and what is shown of it, is above the scans: below, each of eight slices would set
  // it up for itself, which is most of what a poll costs. OFFSET keeps it there.
  const inOrder = (where: string) =>
    `(SELECT ${stored}, m.xid, m.key_hash, m.destination FROM ${messages} m WHERE ${where} ORDER BY m.seq OFFSET 0) m`;
  /** See `read`. */
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
  // OFFSET keeps the size from being worked out anew for each field.
  const withSize = (rows: string) => `    (SELECT found.*, ${sizeOf('found')} AS size FROM
${rows} found OFFSET 0)`;

  return {
    /**
     * One page of the log. $1 from, $2 to (null opens a window: this statement's own snapshot), $3
     * after, $4 low, $5 limit, $6 array of partitions (null: all), $7 number of partitions, $8 array of
     * topics (null: all), $9 bytes (null: as many as can be read): of a larger message the last column, or that of
     * the metadata, tells the size, and the payload, or the metadata, are left out; $10 destination, $11 the sequence (looking it up by its table is a tenth of
     * a poll). The first row (its number is 0) tells `to`, whether this server is a standby
     * (there, snapshots omit running transactions), and the last number that the sequence gave out.
     *
     * Late rows belong to transactions that `from` saw running and that have ended by `to` (the others have
     * nothing to show, and are not looked for: 500 of them cost 32 ms a poll, 0.3 without), per transaction, the
     * order and limit inside the lateral: one `xid = ANY (...) AND seq <= low` would scan the history.
     * New rows are found by sequence. Neither must ever become a scan, whatever the statistics say and
     * however small the table was when the plan was made; hence READ_SETTINGS.
     */
    read: page(ofLimited, allRows),
    /** The same after a `from` that saw nothing running, of which no row can be late: at half of its cost. */
    readNew: page(ofLimited, newRows),
    /** The same two of messages that had no limits when they were stored: half a microsecond more for each. */
    readAny: page(ofAny, withSize(allRows)),
    readAnyNew: page(ofAny, withSize(newRows)),

    lockDestination: lockDestination(cursors),
    /** $1 destination, $2 number of partitions, which is still that of the tables. After `lockDestination`. */
    createCursors: statement(
      'cursors',
      `INSERT INTO ${cursors} (destination, partition) SELECT $1::text, generate_series(0, $2::integer - 1)
  WHERE NOT EXISTS (SELECT FROM ${cursors} WHERE destination = $1::text)
    AND EXISTS (SELECT FROM ${settings} WHERE name = 'partitions' AND value = $2::integer::text)`,
    ),
    /** $1 destination. */
    cursors: statement('look', `${cursorRows} ORDER BY partition`),
    /** $1 destination, $2 limit: partitions that nobody holds. One that another claim is looking at is left to it. */
    lockFree: statement(
      'lock',
      `${cursorRows} AND (owner IS NULL OR expires_at <= clock_timestamp()) ORDER BY partition LIMIT $2::bigint FOR UPDATE SKIP LOCKED`,
    ),
    /** $1 destination, $2 owner, $3 epoch, $4 lease in ms, $5 array of partitions, which are locked or held. */
    claim: statement(
      'claim',
      `UPDATE ${cursors} SET owner = $2::text, epoch = $3::bigint, written_by = pg_current_xact_id(), ${tick},
    expires_at = clock_timestamp() + $4::double precision * interval '1 millisecond'
  WHERE destination = $1::text AND partition = ANY($5::smallint[]) RETURNING ${PLACE.list({ partition: 'partition::text', place: 'ctid::text' })}`,
    ),
    /** $1 destination, $2 epoch, $3 array of partitions. */
    token: statement(
      'token',
      `INSERT INTO ${claims} (destination, partition, epoch) SELECT $1::text, unnest($3::smallint[]), $2::bigint
  ON CONFLICT (destination, partition) DO UPDATE SET epoch = excluded.epoch`,
    ),
    /** $1 destination, $2 array of partitions, which are held. */
    giveUp: statement(
      'give',
      `UPDATE ${cursors} SET owner = NULL, expires_at = clock_timestamp(), written_by = pg_current_xact_id()
  WHERE destination = $1::text AND partition = ANY($2::smallint[])`,
    ),
    /** $1 destination, $2 relay, $3 lease in ms: it is there. */
    join: statement(
      'join',
      `INSERT INTO ${relays} (destination, relay, expires_at)
  VALUES ($1::text, $2::text, clock_timestamp() + $3::double precision * interval '1 millisecond')
  ON CONFLICT (destination, relay) DO UPDATE SET expires_at = excluded.expires_at`,
    ),
    /** $1 destination, $2 relay: it is gone, and so is whoever has not been heard of for long. */
    leave: statement(
      'leave',
      `DELETE FROM ${relays} WHERE destination = $1::text AND (relay = $2::text OR expires_at < clock_timestamp() - interval '1 hour')`,
    ),
    /** $1 destination: the relays that are there. */
    relays: statement(
      'relays',
      `SELECT relay FROM ${relays} WHERE destination = $1::text AND expires_at > clock_timestamp() ORDER BY relay`,
    ),
    /**
     * $1 destination: its topics as a JSON array, or null for all of them; the sequence of the log; and the number after
     * which everything had the limits of `size.ts`, null where there are none.
     */
    source: statement(
      'source',
      `SELECT ${SOURCE.list({
        topics: `(SELECT to_json(topics)::text FROM ${destinations} WHERE name = $1::text)`,
        sequence: `${sequence}::oid::text`,
        limitedAfter: `(SELECT value FROM ${settings} WHERE name = 'limited_after' AND ${String(LIMITS.length)} = (
      SELECT count(*) FROM pg_constraint WHERE conrelid = ${literal(messages)}::regclass AND conname = ANY('{${LIMITS.join(',')}}'::name[])))`,
      })}`,
    ),
    /** $1 to $4 the fence, $5 how many rows, $6 lease in ms, $7 to $12 the cursor. */
    settle: statement(
      'settle',
      whole(
        '$5',
        `from_snapshot = $7::pg_snapshot, to_snapshot = $8::pg_snapshot, after = $9::bigint,
    low = $10::bigint, next_low = $11::bigint, high = $12::bigint, written_by = pg_current_xact_id(), ${tick},
    expires_at = clock_timestamp() + $6::double precision * interval '1 millisecond'`,
      ),
    ),
    /** $1 to $4 the fence, $5 how many rows, $6 lease in ms. */
    renew: statement(
      'renew',
      whole(
        '$5',
        `written_by = pg_current_xact_id(), ${tick}, expires_at = clock_timestamp() + $6::double precision * interval '1 millisecond'`,
      ),
    ),
    /** $1 to $4 the fence. The time of expiry stays to tell since when nobody works on it. */
    release: statement(
      'release',
      `UPDATE ${cursors} c SET owner = NULL, expires_at = clock_timestamp(), written_by = pg_current_xact_id()
  WHERE ${fence} RETURNING c.partition::text`,
    ),
    /** $1 destination, $2 owner, $3 epoch: the same, wherever the rows are now. */
    releaseMoved: statement(
      'moved',
      `UPDATE ${cursors} SET owner = NULL, expires_at = clock_timestamp(), written_by = pg_current_xact_id()
  WHERE destination = $1::text AND owner = $2::text AND epoch = $3::bigint`,
    ),

    /**
     * $1 destination, $2 what is set aside: copied whole from the log. One that is delayed waits alone for
     * its time, or, where it holds its key, until it is the first of that (see `promoteHeads`).
     */
    park: statement(
      'park',
      `INSERT INTO ${parked} (destination, seq, key_hash, stored_at, at, id, topic, key, metadata, payload, deliver_at, hold_key,
    alone, attempts, error, reason, next_at, dead_at, blocked_at, first_failed_at, last_failed_at)
  SELECT $1::text, m.seq, m.key_hash, m.stored_at, m.at, m.id, m.topic, m.key, m.metadata, m.payload, m.deliver_at, m.hold_key,
    a.alone, s.attempts, s.error, s.reason, CASE WHEN a.alone THEN m.deliver_at ELSE ${retryAt} END, ${deadAt}, ${blockedAt},
    ${failedAt}, ${failedAt}
  FROM ${records}
  JOIN ${messages} m ON m.seq = s.seq
  CROSS JOIN LATERAL (SELECT coalesce(s.delayed, false) AND (m.key IS NULL OR NOT m.hold_key) AS alone) a RETURNING seq::text`,
    ),
    /**
     * $1 destination, $2 JSON as for `park`: what is set aside again. One without a key that waited alone for its time waits
     * as any other from now on; one with a key stays out of its order.
     */
    parkAgain: statement(
      'again',
      `UPDATE ${parked} p SET attempts = s.attempts, error = coalesce(s.error, p.error), reason = s.reason,
    next_at = ${retryAt}, dead_at = ${deadAt}, blocked_at = ${blockedAt}, alone = p.alone AND p.key IS NOT NULL,
    first_failed_at = coalesce(p.first_failed_at, ${failedAt}), last_failed_at = coalesce(${failedAt}, p.last_failed_at)
  FROM ${records}
  WHERE p.destination = $1::text AND p.seq = s.seq AND p.dead_at IS NULL RETURNING p.seq::text`,
    ),
    /** $1 destination, $2 array of sequence numbers: published, so no longer set aside. */
    unpark: statement(
      'unpark',
      `DELETE FROM ${parked} WHERE destination = $1::text AND seq = ANY($2::text::bigint[]) RETURNING seq::text`,
    ),
    /** $1 destination, $2 JSON array of keys: the first message of each becomes due, or waits for its time, if it does not already. */
    promoteHeads: statement(
      'heads',
      `UPDATE ${parked} p SET next_at = greatest(clock_timestamp(), head.deliver_at)
  FROM json_array_elements_text($2::text::json) AS k (key) CROSS JOIN LATERAL (
    SELECT e.seq, e.next_at, e.blocked_at, e.deliver_at FROM ${parked} e
    WHERE e.destination = $1::text AND e.key BETWEEN k.key AND k.key AND e.dead_at IS NULL AND NOT e.alone
    ORDER BY e.key, e.seq LIMIT 1
  ) head
  WHERE p.destination = $1::text AND p.seq = head.seq AND head.next_at IS NULL AND head.blocked_at IS NULL`,
    ),
    /**
     * $1 destination, $2 array of partitions (null: all), $3 number of partitions: what waits in its key's
     * order, by key and topic, those that only wait for their time not counted; and nothing of nothing, where a message
     * waits for a time of its own.
     */
    waiting: statement(
      'waiting',
      `SELECT ${WAITING.list({ key: 'p.key', topic: 'p.topic', count: `(count(*) FILTER (WHERE NOT ${untried}))::text` })} FROM ${parked} p
  WHERE p.destination = $1::text AND p.dead_at IS NULL AND NOT p.alone AND ${shared('p', '$2', '$3')} GROUP BY p.key, p.topic
  UNION ALL (SELECT ${WAITING.list({ key: 'NULL', topic: 'NULL', count: `'0'` })} FROM ${parked} p WHERE p.destination = $1::text AND p.next_at IS NOT NULL AND ${shared('p', '$2', '$3')} LIMIT 1)`,
    ),
    /** $1 destination, $2 array of partitions (null: all), $3 number of partitions: a row or two if anything waits. */
    anyWaiting: statement(
      'any',
      `(SELECT 'waiting' FROM ${parked} p WHERE p.destination = $1::text AND p.next_at IS NOT NULL AND ${shared('p', '$2', '$3')} LIMIT 1)
  UNION ALL (SELECT 'waiting' FROM ${parked} p WHERE p.destination = $1::text AND p.dead_at IS NULL AND NOT p.alone AND ${shared('p', '$2', '$3')} LIMIT 1)`,
    ),
    /** $1 destination, $2 JSON array of keys: those with nothing waiting any more. */
    drainedKeys: statement(
      'drained',
      `SELECT k.key FROM json_array_elements_text($2::text::json) AS k (key)
  WHERE NOT EXISTS (SELECT FROM ${parked} p WHERE p.destination = $1::text AND p.key = k.key AND p.dead_at IS NULL AND NOT p.alone)`,
    ),
    /** $1 destination, $2 limit, $3 array of partitions (null: all), $4 number of partitions: due messages and those behind them,
     * and which of them `waiting` does not count. Of a key, only its first message decides: one behind it may have a time of its own, from when it was the first. Cut by
     * sequence: what is left out of a key is its end. BETWEEN and the order by key, since with `=` the order
     * by seq is also that of the primary key, which leads through everything that waits. */
    due: statement(
      'due',
      `WITH heads AS MATERIALIZED (
    SELECT p.seq, CASE WHEN NOT p.alone THEN p.key END AS key FROM ${parked} p
    WHERE p.destination = $1::text AND p.next_at <= (SELECT clock_timestamp()) AND ${shared('p', '$3', '$4')}
      AND (p.alone OR p.key IS NULL OR p.seq = (
        SELECT e.seq FROM ${parked} e WHERE e.destination = $1::text AND e.key BETWEEN p.key AND p.key AND e.dead_at IS NULL AND NOT e.alone
        ORDER BY e.key, e.seq LIMIT 1))
    ORDER BY p.next_at LIMIT $2::bigint)
SELECT ${DUE.list({
        ...messageColumns('m', jsonPayload, fieldsUpTo('m', 'm.size')),
        attempts: 'm.attempts::text',
        uncounted: 'm.uncounted::text',
        tooLarge: `CASE WHEN m.size > ${String(MOST_READ)} THEN m.size::text END`,
      })}
FROM (
  SELECT d.*, sum(CASE WHEN d.size <= ${String(MOST_READ)} THEN d.size END) OVER (ORDER BY d.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM (
  SELECT m.* FROM heads h CROSS JOIN LATERAL (
    SELECT ${again} FROM ${parked} p
    WHERE p.destination = $1::text AND p.seq = h.seq LIMIT 1
  ) m WHERE h.key IS NULL
  UNION ALL
  SELECT m.* FROM (SELECT DISTINCT key FROM heads WHERE key IS NOT NULL) k CROSS JOIN LATERAL (
    SELECT ${again} FROM ${parked} p
    WHERE p.destination = $1::text AND p.key BETWEEN k.key AND k.key AND p.dead_at IS NULL AND NOT p.alone
    ORDER BY p.key, p.seq LIMIT $2::bigint
  ) m
  ) d
) m WHERE coalesce(m.before, 0) <= ${String(MOST_AT_ONCE)} ORDER BY m.seq LIMIT $2::bigint`,
    ),
    /** $1 destination: when it was forgotten, if it was, and its topics. To be asked after its cursors are locked. */
    forgotten: statement(
      'forgotten',
      `SELECT ${FORGOTTEN.list({ at: isoTime('forgotten_at'), topics: 'to_json(topics)::text' })} FROM ${destinations} WHERE name = $1::text AND forgotten_at IS NOT NULL`,
    ),
    /** $1 destination: goes up with every requeue and discard. */
    revision: statement('revision', `SELECT revision::text FROM ${destinations} WHERE name = $1::text`),

    /** What the database keeps texts in, such as UTF8. */
    encoding: statement('encoding', 'SELECT getdatabaseencoding()::text'),

    settings: statement('settings', `SELECT name, value FROM ${settings}`),
  };
}

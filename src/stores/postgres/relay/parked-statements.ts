import { columnsOf } from '../sql/columns.js';
import type { Names } from '../sql/names.js';
import { fieldsUpTo, messageBytes, MOST_READ } from '../sql/size.js';
import { inShare, statement, untried } from '../sql/statement.js';
import { MESSAGE, messageColumns } from '../sql/stored-message.js';

/** About how many bytes one look reads. Messages beyond that are left for the next look. */
const MOST_AT_ONCE = 16 * 1024 * 1024;

/** The columns of the due messages. */
export const DUE = columnsOf(...MESSAGE.names, 'attempts', 'uncounted', 'tooLarge');

/** The columns of `waiting`: how many messages are waiting for each key and topic. */
export const WAITING = columnsOf('key', 'topic', 'count');

/** The statements that park messages, and the statements that find due ones. */
export function parkedStatements({ messages, parked, destinations }: Names, jsonPayload: boolean) {
  /** The messages to park, and how to park each: see `parked.ts`. */
  const records =
    'json_to_recordset($2::text::json) AS s (seq bigint, attempts integer, error text, reason text, "retryIn" double precision, fate text, delayed boolean)';
  const retryAt = `CASE WHEN s.fate = 'retry' THEN clock_timestamp() + s."retryIn" * interval '1 millisecond' END`;
  const deadAt = `CASE WHEN s.fate = 'dead' THEN clock_timestamp() END`;
  const blockedAt = `CASE WHEN s.fate = 'blocked' THEN clock_timestamp() END`;
  const failedAt = 'CASE WHEN s.error IS NOT NULL THEN clock_timestamp() END';
  /** The columns that are read from the side table. */
  const again = `p.seq, p.id, p.topic, p.key, p.metadata, p.payload, p.at, p.deliver_at, p.hold_key, p.attempts,
      (p.alone OR ${untried}) AS uncounted, ${messageBytes('p', jsonPayload)} AS size`;

  return {
    /**
     * $1 destination, $2 the messages to park. Copies whole rows from the log. A delayed message waits alone for its
     * time. If it holds its key, it first waits behind the earlier messages with the same key (see `promoteHeads`).
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
     * $1 destination, $2 the messages to park again, as JSON (see `park`). A message that waited alone for its time
     * still waits alone if it has a key. If it has none, it now waits like any other message.
     */
    parkAgain: statement(
      'again',
      `UPDATE ${parked} p SET attempts = s.attempts, error = coalesce(s.error, p.error), reason = s.reason,
    next_at = ${retryAt}, dead_at = ${deadAt}, blocked_at = ${blockedAt}, alone = p.alone AND p.key IS NOT NULL,
    first_failed_at = coalesce(p.first_failed_at, ${failedAt}), last_failed_at = coalesce(${failedAt}, p.last_failed_at)
  FROM ${records}
  WHERE p.destination = $1::text AND p.seq = s.seq AND p.dead_at IS NULL RETURNING p.seq::text`,
    ),
    /**
     * $1 destination, $2 array of sequence numbers. Deletes messages that were published.
     */
    unpark: statement(
      'unpark',
      `DELETE FROM ${parked} WHERE destination = $1::text AND seq = ANY($2::text::bigint[]) RETURNING seq::text`,
    ),
    /**
     * $1 destination, $2 JSON array of keys. Makes the first message of each key due, or lets it wait for its time.
     * Changes nothing if the message is already due or waiting for its time.
     */
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
     * $1 destination, $2 array of partitions (null: all), $3 number of partitions. Returns how many messages are
     * waiting for each key and topic. Messages that only wait for their time do not count. If any message waits alone for
     * its time, there is one more row, without key and topic, and with the count 0.
     */
    waiting: statement(
      'waiting',
      `SELECT ${WAITING.list({ key: 'p.key', topic: 'p.topic', count: `(count(*) FILTER (WHERE NOT ${untried}))::text` })} FROM ${parked} p
  WHERE p.destination = $1::text AND p.dead_at IS NULL AND NOT p.alone AND ${inShare('p', '$2', '$3')} GROUP BY p.key, p.topic
  UNION ALL (SELECT ${WAITING.list({ key: 'NULL', topic: 'NULL', count: `'0'` })} FROM ${parked} p WHERE p.destination = $1::text AND p.next_at IS NOT NULL AND ${inShare('p', '$2', '$3')} LIMIT 1)`,
    ),
    /**
     * $1 destination, $2 array of partitions (null: all), $3 number of partitions. Returns one or two rows if any
     * message waits.
     */
    anyWaiting: statement(
      'any',
      `(SELECT 'waiting' FROM ${parked} p WHERE p.destination = $1::text AND p.next_at IS NOT NULL AND ${inShare('p', '$2', '$3')} LIMIT 1)
  UNION ALL (SELECT 'waiting' FROM ${parked} p WHERE p.destination = $1::text AND p.dead_at IS NULL AND NOT p.alone AND ${inShare('p', '$2', '$3')} LIMIT 1)`,
    ),
    /** $1 destination, $2 JSON array of keys. Returns the keys for which no message waits any more. */
    drainedKeys: statement(
      'drained',
      `SELECT k.key FROM json_array_elements_text($2::text::json) AS k (key)
  WHERE NOT EXISTS (SELECT FROM ${parked} p WHERE p.destination = $1::text AND p.key = k.key AND p.dead_at IS NULL AND NOT p.alone)`,
    ),
    /**
     * $1 destination, $2 limit, $3 array of partitions (null: all), $4 number of partitions. Returns the due messages
     * and the messages behind them. One column says which of them `waiting` does not count.
     *
     * Only the first message of a key decides whether the key is due. A message behind it may have a time of its own,
     * from when it was the first. The result is cut by sequence number, so only the last messages of a key can be
     * missing from it. Keep BETWEEN and the order by key: with `=`, PostgreSQL could sort by the primary key instead, and
     * read all waiting messages.
     */
    due: statement(
      'due',
      `WITH heads AS MATERIALIZED (
    SELECT p.seq, CASE WHEN NOT p.alone THEN p.key END AS key FROM ${parked} p
    WHERE p.destination = $1::text AND p.next_at <= (SELECT clock_timestamp()) AND ${inShare('p', '$3', '$4')}
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
    /** $1 destination. Returns its revision, which grows with every requeue and discard. */
    revision: statement('revision', `SELECT revision::text FROM ${destinations} WHERE name = $1::text`),
  };
}

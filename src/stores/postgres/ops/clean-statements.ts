import { notForgotten } from './forget.js';
import type { Names } from '../sql/names.js';
import { isFor, statement } from '../sql/statement.js';

/** The statements that clean one slice of the log. Their SQL is constant. */
export type Cleaning = ReturnType<typeof cleaningOf>;

export function cleaningOf(names: Names, n: number) {
  const { cursors, destinations, parked } = names;
  const slice = names.slice(n);

  /**
   * Returns SQL for the sequence numbers of unfinished messages in this slice, up to a limit. A message in the
   * partition of cursor `c` is unfinished if it has been neither delivered nor parked.
   */
  const undelivered = (limit: string) => {
    const isLeft = `m.key_hash % n.partitions = c.partition AND ${isFor('m', 'c.destination', 't.topics')}
        AND (c.to_snapshot IS NULL OR m.seq > c.after OR NOT pg_visible_in_snapshot(m.xid, c.to_snapshot))`;
    return `SELECT seq FROM (
      SELECT m.seq FROM ${slice} m WHERE m.xid >= pg_snapshot_xmax(c.from_snapshot) AND ${isLeft}
      UNION ALL
      SELECT late.seq FROM pg_snapshot_xip(c.from_snapshot) AS x (xid) CROSS JOIN LATERAL (
        SELECT m.seq FROM ${slice} m WHERE m.xid = x.xid AND ${isLeft} LIMIT ${limit}) late
    ) unfinished LIMIT ${limit}`;
  };
  const partitions = `CROSS JOIN LATERAL (SELECT count(*) AS partitions FROM ${cursors} d WHERE d.destination = c.destination) n
  LEFT JOIN ${destinations} t ON t.name = c.destination`;
  /** Cleaning does not wait for forgotten destinations. */
  const counts = `c.${notForgotten(names)}`;
  const isHeld = 'c.owner IS NOT NULL AND c.expires_at > clock_timestamp()';

  return {
    /**
     * $1 is the expiration and $2 the retention, in ms. Returns two flags: whether the newest message in the slice is
     * older than the expiration, and whether it is older than the retention. Also returns how many sequence numbers
     * there are from the oldest message to the newest. Returns no row for an empty slice.
     */
    newest: statement(
      'newest',
      `SELECT ${[1, 2].map((i) => `(newest.stored_at <= clock_timestamp() - $${String(i)}::double precision * interval '1 millisecond')::text`).join(', ')},
    (newest.seq - oldest.seq + 1)::text
  FROM (SELECT seq, stored_at FROM ${slice} ORDER BY seq DESC LIMIT 1) newest,
    (SELECT seq FROM ${slice} ORDER BY seq LIMIT 1) oldest`,
    ),

    /**
     * $1 is the limit. Returns a row for each destination with messages that are neither delivered nor parked. The row
     * has the destination's name, whether a relay holds any of the partitions with such messages, and the number of
     * messages. The count stops at the limit in each partition. If no relay has ever run, all messages are unfinished,
     * and the row has no destination. For a cursor from another cluster (in a restored dump), all messages are also
     * unfinished, because the transaction ids in that cursor mean nothing here.
     */
    unfinished: statement(
      'unfinished',
      `SELECT c.destination, bool_or(${isHeld})::text, sum(u.messages)::text FROM ${cursors} c ${partitions}
  CROSS JOIN LATERAL (SELECT count(*) AS messages FROM (${undelivered('$1::bigint')}) l) u
  WHERE u.messages > 0 AND ${counts} GROUP BY c.destination
  UNION ALL SELECT destination, 'true', '1' FROM ${cursors} WHERE xmin <> written_by::xid
  UNION ALL SELECT NULL, 'true', '1' WHERE NOT EXISTS (SELECT FROM ${cursors})`,
    ),

    /** The statement never waits, because all polls and writers would queue behind a waiting lock. */
    lock: statement('slice', `LOCK TABLE ONLY ${slice} IN ACCESS EXCLUSIVE MODE NOWAIT`),

    /**
     * Takes every free partition that has unfinished messages in this slice, and gives it a new epoch, as if a relay
     * had taken it over. So a relay whose lease has expired can no longer settle messages in that partition. This
     * statement never waits either.
     */
    fence: statement(
      'fence',
      `WITH free AS MATERIALIZED (
    SELECT c.destination, c.partition FROM ${cursors} c ${partitions}
    WHERE NOT (${isHeld}) AND ${counts} AND c.xmin = c.written_by::xid AND EXISTS (${undelivered('1')}) FOR UPDATE OF c NOWAIT)
UPDATE ${cursors} c SET epoch = c.epoch + 1, owner = NULL, written_by = pg_current_xact_id()
  FROM free f WHERE c.destination = f.destination AND c.partition = f.partition`,
    ),

    /**
     * Parks the unfinished messages in the partitions that this transaction has fenced, as whole rows. Returns how many
     * such messages there are, and how many of them were parked. Parked messages are due at once. Of the messages with
     * the same key, only the first is due, and only if no earlier message with that key is already waiting.
     */
    move: statement(
      'move',
      `WITH strays AS MATERIALIZED (
    SELECT c.destination, u.seq FROM ${cursors} c ${partitions} CROSS JOIN LATERAL (${undelivered('ALL')}) u
    WHERE c.written_by = pg_current_xact_id()
  ), moved AS (
    INSERT INTO ${parked} (destination, seq, key_hash, stored_at, at, id, topic, key, metadata, payload, deliver_at, hold_key, alone, reason, next_at)
    SELECT s.destination, m.seq, m.key_hash, m.stored_at, m.at, m.id, m.topic, m.key, m.metadata, m.payload, m.deliver_at, m.hold_key, a.alone, 'straggler',
      CASE WHEN m.key IS NULL OR a.alone OR m.seq = min(m.seq) FILTER (WHERE NOT a.alone) OVER (PARTITION BY s.destination, m.key) AND NOT EXISTS (
        SELECT FROM ${parked} e WHERE e.destination = s.destination AND e.key = m.key AND e.dead_at IS NULL AND NOT e.alone)
      THEN greatest(clock_timestamp(), m.deliver_at) END
    FROM strays s JOIN ${slice} m ON m.seq = s.seq
    CROSS JOIN LATERAL (SELECT m.deliver_at IS NOT NULL AND m.deliver_at > clock_timestamp() AND NOT m.hold_key AS alone) a
    LEFT JOIN ${destinations} d ON d.name = s.destination
    WHERE ${isFor('m', 's.destination', 'd.topics')}
    RETURNING seq
  )
SELECT (SELECT count(*) FROM strays)::text, (SELECT count(*) FROM moved)::text`,
    ),

    truncate: statement('truncate', `TRUNCATE ONLY ${slice}`),
  };
}

import { columnsOf } from '../sql/columns.js';
import type { Value } from '../sql/database.js';
import type { Names } from '../sql/names.js';
import { arrayText, isoTime, lockDestination, statement } from '../sql/statement.js';

/** Settings for a transaction that settles. It finds its rows by their place (`ctid`), and must not scan the table. */
export const SETTLE_SETTINGS = ['SET LOCAL enable_seqscan = off'] as const;

/** The error message of a fenced update that would have changed only some of its rows. */
export const PART_OF_LEASE = 'messenger-outbox: the lease was lost in part';

/** The columns of a row in the cursors table: its owner, whether this cluster wrote it, and the cursor itself. */
export const CURSOR_ROW = columnsOf(
  ...(['partition', 'epoch', 'owner', 'held', 'ours'] as const),
  ...(['from', 'to', 'after', 'low', 'nextLow', 'high'] as const),
);

/** The columns for the current place (`ctid`) of a row in the cursors table. */
export const PLACE = columnsOf('partition', 'place');

/** The columns for a forgotten destination: the time when it was forgotten, and its topics. */
export const FORGOTTEN = columnsOf('at', 'topics');

/** The holder of a lease. A fenced statement changes only rows that this holder owns. */
export interface Holder {
  readonly destination: string;
  readonly owner: string;
  readonly epoch: string;
}

/** A place (`ctid`) where no row can be. */
const NO_PLACE = '(0,0)';

/** Returns $1 to $4 for a fenced statement: the expected place (`ctid`) of each partition's row, and the holder. */
export function fenceOf(
  { destination, owner, epoch }: Holder,
  partitions: readonly number[],
  places: ReadonlyMap<number, string>,
): Value[] {
  const at = Array.from({ length: Math.max(...partitions) + 1 }, () => NO_PLACE);
  for (const partition of partitions) at[partition] = places.get(partition) ?? NO_PLACE;
  return [arrayText(at), destination, owner, epoch];
}

/** The statements that claim a destination's cursors, and the statements that move the cursors that a relay holds. */
export function leaseStatements({ cursors, claims, settings, destinations, relays }: Names) {
  /**
   * A condition that selects our own rows, as we last wrote them in our epoch, if the server has not crashed since the
   * claim. The rows are found only by their place. An index scan would visit every row version that vacuum could not
   * remove yet. So the condition on the destination is written such that PostgreSQL cannot use an index for it, and
   * OFFSET prevents PostgreSQL from turning the check of the token into a join. $1 contains the place of partition n at
   * index n + 1. The place is compared for each partition, because VACUUM FULL and CLUSTER move rows, and the row of
   * another of our partitions can then be at that place. The subquery reads the array only once, not once for each row.
   */
  const fence = `c.ctid = ANY($1::text::tid[]) AND c.ctid = (SELECT $1::text::tid[])[c.partition + 1]
      AND (c.destination || '') = $2::text AND c.owner = $3::text AND c.epoch = $4::bigint
      AND EXISTS (SELECT FROM ${claims} t WHERE t.destination = c.destination AND t.partition = c.partition AND t.epoch = c.epoch OFFSET 0)`;

  /**
   * Sets the `tick` column. Because of this column, most settlements change no index, and the index for the replica
   * identity stays small (see migration 9).
   */
  const tick = `tick = (date_part('epoch', clock_timestamp()) * 20)::bigint`;
  /**
   * Returns a fenced update that changes exactly `count` rows, or none. If it would change any other number of rows,
   * the statement itself raises an error, because it can be the whole transaction, and would then be committed. In a
   * query, only a failing cast can raise an error.
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

  return {
    lockDestination: lockDestination(cursors),
    /**
     * $1 destination, $2 number of partitions. Inserts nothing if the tables have a different number of partitions. Run
     * it after `lockDestination`.
     */
    createCursors: statement(
      'cursors',
      `INSERT INTO ${cursors} (destination, partition) SELECT $1::text, generate_series(0, $2::integer - 1)
  WHERE NOT EXISTS (SELECT FROM ${cursors} WHERE destination = $1::text)
    AND EXISTS (SELECT FROM ${settings} WHERE name = 'partitions' AND value = $2::integer::text)`,
    ),
    /** $1 destination. */
    cursors: statement('look', `${cursorRows} ORDER BY partition`),
    /**
     * $1 destination, $2 limit. Locks and returns the partitions that no relay holds. Skips the partitions that another
     * claim has locked.
     */
    lockFree: statement(
      'lock',
      `${cursorRows} AND (owner IS NULL OR expires_at <= clock_timestamp()) ORDER BY partition LIMIT $2::bigint FOR UPDATE SKIP LOCKED`,
    ),
    /** $1 destination, $2 owner, $3 epoch, $4 lease in ms, $5 array of partitions, which must be locked or held. */
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
    /** $1 destination, $2 array of partitions, which must be held. */
    giveUp: statement(
      'give',
      `UPDATE ${cursors} SET owner = NULL, expires_at = clock_timestamp(), written_by = pg_current_xact_id()
  WHERE destination = $1::text AND partition = ANY($2::smallint[])`,
    ),
    /** $1 destination, $2 relay, $3 lease in ms. Registers the relay. */
    join: statement(
      'join',
      `INSERT INTO ${relays} (destination, relay, expires_at)
  VALUES ($1::text, $2::text, clock_timestamp() + $3::double precision * interval '1 millisecond')
  ON CONFLICT (destination, relay) DO UPDATE SET expires_at = excluded.expires_at`,
    ),
    /**
     * $1 destination, $2 relay. Removes the relay, and every relay whose registration expired more than an hour ago.
     */
    leave: statement(
      'leave',
      `DELETE FROM ${relays} WHERE destination = $1::text AND (relay = $2::text OR expires_at < clock_timestamp() - interval '1 hour')`,
    ),
    /** $1 destination. Returns the running relays. */
    relays: statement(
      'relays',
      `SELECT relay FROM ${relays} WHERE destination = $1::text AND expires_at > clock_timestamp() ORDER BY relay`,
    ),
    /** $1 to $4 the fence, $5 number of rows, $6 lease in ms, $7 to $12 the cursor. */
    settle: statement(
      'settle',
      whole(
        '$5',
        `from_snapshot = $7::pg_snapshot, to_snapshot = $8::pg_snapshot, after = $9::bigint,
    low = $10::bigint, next_low = $11::bigint, high = $12::bigint, written_by = pg_current_xact_id(), ${tick},
    expires_at = clock_timestamp() + $6::double precision * interval '1 millisecond'`,
      ),
    ),
    /** $1 to $4 the fence, $5 number of rows, $6 lease in ms. */
    renew: statement(
      'renew',
      whole(
        '$5',
        `written_by = pg_current_xact_id(), ${tick}, expires_at = clock_timestamp() + $6::double precision * interval '1 millisecond'`,
      ),
    ),
    /**
     * $1 to $4 the fence. The row keeps the time of the release in `expires_at`. It shows since when the partition has
     * had no relay.
     */
    release: statement(
      'release',
      `UPDATE ${cursors} c SET owner = NULL, expires_at = clock_timestamp(), written_by = pg_current_xact_id()
  WHERE ${fence} RETURNING c.partition::text`,
    ),
    /** $1 destination, $2 owner, $3 epoch. Does the same as `release`, even if the rows have moved. */
    releaseMoved: statement(
      'moved',
      `UPDATE ${cursors} SET owner = NULL, expires_at = clock_timestamp(), written_by = pg_current_xact_id()
  WHERE destination = $1::text AND owner = $2::text AND epoch = $3::bigint`,
    ),
    /**
     * $1 destination. Returns its topics and the time when it was forgotten, or no row if it was not. Run this after
     * its cursors have been locked.
     */
    forgotten: statement(
      'forgotten',
      `SELECT ${FORGOTTEN.list({ at: isoTime('forgotten_at'), topics: 'to_json(topics)::text' })} FROM ${destinations} WHERE name = $1::text AND forgotten_at IS NOT NULL`,
    ),
  };
}

import { columnsOf, timeOf } from '../sql/columns.js';
import type { Connection, Row } from '../sql/database.js';
import { workedUntil } from './forget.js';
import type { Names } from '../sql/names.js';
import { isFor, milliseconds, statement } from '../sql/statement.js';
import type { DestinationState } from '../../../core/contracts/admin.js';

const STATE = columnsOf<keyof DestinationState>(
  'name',
  'topics',
  'partitions',
  'held',
  'relays',
  'pending',
  'morePending',
  'oldestPending',
  'parked',
  'blocked',
  'dead',
  'createdAt',
  'activeAt',
  'stalledSince',
  'forgetAfter',
  'forgottenAt',
);

/** The limit of every count in a state. Counting stops there. */
export const COUNTED = 10_000;

/** How many rows after the cursor's position are searched for the oldest pending message. */
const LOOKED_AT = 1_000;

/**
 * These settings make PostgreSQL use indexes, even if its statistics suggest otherwise. Hash joins remain allowed, for
 * the newest messages.
 */
export const STATE_SETTINGS = [
  'SET LOCAL enable_seqscan = off',
  'SET LOCAL enable_bitmapscan = off',
  'SET LOCAL enable_sort = off',
  'SET LOCAL jit = off',
] as const;

/** Returns the states of all destinations, or of the named destination. */
export async function destinationStates(
  names: Names,
  connection: Connection,
  name: string | null = null,
): Promise<DestinationState[]> {
  return (await connection.query(states(names), [name])).map(decode);
}

/**
 * $1 is a destination, or null for all destinations. The statement counts the pending messages among the newest
 * messages in the log, and among the messages from transactions that were still running in the cursors' snapshots. It
 * reads the newest messages once for all destinations, from the end of the log. It processes cursors with the same
 * position only once. It does not compare messages individually if they are too new for a cursor's snapshot (`unseen`
 * and later). Instead, it finds them in the sorted transaction ids for each partition and topic. If the oldest of the
 * newest messages is pending too, there are more pending messages than it counted. The oldest pending message is then
 * at the cursor's own position or shortly after it.
 */
export function states(names: Names) {
  const { messages, cursors, relays, parked, destinations, settings } = names;
  const pending = (m: string, c: string) => `NOT pg_visible_in_snapshot(${m}.xid, ${c}.from_snapshot)
      AND (${c}.to_snapshot IS NULL OR ${m}.seq > ${c}.after OR NOT pg_visible_in_snapshot(${m}.xid, ${c}.to_snapshot))`;
  const wanted = (m: string, c: string) => isFor(m, `${c}.destination`, `${c}.topics`);
  const partition = (m: string) => `${m}.key_hash % (SELECT value::integer FROM ${settings} WHERE name = 'partitions')`;
  const looked = 'm.seq, m.xid, m.key_hash, m.topic, m.destination, m.stored_at';
  const counted = (what: string) => `(SELECT count(*) FROM (${what} LIMIT ${String(COUNTED)}) n)`;
  const of = `SELECT FROM ${parked} p WHERE p.destination = d.name AND`;
  const forOperator = `${of} (p.dead_at IS NOT NULL OR p.blocked_at IS NOT NULL) AND`;
  const columns = STATE.list({
    name: 'd.name',
    topics: 'to_json(e.topics)::text',
    partitions: 'd.partitions::text',
    held: 'd.held::text',
    relays: 'greatest(d.relays, d.owners)::text',
    pending: `least(coalesce(l.pending, 0), ${String(COUNTED)})::text`,
    morePending: '(m.name IS NOT NULL)::text',
    oldestPending: milliseconds('clock_timestamp() - l.oldest'),
    parked: `${counted(`${of} p.dead_at IS NULL`)}::text`,
    blocked: `${counted(`${forOperator} p.dead_at IS NULL`)}::text`,
    dead: `${counted(`${forOperator} p.dead_at IS NOT NULL`)}::text`,
    createdAt: milliseconds('e.created_at'),
    activeAt: milliseconds(
      'CASE WHEN d.worked_until < clock_timestamp() THEN d.worked_until WHEN d.worked_until IS NOT NULL THEN clock_timestamp() END',
    ),
    stalledSince: milliseconds(
      'CASE WHEN e.forgotten_at IS NULL AND (l.pending > 0 OR m.name IS NOT NULL) AND d.held = 0 AND d.relays = 0 THEN greatest(d.worked_until, e.created_at) END',
    ),
    forgetAfter: '(e.forget_after * 1000)::numeric::text',
    forgottenAt: milliseconds('e.forgotten_at'),
  });
  return statement(
    'states',
    `WITH raw AS MATERIALIZED (
  SELECT c.destination, c.partition, c.owner, c.expires_at, d.topics, c.from_snapshot::text AS began, coalesce(c.to_snapshot::text, '') AS ends,
    c.after, CASE WHEN c.to_snapshot IS NULL THEN c.high ELSE c.after END AS place
  FROM ${cursors} c LEFT JOIN ${destinations} d ON d.name = c.destination WHERE $1::text IS NULL OR c.destination = $1::text
), place AS MATERIALIZED (
  SELECT *, pg_snapshot_xmax(coalesce(to_snapshot, from_snapshot))::text::bigint AS unseen FROM (
    SELECT row_number() OVER () AS id, *, began::pg_snapshot AS from_snapshot, nullif(ends, '')::pg_snapshot AS to_snapshot
    FROM (SELECT DISTINCT began, ends, after, place FROM raw) alike) p
), cursor AS MATERIALIZED (
  SELECT r.destination, r.partition, r.owner, r.expires_at, r.topics, p.id, p.unseen FROM raw r JOIN place p USING (began, ends, after, place)
), newest AS MATERIALIZED (
  SELECT ${looked}, m.xid::text::bigint AS number, ${partition('m')} AS partition FROM ${messages} m ORDER BY m.seq DESC LIMIT ${String(COUNTED)}
), oldest AS MATERIALIZED (
  SELECT * FROM newest ORDER BY seq LIMIT 1
), more AS MATERIALIZED (
  SELECT c.* FROM place c, oldest m WHERE (SELECT count(*) FROM newest) = ${String(COUNTED)} AND ${pending('m', 'c')}
), lane AS MATERIALIZED (
  SELECT partition, kind, value, array_agg(number ORDER BY number) AS numbers, array_agg(since ORDER BY number) AS since FROM (
    SELECT n.partition, l.kind, l.value, n.number, min(n.stored_at) OVER (PARTITION BY n.partition, l.kind, l.value ORDER BY n.number DESC) AS since
    FROM newest n CROSS JOIN LATERAL (VALUES ('for', n.destination), ('all', CASE WHEN n.destination IS NULL THEN '' END),
      ('topic', CASE WHEN n.destination IS NULL THEN n.topic END)) AS l (kind, value) WHERE l.value IS NOT NULL) n
  GROUP BY 1, 2, 3
), wants AS MATERIALIZED (
  SELECT c.destination, c.partition, c.unseen, l.kind, l.value FROM cursor c CROSS JOIN LATERAL (
    SELECT 'for' AS kind, c.destination AS value UNION ALL SELECT 'all', '' WHERE c.topics IS NULL UNION SELECT 'topic', t FROM unnest(c.topics) t) l
), other AS MATERIALIZED (
  SELECT id, partition, topic, destination, counts, count(*) AS messages, min(stored_at) AS stored_at FROM (
    SELECT c.id, m.partition, m.topic, m.destination, m.stored_at, true AS counts
      FROM (SELECT id, from_snapshot, xid FROM place CROSS JOIN LATERAL pg_snapshot_xip(coalesce(to_snapshot, from_snapshot)) AS x (xid)) c
      JOIN newest m ON m.number = c.xid::text::bigint WHERE NOT pg_visible_in_snapshot(m.xid, c.from_snapshot)
    UNION ALL
    SELECT c.id, m.partition, m.topic, m.destination, m.stored_at, true FROM place c JOIN newest m ON m.seq > c.after AND m.number < c.unseen
      WHERE c.to_snapshot IS NOT NULL AND NOT pg_visible_in_snapshot(m.xid, c.from_snapshot) AND pg_visible_in_snapshot(m.xid, c.to_snapshot)
    UNION ALL
    SELECT c.id, ${partition('m')}, m.topic, m.destination, m.stored_at, true FROM place c
      CROSS JOIN LATERAL (SELECT pg_snapshot_xip(c.from_snapshot) UNION SELECT pg_snapshot_xip(c.to_snapshot)) AS x (xid)
      CROSS JOIN LATERAL (SELECT ${looked} FROM ${messages} m WHERE m.xid = x.xid AND m.seq < (SELECT seq FROM oldest) LIMIT ${String(LOOKED_AT)}) m
      WHERE ${pending('m', 'c')}
    UNION ALL
    SELECT c.id, ${partition('m')}, m.topic, m.destination, m.stored_at, false FROM more c
      CROSS JOIN LATERAL (SELECT ${looked} FROM ${messages} m WHERE m.seq > c.place ORDER BY m.seq LIMIT ${String(LOOKED_AT)}) m
      WHERE ${pending('m', 'c')}
  ) m GROUP BY 1, 2, 3, 4, 5
), lag AS MATERIALIZED (
  SELECT destination, sum(messages) FILTER (WHERE counts) AS pending, min(stored_at) AS oldest FROM (
    SELECT w.destination, cardinality(l.numbers) - n AS messages, l.since[n + 1] AS stored_at, true AS counts
      FROM wants w JOIN lane l USING (partition, kind, value) CROSS JOIN LATERAL width_bucket(w.unseen - 1, l.numbers) AS n WHERE n < cardinality(l.numbers)
    UNION ALL
    SELECT c.destination, m.messages, m.stored_at, m.counts FROM cursor c JOIN other m ON m.id = c.id AND m.partition = c.partition
      WHERE ${wanted('m', 'c')}
  ) found GROUP BY destination
), known AS MATERIALIZED (
  SELECT c.destination AS name, count(*) AS partitions, count(*) FILTER (WHERE c.owner IS NOT NULL AND c.expires_at > clock_timestamp()) AS held,
    count(DISTINCT c.owner) FILTER (WHERE c.expires_at > clock_timestamp()) AS owners, nullif(${workedUntil(names, 'c.destination')}, '-infinity') AS worked_until,
    (SELECT count(*) FROM ${relays} r WHERE r.destination = c.destination AND r.expires_at > clock_timestamp()) AS relays
  FROM cursor c GROUP BY c.destination
)
SELECT ${columns}
FROM known d LEFT JOIN ${destinations} e ON e.name = d.name LEFT JOIN lag l ON l.destination = d.name
  LEFT JOIN (SELECT DISTINCT c.destination AS name FROM more JOIN cursor c USING (id)) m ON m.name = d.name
ORDER BY d.name`,
  );
}

function decode(row: Row): DestinationState {
  const { at } = STATE;
  const topics = row[at.topics] as string | null;
  const numberOrNull = (value: Row[number]) => (value === null ? null : Number(value));
  return {
    name: row[at.name] as string,
    topics: topics === null ? null : (JSON.parse(topics) as string[]),
    partitions: Number(row[at.partitions]),
    held: Number(row[at.held]),
    relays: Number(row[at.relays]),
    pending: Number(row[at.pending]),
    morePending: row[at.morePending] === 'true',
    oldestPending: numberOrNull(row[at.oldestPending]),
    parked: Number(row[at.parked]),
    blocked: Number(row[at.blocked]),
    dead: Number(row[at.dead]),
    createdAt: timeOf(row[at.createdAt]),
    activeAt: timeOf(row[at.activeAt]),
    stalledSince: timeOf(row[at.stalledSince]),
    forgetAfter: numberOrNull(row[at.forgetAfter]),
    forgottenAt: timeOf(row[at.forgottenAt]),
  };
}

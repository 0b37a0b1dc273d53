/**
 * What a store of schema version 1 runs, as it was written then: text that never changes. A writer and a
 * relay of that version go on while, and after, the tables are brought to a newer one.
 */
import type pg from 'pg';

const STORE = `INSERT INTO messenger.messages (id, topic, key, metadata, payload, at)
  SELECT m.id, m.topic, m.key, m.metadata, decode(m.payload, 'base64'), m.at
  FROM json_to_recordset($1::text::json) AS m (id text, topic text, key text, metadata jsonb, payload text, at timestamptz)`;

const CURSORS = `SELECT epoch::text, owner, (expires_at > clock_timestamp())::text, (xmin = written_by::xid)::text, from_snapshot::text, to_snapshot::text, after::text, low::text, next_low::text, high::text
  FROM messenger.cursors WHERE destination = $1::text ORDER BY partition`;

const CREATE_CURSORS = `INSERT INTO messenger.cursors (destination, partition) SELECT $1::text, generate_series(0, $2::integer - 1) ON CONFLICT DO NOTHING`;

const CLAIM = `UPDATE messenger.cursors SET owner = $2::text, epoch = $3::bigint, written_by = pg_current_xact_id(),
    expires_at = clock_timestamp() + $4::double precision * interval '1 millisecond'
  WHERE destination = $1::text RETURNING ctid::text`;

const TOKEN = `INSERT INTO messenger.claims (destination, partition, epoch) SELECT destination, partition, epoch FROM messenger.cursors WHERE destination = $1::text AND epoch = $2::bigint
  ON CONFLICT (destination, partition) DO UPDATE SET epoch = excluded.epoch`;

const READ = `WITH w AS MATERIALIZED (SELECT coalesce($2::pg_snapshot, pg_current_snapshot()) AS until)
SELECT '0' AS seq_text, w.until::text AS id FROM w
UNION ALL
SELECT seq_text, id FROM (
  SELECT * FROM (
    SELECT late.* FROM pg_snapshot_xip($1::pg_snapshot) AS x (xid) CROSS JOIN LATERAL (
      SELECT m.seq, m.seq::text AS seq_text, m.id FROM messenger.messages m
      WHERE m.xid = x.xid AND m.seq > $3::bigint AND m.seq <= $4::bigint
        AND pg_visible_in_snapshot(m.xid, (SELECT until FROM w))
      ORDER BY m.seq LIMIT $5::bigint
    ) late
    UNION ALL
    (SELECT m.seq, m.seq::text AS seq_text, m.id FROM messenger.messages m
      WHERE m.seq > greatest($4::bigint, $3::bigint)
        AND NOT pg_visible_in_snapshot(m.xid, $1::pg_snapshot)
        AND pg_visible_in_snapshot(m.xid, (SELECT until FROM w))
      ORDER BY m.seq LIMIT $5::bigint)
  ) found ORDER BY seq LIMIT $5::bigint
) page`;

const FENCE = `c.ctid = ANY($1::text::tid[]) AND (c.destination || '') = $2::text AND c.owner = $3::text AND c.epoch = $4::bigint
      AND EXISTS (SELECT FROM messenger.claims t WHERE t.destination = c.destination AND t.partition = c.partition AND t.epoch = c.epoch OFFSET 0)`;

const SETTLE = `UPDATE messenger.cursors c SET from_snapshot = $6::pg_snapshot, to_snapshot = $7::pg_snapshot, after = $8::bigint,
    low = $9::bigint, next_low = $10::bigint, high = $11::bigint, written_by = pg_current_xact_id(),
    expires_at = clock_timestamp() + $5::double precision * interval '1 millisecond'
  WHERE ${FENCE} RETURNING c.ctid::text`;

const RELEASE = `UPDATE messenger.cursors c SET owner = NULL, expires_at = '-infinity', written_by = pg_current_xact_id() WHERE ${FENCE}`;

const PARK = `INSERT INTO messenger.parked (destination, seq, key_hash, stored_at, at, id, topic, key, metadata, payload, attempts, error, next_at, dead_at)
  SELECT $1::text, m.seq, m.key_hash, m.stored_at, m.at, m.id, m.topic, m.key, m.metadata, m.payload, s.attempts, s.error,
    CASE WHEN NOT s.dead THEN clock_timestamp() + s."retryIn" * interval '1 millisecond' END,
    CASE WHEN s.dead THEN clock_timestamp() END
  FROM json_to_recordset($2::text::json) AS s (seq bigint, attempts integer, error text, "retryIn" double precision, dead boolean)
  JOIN messenger.messages m ON m.seq = s.seq RETURNING seq::text`;

type Values = readonly (string | number | null)[];

async function rowsOf(client: pg.Client, text: string, values: Values): Promise<(string | null)[][]> {
  const { rows } = await client.query<(string | null)[]>({ text, values: [...values], rowMode: 'array' });
  return rows;
}

/** As `store.add` did. */
export async function add(client: pg.Client, ...messages: readonly { id: string; key: string }[]): Promise<void> {
  const at = new Date().toISOString();
  const payload = Buffer.from('x').toString('base64');
  await rowsOf(client, STORE, [JSON.stringify(messages.map((each) => ({ ...each, metadata: {}, payload, at })))]);
}

/** A relay that claims, publishes one window by pages, parks what it is told to, and releases. */
export async function relay(
  client: pg.Client,
  destination: string,
  { partitions, pageSize, refused }: { partitions: number; pageSize: number; refused?: string },
): Promise<string[]> {
  const owner = `version 1 of ${destination}`;
  await client.query('BEGIN');
  if ((await rowsOf(client, CURSORS, [destination])).length === 0)
    await rowsOf(client, CREATE_CURSORS, [destination, partitions]);
  const rows = await rowsOf(client, `${CURSORS} FOR UPDATE`, [destination]);
  if (
    rows.length !== partitions ||
    rows.some(([, held, live, own]) => (held !== null && live === 'true') || own !== 'true')
  )
    throw new Error('version 1 would not claim these cursors');
  if (rows.some((row) => row.slice(4).join() !== rows[0]!.slice(4).join())) throw new Error('cursors differ');
  const epoch = Math.max(...rows.map(([each]) => Number(each))) + 1;
  let ctids = await rowsOf(client, CLAIM, [destination, owner, epoch, 60_000]);
  await rowsOf(client, TOKEN, [destination, epoch]);
  await client.query('COMMIT');
  const fence = () => [`{${ctids.map(([ctid]) => `"${String(ctid)}"`).join(',')}}`, destination, owner, epoch];

  let [from, to, after, low, nextLow, high] = rows[0]!.slice(4) as [
    string,
    string | null,
    string,
    string,
    string,
    string,
  ];
  const published: string[] = [];
  for (let last = false; !last;) {
    const acknowledgedHigh = high;
    const page = await rowsOf(client, READ, [from, to, after, low, pageSize]);
    const until = page.find(([seq]) => seq === '0')![1]!;
    const messages = page.filter(([seq]) => seq !== '0').sort((a, b) => Number(a[0]) - Number(b[0]));
    if (to === null) [to, after, nextLow] = [until, '0', acknowledgedHigh];
    for (const [seq] of messages) [after, high] = [seq!, String(Math.max(Number(high), Number(seq)))];
    last = messages.length < pageSize;
    if (last) [from, to, after, low] = [to, null, '0', nextLow];
    await client.query('BEGIN');
    ctids = await rowsOf(client, SETTLE, [...fence(), 60_000, from, to, after, low, nextLow, high]);
    if (ctids.length !== partitions) throw new Error('version 1 would have lost its lease');
    const failed = messages.filter(([, id]) => id === refused);
    const records = failed.map(([seq]) => ({ seq, attempts: 1, error: 'refused', retryIn: 0, dead: false }));
    const parked = await rowsOf(client, PARK, [destination, JSON.stringify(records)]);
    if (parked.length !== failed.length) throw new Error('version 1 would not have parked these');
    await client.query('COMMIT');
    published.push(...messages.flatMap(([, id]) => (id === refused ? [] : [id!])));
  }
  await rowsOf(client, RELEASE, fence());
  return published;
}

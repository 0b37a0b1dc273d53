import pg from 'pg';
import type { Committed } from './judge.js';

export async function openDatabase(option: string, connectionString: string | undefined): Promise<pg.Client> {
  if (connectionString === undefined) throw new Error(`${option} is missing: a connection string`);
  const client = new pg.Client({ connectionString, connectionTimeoutMillis: 10_000 });
  await client.connect();
  return client;
}

/** The verifier's own database. `sequence` is the broker's number, which FIFO queues have. */
export async function openRecords(option: string, connectionString: string | undefined): Promise<pg.Client> {
  const client = await openDatabase(option, connectionString);
  await client.query(`
    CREATE TABLE IF NOT EXISTS arrivals (
      n bigint GENERATED ALWAYS AS IDENTITY,
      message_id text NOT NULL,
      sequence numeric
    )`);
  return client;
}

/** Orders whose transaction committed. Their numbers were given under a lock that is held until the commit. */
export async function committed(shop: pg.Client): Promise<Committed[]> {
  const { rows } = await shop.query<Committed>(
    'SELECT message_id AS id, customer AS key, number AS place FROM orders ORDER BY customer, number',
  );
  return rows;
}

/** The log, and how much of it the cursors have passed and the side table does not hold. */
export async function stored(shop: pg.Client): Promise<{ log: string[]; published: number }> {
  const { rows } = await shop.query<{ id: string; published: boolean }>(`
    SELECT m.id, p.seq IS NULL AND c.partition IS NOT NULL AND (
      pg_visible_in_snapshot(m.xid, c.from_snapshot)
      OR (c.to_snapshot IS NOT NULL AND pg_visible_in_snapshot(m.xid, c.to_snapshot) AND m.seq <= c.after)
    ) AS published
    FROM messenger.messages m
    LEFT JOIN messenger.cursors c ON c.destination = 'default'
      AND c.partition = m.key_hash % (SELECT value::integer FROM messenger.settings WHERE name = 'partitions')
    LEFT JOIN messenger.parked p ON p.destination = 'default' AND p.seq = m.seq`);
  return { log: rows.map(({ id }) => id), published: rows.filter(({ published }) => published).length };
}

/** In the order of the broker where it numbers messages, else in the order of arrival. */
export async function arrivals(database: pg.Client): Promise<string[]> {
  const { rows } = await database.query<{ message_id: string; sequence?: string | null; n: string }>(
    'SELECT * FROM arrivals ORDER BY n',
  );
  const place = ({ sequence, n }: { sequence?: string | null; n: string }) => BigInt(sequence ?? n);
  return rows.sort((a, b) => (place(a) < place(b) ? -1 : 1)).map(({ message_id }) => message_id);
}

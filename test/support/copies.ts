import pg from 'pg';
import { namesOf, type Names } from '../../src/stores/postgres/sql/names.js';

/** Uses transaction ids of a cluster up, so that it is ahead of another. */
export async function useUpTransactionIds(url: string, count: number): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(
      `DO $$ BEGIN FOR i IN 1..${String(count)} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$`,
    );
  } finally {
    await client.end();
  }
}

/**
 * Copies every row of an outbox into the empty tables of another, as of one snapshot: what a restored dump
 * or a logical copy does, without the tools for it. A dump brings the sequence along, a logical copy does not.
 */
export async function copyLogically(
  from: pg.Client,
  to: pg.Client | pg.Pool,
  { schema = 'messenger', sequence }: { schema?: string; sequence: boolean },
): Promise<void> {
  const names = namesOf(schema, '');
  const tables = ['messages', 'cursors', 'claims', 'parked', 'settings', 'destinations'] satisfies (keyof Names)[];
  await from.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  for (const table of tables) {
    const name = names[table];
    const columns = await columnsOf(from, name);
    const { rows } = await from.query<{ data: string | null }>(`SELECT json_agg(t)::text AS data FROM ${name} t`);
    await to.query(`DELETE FROM ${name}`);
    await to.query(
      `INSERT INTO ${name} (${columns}) OVERRIDING SYSTEM VALUE SELECT ${columns} FROM json_populate_recordset(NULL::${name}, $1::json)`,
      [rows[0]!.data ?? '[]'],
    );
  }
  await from.query('COMMIT');
  if (!sequence) return;
  const name = `pg_get_serial_sequence('${names.messages}', 'seq')`;
  const { rows } = await from.query<{ last: string | null }>(`SELECT pg_sequence_last_value(${name}) AS last`);
  if (rows[0]!.last !== null) await to.query(`SELECT setval(${name}, $1)`, [rows[0]!.last]);
}

async function columnsOf(client: pg.Client, table: string): Promise<string> {
  const { rows } = await client.query<{ columns: string }>(
    `SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns FROM pg_attribute
      WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''`,
    [table],
  );
  return rows[0]!.columns;
}

import type pg from 'pg';
import { median, row, type Row } from './report.js';
import { benchMessage, type Bench } from './setup.js';

const ROUNDS = 5;
const WRITERS = 4;

/** The same insert into a plain table with one index. */
const PLAIN_TABLE = `CREATE TABLE bench_plain_insert (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL, id text NOT NULL,
  topic text, key text, metadata jsonb NOT NULL, payload bytea NOT NULL,
  deliver_at timestamptz,
  hold_key boolean NOT NULL DEFAULT false
)`;

type Store = (client: pg.PoolClient, i: number) => Promise<unknown>;

/** One message per transaction: transactions per second and WAL bytes per message, beside a plain table. */
export async function storing(bench: Bench): Promise<Row[]> {
  const { pool, store } = await bench.log();
  const transactions = Math.min(bench.messages / 20, 20_000);
  await pool.query(PLAIN_TABLE);
  const outbox: Store = (client, i) => store.add(client, benchMessage(i));
  const plain: Store = (client, i) => {
    const { at, id, topic, key, metadata, payload } = benchMessage(i);
    const text =
      'INSERT INTO bench_plain_insert (at, id, topic, key, metadata, payload) VALUES ($1, $2, $3, $4, $5, $6)';
    return client.query(text, [at, id, topic, key, metadata, payload]);
  };
  const figures = {
    outbox: { tps: [] as number[], wal: [] as number[] },
    plain: { tps: [] as number[], wal: [] as number[] },
  };
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, write] of [
      ['plain', plain],
      ['outbox', outbox],
    ] as const) {
      const { tps, wal } = await run(pool, write, transactions);
      figures[name].tps.push(tps);
      figures[name].wal.push(wal);
    }
  }
  return [
    row('store/tps', median(figures.outbox.tps), 'transactions/s', median(figures.plain.tps)),
    row('store/wal-bytes', median(figures.outbox.wal), 'bytes/message', median(figures.plain.wal)),
  ];
}

async function run(pool: pg.Pool, write: Store, transactions: number): Promise<{ tps: number; wal: number }> {
  // Full page images after a checkpoint would be charged to whoever comes first.
  await pool.query('CHECKPOINT');
  await Promise.all(Array.from({ length: WRITERS }, (_, writer) => writes(pool, write, writer, transactions / 10)));
  const before = await position(pool);
  const start = performance.now();
  await Promise.all(Array.from({ length: WRITERS }, (_, writer) => writes(pool, write, writer, transactions)));
  const seconds = (performance.now() - start) / 1000;
  const wal = Number((await position(pool)) - before);
  const total = Math.ceil(transactions / WRITERS) * WRITERS;
  return { tps: total / seconds, wal: wal / total };
}

async function writes(pool: pg.Pool, write: Store, writer: number, transactions: number): Promise<void> {
  const client = await pool.connect();
  try {
    for (let i = 0; i < Math.ceil(transactions / WRITERS); i++) {
      await client.query('BEGIN');
      await write(client, i * WRITERS + writer);
      await client.query('COMMIT');
    }
  } finally {
    client.release();
  }
}

async function position(pool: pg.Pool): Promise<bigint> {
  const { rows } = await pool.query<{ at: string }>(
    `SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::text AS at`,
  );
  return BigInt(rows[0]?.at ?? 0);
}

import type pg from 'pg';
import { MESSAGE, StoredMessage } from '../src/stores/postgres/sql/stored-message.js';
import { median, row, type Row } from './report.js';
import { relay, type Bench, type Outbox } from './setup.js';

const ROUNDS = 5;
const PAGES = [1000, 100];

/** The bare keyset read: what any reader of these rows costs at least, on this machine, now. */
const KEYSET = {
  name: 'bench_keyset',
  text: `SELECT ${MESSAGE.list({
    seq: 'seq::text',
    id: 'id',
    topic: 'topic',
    key: 'key',
    metadata: 'metadata::text',
    payload: 'payload',
    at: `(date_part('epoch', at) * 1000)::bigint::text`,
    delivery: `CASE WHEN deliver_at IS NOT NULL THEN concat_ws(' ', date_part('epoch', deliver_at), hold_key, deliver_at > clock_timestamp()) END`,
  })}
FROM bench_plain WHERE seq > $1::bigint ORDER BY bench_plain.seq LIMIT $2::bigint`,
};

/** An unsliced copy of the log, with one index. */
export async function copyOfLog(pool: pg.Pool): Promise<void> {
  await pool.query(`CREATE TABLE bench_plain AS
    SELECT seq, id, topic, key, metadata, payload, at, deliver_at, hold_key FROM messenger.messages ORDER BY seq`);
  await pool.query('ALTER TABLE bench_plain ADD PRIMARY KEY (seq)');
  await pool.query('VACUUM ANALYZE');
}

/** Drains the log by a relay, settling included, beside the bare read: alternated, median of five. */
export async function drain(bench: Bench): Promise<Row[]> {
  const log = await bench.log();
  console.log(`the bare keyset read, as a named statement:\n${KEYSET.text}\n`);
  const rows: Row[] = [];
  for (const page of PAGES) rows.push(await drainByPages(log, page));
  return rows;
}

async function drainByPages(log: Outbox, page: number): Promise<Row> {
  const messages = log.stored;
  const relayed: number[] = [];
  const bare: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    bare.push(await rate(messages, () => keysetRead(log.pool, messages, page)));
    relayed.push(await rate(messages, () => relay(log, page, `drain-${String(page)}-${String(round)}`)));
    console.log(
      `  drain/${String(page)} round ${String(round + 1)}: relay ${rounded(relayed)} messages/s, bare read ${rounded(bare)}`,
    );
  }
  return row(`drain/${String(page)}`, median(relayed), 'messages/s', median(bare));
}

async function keysetRead(pool: pg.Pool, messages: number, page: number): Promise<void> {
  const types = { getTypeParser: (oid: number) => (oid === 17 ? bytes : text) };
  const client = await pool.connect();
  try {
    let after = 0;
    for (let read = 0; read < messages;) {
      const result = await client.query({
        ...KEYSET,
        values: [after, page],
        rowMode: 'array',
        types,
      } as pg.QueryArrayConfig);
      const decoded = result.rows.map((each) => new StoredMessage(each as unknown[]));
      read += decoded.length;
      after = decoded.at(-1)?.seq ?? after;
    }
  } finally {
    client.release();
  }
}

const text = (value: string): string => value;
const bytes = (value: string): Buffer => Buffer.from(value.slice(2), 'hex');

/** Messages per second. */
export async function rate(messages: number, work: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return messages / ((performance.now() - start) / 1000);
}

function rounded(values: readonly number[]): string {
  return Math.round(values.at(-1) ?? 0).toLocaleString('en');
}

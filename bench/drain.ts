import type pg from 'pg';
import { Messenger } from 'messenger-outbox';
import type { PostgresStore } from 'messenger-outbox/postgres';
import { StoredMessage } from '../src/stores/postgres/rows.js';
import { median, row, type Row } from './report.js';
import { counter } from './setup.js';

const ROUNDS = 5;

/** The bare keyset read: what any reader of these rows costs at least, on this machine, now. */
const KEYSET = {
  name: 'bench_keyset',
  text: `SELECT seq::text AS seq_text, id, topic, key, metadata::text, payload, date_part('epoch', at)::text
FROM bench_plain WHERE seq > $1::bigint ORDER BY seq LIMIT $2::bigint`,
};

/** An unsliced copy of the log, with one index. */
export async function copyOfLog(pool: pg.Pool): Promise<void> {
  await pool.query(`CREATE TABLE bench_plain AS
    SELECT seq, id, topic, key, metadata, payload, at FROM messenger.messages ORDER BY seq`);
  await pool.query('ALTER TABLE bench_plain ADD PRIMARY KEY (seq)');
  await pool.query('VACUUM ANALYZE');
}

/** Drains the log by a relay, settling included, beside the bare read: alternated, median of five. */
export async function drain(pool: pg.Pool, store: PostgresStore, messages: number, page: number): Promise<Row> {
  const relayed: number[] = [];
  const bare: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    bare.push(await rate(messages, () => keysetRead(pool, messages, page)));
    relayed.push(await rate(messages, () => relay(store, messages, page, `drain-${String(page)}-${String(round)}`)));
    console.log(
      `  drain/${String(page)} round ${String(round + 1)}: relay ${rounded(relayed)} messages/s, bare read ${rounded(bare)}`,
    );
  }
  return row(`drain/${String(page)}`, median(relayed), 'messages/s', median(bare));
}

export function explainDrain(): void {
  console.log(`the bare keyset read, as a named statement:\n${KEYSET.text}\n`);
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

/** A new destination starts at the beginning of the log. */
async function relay(store: PostgresStore, messages: number, page: number, destination: string): Promise<void> {
  const stop = new AbortController();
  const publisher = counter((total) => {
    if (total >= messages) stop.abort();
  });
  const messenger = new Messenger(store, publisher, { destination, publishBatchSize: page });
  await messenger.start({ signal: stop.signal });
  if (publisher.count !== messages)
    throw new Error(`drained ${String(publisher.count)} of ${String(messages)} messages`);
}

async function rate(messages: number, work: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return messages / ((performance.now() - start) / 1000);
}

function rounded(values: readonly number[]): string {
  return Math.round(values.at(-1) ?? 0).toLocaleString('en');
}

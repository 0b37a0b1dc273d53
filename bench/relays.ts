import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { startRelay } from './relay.js';
import { row, type Row } from './report.js';
import { seconds, storeIn, withOutbox, type Bench, type Outbox } from './setup.js';

/** A broker that answers after 20 ms, asked for a hundred messages at a time, one request after the other. */
const DELAY = 20;
const BATCH = 100;
const PARTITIONS = 8;
/** Seconds at their beginning that are not measured: processes that compile what they run take it from one another. */
const WARM_UP = 2;
/** How long relays may take to share the partitions out before they are measured as they are. Milliseconds. */
const SHARING_LIMIT = 30_000;

/** What 2 and 4 relays of one destination do beside one, each a process. */
export async function relays(bench: Bench): Promise<Row[]> {
  const one = await throughput(bench, 1);
  const two = await throughput(bench, 2);
  const four = await throughput(bench, 4);
  return [row('relays/2', two, 'messages/s', one), row('relays/4', four, 'messages/s', one)];
}

async function throughput(bench: Bench, count: number): Promise<number> {
  const time = seconds(bench, 10, 4);
  const rate = await withOutbox(bench.server, 'bench_relays', (outbox) => run(outbox, count, time));
  console.log(`  ${count} relays: ${Math.round(rate).toLocaleString('en')} messages/s`);
  return rate;
}

/** The relays share an empty log out first; then everything is there at once, and more than they can do. */
async function run(outbox: Outbox, count: number, time: number): Promise<number> {
  const name = 'bench-relays';
  const processes = Array.from({ length: count }, () => startRelay({ name, url: outbox.url, delay: DELAY }));
  try {
    await shared(outbox.pool, name, count);
    const client = await outbox.pool.connect();
    await client.query('BEGIN');
    await storeIn(client, outbox, Math.ceil((count * BATCH * (time + WARM_UP + 1) * 1000) / DELAY));
    const begun = processes.map((each) => each.next());
    await client.query('COMMIT');
    client.release();
    await Promise.race(begun);
    await sleep(WARM_UP * 1000);
    const total = () => processes.reduce((sum, each) => sum + each.published(), 0);
    const before = total();
    const start = performance.now();
    await sleep(time * 1000);
    return (total() - before) / ((performance.now() - start) / 1000);
  } finally {
    await Promise.all(processes.map((each) => each.stop()));
  }
}

/** Resolves when each of so many relays holds its even share of the partitions. */
async function shared(pool: pg.Pool, destination: string, count: number): Promise<void> {
  const deadline = performance.now() + SHARING_LIMIT;
  for (;;) {
    const { rows } = await pool.query<{ held: number }>(
      `SELECT count(*)::integer AS held FROM messenger.cursors
WHERE destination = $1 AND owner IS NOT NULL AND expires_at > clock_timestamp() GROUP BY owner`,
      [destination],
    );
    const shares = rows.map(({ held }) => held);
    if (shares.length === count && shares.every((held) => held === PARTITIONS / count)) return;
    if (performance.now() > deadline) {
      console.log(`  ${count} relays do not share the partitions evenly: ${shares.join(', ') || 'none is held'}`);
      return;
    }
    await sleep(20);
  }
}

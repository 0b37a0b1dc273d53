import type pg from 'pg';
import { Messenger, newMessage, type Message } from 'messenger-outbox';
import { ACKNOWLEDGED, type BatchPublisher } from 'messenger-outbox/adapter';
import { percentile, row, type Row } from './report.js';
import { caughtUp, type Bench } from './setup.js';

const PER_SECOND = 1_000;
/** Of each round of a full run: this is about moments, and more of them would say no more. */
const MOST = 2_000;
const WRITERS = 4;
/** Rounds of messages, and of commits that nobody relays, in turn: what else the machine does is in both. */
const ROUNDS = 5;
/** Rounds before what is measured: a process that has run for a minute has compiled what it runs, and writers are in step. */
const WARM_UP = 5;

type Commit = (client: pg.PoolClient, i: number) => Promise<void>;

/**
 * From the moment COMMIT is sent to the moment the publisher is called, at a thousand messages a
 * second; beside the floor of a commit and a read of that row on another connection.
 */
export async function latency(bench: Bench): Promise<Row[]> {
  const { pool, store } = await bench.log();
  const messages = Math.min(MOST, bench.messages / 20);
  const sentAt = new Map<string, number>();
  const relayed: number[] = [];
  const floor: number[] = [];
  const arrived = ({ id }: Message) => {
    const sent = sentAt.get(id);
    if (sent !== undefined) relayed.push(performance.now() - sent);
  };
  const publisher: BatchPublisher = {
    batchKeepsKeyOrder: true,
    publish: (message) => {
      arrived(message);
      return Promise.resolve();
    },
    publishBatch: (batch) => {
      batch.forEach(arrived);
      return Promise.resolve(batch.map(() => ACKNOWLEDGED));
    },
  };
  const send: Commit = async (client, i) => {
    const message = newMessage('x'.repeat(250), { key: `key-${String(i % 100)}` });
    await client.query('BEGIN');
    await store.add(client, message);
    sentAt.set(message.id, performance.now());
    await client.query('COMMIT');
  };
  // What filling the log has left to be written would be written while this is measured.
  await pool.query('CHECKPOINT');
  await createFloor(pool);
  const stop = new AbortController();
  const relay = new Messenger(store, publisher, { destination: 'latency', publishBatchSize: 1000 }).start({
    signal: stop.signal,
  });
  await caughtUp(pool, 'latency');
  // The first poll after a window of a million messages looks at all of them once more; not what is measured here.
  await paced(pool, 1, send);
  await caughtUp(pool, 'latency');
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    if (round === 0) relayed.length = floor.length = 0;
    const before = relayed.length;
    await paced(pool, messages, send);
    await caughtUp(pool, 'latency');
    const floorOfRound = await floorLatencies(pool, messages, (round + WARM_UP) * messages);
    floor.push(...floorOfRound);
    const medians = [relayed.slice(before), floorOfRound].map((each) => percentile(each, 0.5).toFixed(2));
    console.log(
      `  latency ${round < 0 ? 'warm-up' : `round ${String(round + 1)}`}: median ${medians.join(' ms, floor ')} ms`,
    );
  }
  stop.abort();
  await relay;
  if (relayed.length !== floor.length) throw new Error(`${relayed.length} of ${floor.length} messages were relayed`);
  return [
    row('latency/p50', percentile(relayed, 0.5), 'ms', percentile(floor, 0.5)),
    row('latency/p99', percentile(relayed, 0.99), 'ms', percentile(floor, 0.99)),
  ];
}

async function floorLatencies(pool: pg.Pool, messages: number, first: number): Promise<number[]> {
  const latencies: number[] = [];
  const readers = new Map<pg.PoolClient, pg.PoolClient>();
  try {
    await paced(pool, messages, async (client, i) => {
      const reader = readers.get(client) ?? (await pool.connect());
      readers.set(client, reader);
      latencies.push(await commitAndRead(client, reader, first + i));
    });
  } finally {
    for (const reader of readers.values()) reader.release();
  }
  return latencies;
}

export async function createFloor(pool: pg.Pool): Promise<void> {
  await pool.query('CREATE TABLE bench_floor (id integer PRIMARY KEY, payload text)');
}

/** Milliseconds from a COMMIT that is sent to that row being read on another connection. */
export async function commitAndRead(writer: pg.PoolClient, reader: pg.PoolClient, i: number): Promise<number> {
  await writer.query('BEGIN');
  await writer.query('INSERT INTO bench_floor VALUES ($1, $2)', [i, 'x'.repeat(250)]);
  const sent = performance.now();
  await writer.query('COMMIT');
  await reader.query({ name: 'bench_floor', text: 'SELECT payload FROM bench_floor WHERE id = $1', values: [i] });
  return performance.now() - sent;
}

/** Commits `messages` times, a thousand a second in all, from a few connections. */
async function paced(pool: pg.Pool, messages: number, commit: Commit): Promise<void> {
  const start = performance.now();
  let next = 0;
  const writer = async () => {
    const client = await pool.connect();
    try {
      for (let i = next++; i < messages; i = next++) {
        const due = start + (i * 1000) / PER_SECOND;
        const wait = due - performance.now();
        if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
        await commit(client, i);
      }
    } finally {
      client.release();
    }
  };
  await Promise.all(Array.from({ length: WRITERS }, writer));
}

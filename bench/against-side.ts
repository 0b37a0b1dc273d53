import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import type * as Core from 'messenger-outbox';
import type { Message } from 'messenger-outbox';
import type { BatchPublisher } from 'messenger-outbox/adapter';
import type * as Postgres from 'messenger-outbox/postgres';
import { percentile } from './report.js';

/** What the process of one commit is told. */
export interface SideConfig {
  /** The folder of its package, built. */
  readonly build: string;
  /** How many messages are drained; a tenth of them are stored, one in each transaction. */
  readonly messages: number;
  readonly urls: Readonly<Record<'store' | 'latency' | 'drain', string>>;
}

export interface Start {
  /** Whether to store what is drained; otherwise an earlier process has. */
  readonly fills: boolean;
}

export type MeasureName = 'store/tps' | 'latency/p50' | 'drain/1000' | 'drain/100';

/** Of a measurement that was asked for; the first one says that all is ready. */
export interface Answer {
  readonly value: number;
}

const WRITERS = 4;
/** Messages of a round of latencies, a thousand a second; the first part of them only gets it going. */
const PACED = { all: 2_500, uncounted: 500, perSecond: 1_000 };

const { build, messages, urls, fills } = JSON.parse(process.argv[2] ?? '') as SideConfig & Start;
const outbox = await exported<typeof Core>('.');
const { PostgresStore } = await exported<typeof Postgres>('./postgres');
const payload = new Uint8Array(250).fill(0x61);
/** So that a destination is new to the database, too, in which earlier processes have drained. */
let round = Date.now();

/** A subpath of that build, as an application imports it. */
async function exported<T>(subpath: string): Promise<T> {
  const manifest = JSON.parse(await readFile(path.join(build, 'package.json'), 'utf8')) as {
    exports: Record<string, { import: { default: string } }>;
  };
  const file = manifest.exports[subpath]?.import.default;
  if (file === undefined) throw new Error(`${build} does not export ${subpath}`);
  return (await import(pathToFileURL(path.join(build, file)).href)) as T;
}

async function opened(url: string) {
  const pool = new pg.Pool({ connectionString: url, max: 10 });
  const store = new PostgresStore(pool);
  await store.migrate();
  return { pool, store };
}

const databases = {
  store: await opened(urls.store),
  latency: await opened(urls.latency),
  drain: await opened(urls.drain),
};

function messageOf(i: number): Message {
  return outbox.newMessage(payload, { topic: 'bench', key: `key-${String(i % 1000)}` });
}

/** A publisher that acknowledges everything at once, and tells of it. */
function acknowledging(published: (batch: readonly Message[]) => void): BatchPublisher {
  return {
    batchKeepsKeyOrder: true,
    publish(message) {
      published([message]);
      return Promise.resolve();
    },
    publishBatch(batch) {
      published(batch);
      return Promise.resolve(batch.map(() => ({ acknowledged: true }) as const));
    },
  };
}

/** Calls `commit` for each number, from a few connections at once, each when `due` resolves. */
async function write(
  pool: pg.Pool,
  count: number,
  commit: (client: pg.PoolClient, i: number) => Promise<void>,
  due?: (i: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const writer = async () => {
    const client = await pool.connect();
    try {
      for (let i = next++; i < count; i = next++) {
        await due?.(i);
        await commit(client, i);
      }
    } finally {
      client.release();
    }
  };
  await Promise.all(Array.from({ length: WRITERS }, writer));
}

async function fill(): Promise<void> {
  const { pool, store } = databases.drain;
  await write(pool, Math.ceil(messages / 1000), async (client, i) => {
    const length = Math.min(1000, messages - i * 1000);
    await client.query('BEGIN');
    await store.add(
      client,
      Array.from({ length }, (_, n) => messageOf(n)),
    );
    await client.query('COMMIT');
  });
  await pool.query('VACUUM ANALYZE');
}

/** Transactions a second, of one message each. */
async function storing(): Promise<number> {
  const { pool, store } = databases.store;
  const transactions = Math.ceil(messages / 10);
  const start = performance.now();
  await write(pool, transactions, async (client, i) => {
    await client.query('BEGIN');
    await store.add(client, messageOf(i));
    await client.query('COMMIT');
  });
  return transactions / ((performance.now() - start) / 1000);
}

/** The median of the milliseconds from the moment COMMIT is sent to the call of the publisher. */
async function latency(): Promise<number> {
  const { pool, store } = databases.latency;
  const sentAt = new Map<string, number>();
  const latencies: number[] = [];
  const stop = new AbortController();
  let arrived = 0;
  const publisher = acknowledging((batch) => {
    for (const { id } of batch) {
      const sent = sentAt.get(id);
      if (sent !== undefined) latencies.push(performance.now() - sent);
    }
    arrived += batch.length;
    if (arrived === PACED.all) stop.abort();
  });
  const relay = new outbox.Messenger(store, publisher, { publishBatchSize: 1000 }).start({ signal: stop.signal });
  const start = performance.now();
  await write(
    pool,
    PACED.all,
    async (client, i) => {
      const message = messageOf(i);
      await client.query('BEGIN');
      await store.add(client, message);
      if (i >= PACED.uncounted) sentAt.set(message.id, performance.now());
      await client.query('COMMIT');
    },
    async (i) => {
      const wait = start + (i * 1000) / PACED.perSecond - performance.now();
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    },
  );
  await relay;
  return percentile(latencies, 0.5);
}

/** Messages a second of a relay that publishes the whole log, to a destination that is new. */
async function drain(page: number): Promise<number> {
  const stop = new AbortController();
  let count = 0;
  const publisher = acknowledging((batch) => {
    count += batch.length;
    if (count >= messages) stop.abort();
  });
  const options = { destination: `drain-${String(round++)}`, publishBatchSize: page };
  const start = performance.now();
  await new outbox.Messenger(databases.drain.store, publisher, options).start({ signal: stop.signal });
  const seconds = (performance.now() - start) / 1000;
  if (count !== messages) throw new Error(`relayed ${String(count)} of ${String(messages)} messages`);
  return messages / seconds;
}

const MEASURES: Record<MeasureName, () => Promise<number>> = {
  'store/tps': storing,
  'latency/p50': latency,
  'drain/1000': () => drain(1000),
  'drain/100': () => drain(100),
};

function answer(value: number): void {
  process.send?.({ value } satisfies Answer);
}

if (fills) await fill();
process.on('message', (name: MeasureName) => {
  void MEASURES[name]().then(answer, (error: unknown) => {
    console.error(error);
    process.exit(1);
  });
});
process.once('disconnect', () => process.exit());
answer(messages);

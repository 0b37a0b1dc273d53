import pg from 'pg';
import { median, row, type Row } from './report.js';
import { benchMessage, fill, relay, storeIn, type Bench, type Outbox } from './setup.js';

const DESTINATION = 'poll';
const PAGE = 1000;
/** Polls that a median is of. */
const POLLS = 50;
/** The first polls after something has changed settle the window that it made. */
const SETTLING_POLLS = 5;
const WRITERS = [1, 100, 500];

type Feed = NonNullable<Awaited<ReturnType<Outbox['store']['openFeed']>>>;

/**
 * Milliseconds of one poll that finds nothing, on a log of five times as many messages: under what makes
 * a snapshot, or what lies between two of them, large; beside the plain poll.
 */
export async function poll(bench: Bench): Promise<Row[]> {
  const log = await bench.bigLog();
  console.log(`  storing up to ${(5 * bench.messages).toLocaleString('en')} messages …`);
  await fill(log, 5 * bench.messages);
  console.log('  relaying them …');
  await relay(log, PAGE, DESTINATION);
  const feed = await log.store.openFeed({ destination: DESTINATION, pageSize: PAGE });
  if (feed === null) throw new Error('another relay holds the destination');
  try {
    // Everything was delivered in one window, at the end of which this one starts.
    const afterWindow = Math.max(...(await polls(feed, SETTLING_POLLS)));
    const plain = await typical(feed);
    const rows = [
      row('poll/plain', plain, 'ms', await roundTrips(log.pool)),
      row('poll/after-window', afterWindow, 'ms', plain),
    ];
    for (const writers of WRITERS) {
      rows.push(row(`poll/writers-${writers}`, await withWriters(log, feed, writers), 'ms', plain));
    }
    const { open, committed } = await lateRows(log, feed, bench.messages);
    rows.push(row('poll/late-rows-open', open, 'ms', plain), row('poll/late-rows', committed, 'ms', plain));
    return rows;
  } finally {
    await feed.close();
  }
}

/** Milliseconds of each of so many polls that find nothing. */
async function polls(feed: Feed, count: number): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    const { messages } = await feed.read();
    times.push(performance.now() - start);
    if (messages.length > 0) throw new Error(`a poll of an empty log found ${messages.length} messages`);
  }
  return times;
}

async function typical(feed: Feed): Promise<number> {
  await polls(feed, SETTLING_POLLS);
  return median(await polls(feed, POLLS));
}

/** What a poll takes at least: a transaction of one statement. */
async function roundTrips(pool: pg.Pool): Promise<number> {
  const client = await pool.connect();
  const times: number[] = [];
  for (let i = 0; i < POLLS; i++) {
    const start = performance.now();
    await client.query('BEGIN');
    await client.query({ name: 'bench_nothing', text: 'SELECT 1' });
    await client.query('COMMIT');
    times.push(performance.now() - start);
  }
  client.release();
  return median(times);
}

/** Beside so many transactions, each of which has stored a message and is still open. */
async function withWriters({ url, store }: Outbox, feed: Feed, count: number): Promise<number> {
  const writers = Array.from({ length: count }, () => new pg.Client({ connectionString: url }));
  try {
    for (const writer of writers) {
      await writer.connect();
      await writer.query('BEGIN');
      await store.add(writer, benchMessage(0));
    }
    return await typical(feed);
  } finally {
    await Promise.all(writers.map((writer) => writer.end()));
  }
}

/**
 * A transaction stores many messages, and others, stored later, are delivered before it commits: while it
 * is open, and once its own are delivered.
 */
async function lateRows(log: Outbox, feed: Feed, messages: number): Promise<{ open: number; committed: number }> {
  console.log(`  storing ${messages.toLocaleString('en')} messages that will be late …`);
  const late = await log.pool.connect();
  try {
    await late.query('BEGIN');
    await storeIn(late, log, messages);
    await fill(log, log.stored + 1);
    await deliver(feed, 1);
    const open = await typical(feed);
    await late.query('COMMIT');
    await deliver(feed, messages);
    return { open, committed: await typical(feed) };
  } finally {
    late.release();
  }
}

/** Reads and settles so many messages. */
async function deliver(feed: Feed, messages: number): Promise<void> {
  for (let left = messages; left > 0;) {
    const page = await feed.read();
    await feed.settle(page, []);
    left -= page.messages.length;
  }
}

import type pg from 'pg';
import { Messenger, type Feed } from 'messenger-outbox';
import { PostgresStore } from 'messenger-outbox/postgres';
import { changesOfLog } from './dead-tuples.js';
import { median, row, type Row } from './report.js';
import { counter, fill, withOutbox, type Bench, type Outbox } from './setup.js';

/** Of the first and the last of so many settles is what is compared: the tenth part, at most. */
const SAMPLE = 10_000;

interface Settles {
  /** Milliseconds of each. */
  readonly times: number[];
  /** When each was through, in milliseconds. */
  readonly ends: number[];
}

/**
 * A relay that settles every message by itself, for 200,000 messages in a full run, with nothing that
 * holds back vacuum and then beside a transaction that is open for the whole of it: what it does at
 * the end of each, and what a settle takes at the end beside the start.
 */
export async function heldVacuum({ server, messages }: Bench): Promise<Row[]> {
  return withOutbox(server, 'bench_held', async (outbox) => {
    const settles = Math.max(2_000, messages / 5);
    const sample = Math.min(SAMPLE, settles / 10);
    await fill(outbox, settles);
    await outbox.pool.query('VACUUM ANALYZE');
    const free = await relayOneByOne(outbox, 'free');
    const holder = await outbox.pool.connect();
    await holder.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await holder.query('SELECT FROM messenger.cursors');
    const held = await relayOneByOne(outbox, 'held');
    await holder.query('COMMIT');
    holder.release();
    return [
      row('held-vacuum', rateAtEnd(held, sample), 'messages/s', rateAtEnd(free, sample)),
      row('held-vacuum/settle', median(held.times.slice(-sample)), 'ms', median(held.times.slice(0, sample))),
      row('held-vacuum/settles', held.times.length, 'settles'),
      row('held-vacuum/updates-and-deletes', await changesOfLog(outbox.pool), 'rows, the log'),
    ];
  });
}

/** Relays all that is stored in pages of one message, and tells of every settle. */
async function relayOneByOne({ pool, stored }: Outbox, destination: string): Promise<Settles> {
  const settles: Settles = { times: [], ends: [] };
  const stop = new AbortController();
  const publisher = counter((total) => {
    if (total >= stored) stop.abort();
  });
  const messenger = new Messenger(timedStore(pool, settles), publisher, { destination, publishBatchSize: 1 });
  await messenger.start({ signal: stop.signal });
  const { times, ends } = settles;
  console.log(`  ${destination}: ${times.length} settles in ${Math.round((ends.at(-1)! - ends[0]!) / 1000)} s`);
  return settles;
}

/** Messages per second in the last so many settles. */
function rateAtEnd({ ends }: Settles, sample: number): number {
  const last = ends.slice(-sample);
  return (last.length - 1) / ((last.at(-1)! - last[0]!) / 1000);
}

/** A store whose feeds have a stopwatch on every settle. */
function timedStore(pool: pg.Pool, settles: Settles): PostgresStore {
  const store = new PostgresStore(pool);
  const open = store.openFeed.bind(store);
  store.openFeed = async (options) => {
    const feed = await open(options);
    if (feed) timeSettles(feed, settles);
    return feed;
  };
  return store;
}

function timeSettles(feed: Feed, { times, ends }: Settles): void {
  const settle = feed.settle.bind(feed);
  feed.settle = async (page, setAside, options) => {
    const start = performance.now();
    await settle(page, setAside, options);
    const end = performance.now();
    times.push(end - start);
    ends.push(end);
  };
}

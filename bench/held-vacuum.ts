import { Messenger, type Feed } from 'messenger-outbox';
import { changesOfLog } from './dead-tuples.js';
import { median, row, type Row } from './report.js';
import { counter, fill, tellingStore, withOutbox, type Bench, type Outbox } from './setup.js';

/** How many settles, at most, a start and an end are. */
const SAMPLE = 10_000;

interface Settles {
  /** Milliseconds of each. */
  readonly times: number[];
  /** When each was through, in milliseconds. */
  readonly ends: number[];
}

/**
 * A relay that settles every message by itself: 50,000 of them in a full run while nothing holds back
 * vacuum, and then 200,000 beside a transaction that is open for the whole of it. What it does at the end
 * of each, and what a settle takes at the end of the second beside its start.
 */
export async function heldVacuum({ server, messages }: Bench): Promise<Row[]> {
  return withOutbox(server, 'bench_held', async (outbox) => {
    const settles = Math.max(2_000, messages / 5);
    const sample = Math.min(SAMPLE, settles / 10);
    await fill(outbox, settles);
    await outbox.pool.query('VACUUM ANALYZE');
    const free = await relayOneByOne(outbox, 'free', settles / 4);
    const holder = await outbox.pool.connect();
    await holder.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await holder.query('SELECT FROM messenger.cursors');
    const held = await relayOneByOne(outbox, 'held', settles);
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

/** Relays so many messages in pages of one, and tells of every settle. */
async function relayOneByOne({ pool }: Outbox, destination: string, messages: number): Promise<Settles> {
  const settles: Settles = { times: [], ends: [] };
  const store = tellingStore(pool, (feed) => {
    timeSettles(feed, settles);
  });
  const stop = new AbortController();
  const publisher = counter((total) => {
    if (total >= messages) stop.abort();
  });
  const messenger = new Messenger(store, publisher, { destination, publishBatchSize: 1 });
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

/** A stopwatch on every settle. */
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

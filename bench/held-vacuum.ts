import { Messenger } from 'messenger-outbox';
import type { Feed } from 'messenger-outbox/adapter';
import { changesOfLog } from './dead-tuples.js';
import { median, row, type Row } from './report.js';
import { counter, fill, tellingStore, withOutbox, type Bench, type Outbox } from './setup.js';

const DESTINATION = 'held';
/** A start, and an end, is a twentieth of all settles, 5,000 at most; of the end there are several. */
const STRETCH = 5_000;
const ROUNDS = 5;
/** A relay may have published a few more when it stops. */
const SPARE = 1_000;

interface Settles {
  /** Milliseconds of each. */
  readonly times: number[];
  /** When each was through, in milliseconds. */
  readonly ends: number[];
}

/**
 * A relay that settles every message by itself, 200,000 of them in a full run, beside a transaction that
 * is open for the whole of it. Then, still beside it, how fast the relay is, alternated with one in a
 * database where nothing holds back vacuum; and how long a settle takes beside those of its start.
 */
export async function heldVacuum({ server, messages }: Bench): Promise<Row[]> {
  const settles = Math.max(4_000, messages / 5);
  const stretch = Math.min(STRETCH, settles / 20);
  return withOutbox(server, 'bench_free', (free) =>
    withOutbox(server, 'bench_held', async (held) => {
      await fill(free, ROUNDS * stretch + SPARE);
      await fill(held, settles + ROUNDS * stretch + SPARE);
      const holder = await held.pool.connect();
      await holder.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
      await holder.query('SELECT FROM messenger.cursors');
      const { times } = await relayOneByOne(held, settles);
      console.log(`  ${times.length} settles, at the start ${median(times.slice(0, stretch)).toFixed(2)} ms`);
      const { throughput, beside, settle } = await compare(held, free, stretch);
      await holder.query('COMMIT');
      holder.release();
      return [
        row('held-vacuum', throughput, 'messages/s', beside),
        row('held-vacuum/settle', settle, 'ms', median(times.slice(0, stretch))),
        row('held-vacuum/settles', times.length, 'settles'),
        row('held-vacuum/updates-and-deletes', await changesOfLog(held.pool), 'rows, the log'),
      ];
    }),
  );
}

/** Stretches of both, alternated: messages per second of each, and milliseconds of a settle of the first. */
async function compare(
  held: Outbox,
  free: Outbox,
  stretch: number,
): Promise<{ throughput: number; beside: number; settle: number }> {
  const rates = { held: [] as number[], free: [] as number[] };
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    rates.free.push(rateOf(await relayOneByOne(free, stretch)));
    const settles = await relayOneByOne(held, stretch);
    rates.held.push(rateOf(settles));
    times.push(...settles.times);
    console.log(
      `  round ${round + 1}: held ${rates.held.at(-1)!.toFixed()} messages/s, free ${rates.free.at(-1)!.toFixed()}`,
    );
  }
  return { throughput: median(rates.held), beside: median(rates.free), settle: median(times) };
}

/** Relays so many messages, from where the one before stopped, in pages of one. */
async function relayOneByOne({ pool }: Outbox, messages: number): Promise<Settles> {
  const settles: Settles = { times: [], ends: [] };
  const store = tellingStore(pool, (feed) => {
    timeSettles(feed, settles);
  });
  const stop = new AbortController();
  const publisher = counter((total) => {
    if (total >= messages) stop.abort();
  });
  const messenger = new Messenger(store, publisher, { destination: DESTINATION, publishBatchSize: 1 });
  await messenger.start({ signal: stop.signal });
  return settles;
}

/** Messages per second from the first settle to the last. */
function rateOf({ ends }: Settles): number {
  return (ends.length - 1) / ((ends.at(-1)! - ends[0]!) / 1000);
}

/** A stopwatch on every settle. */
function timeSettles(feed: Feed, { times, ends }: Settles): void {
  const settle = feed.settle.bind(feed);
  feed.settle = async (page, toPark, options) => {
    const start = performance.now();
    await settle(page, toPark, options);
    const end = performance.now();
    times.push(end - start);
    ends.push(end);
  };
}

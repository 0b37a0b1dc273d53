import { median, row, type Row } from './report.js';
import { fill, relay, tellingStore, type Bench, type Outbox } from './setup.js';

/** A row is called by what a full run measures; in a smaller one there are fewer messages. */
const SIZES = [
  { name: 'backlog/10000', size: (messages: number) => Math.min(messages, 10_000), rounds: 9 },
  { name: 'backlog/1000000', size: (messages: number) => messages, rounds: 1 },
  { name: 'backlog/5000000', size: (messages: number) => 5 * messages, rounds: 1 },
] as const;
const PAGE = 1000;
/** Of how many stretches at the end of a backlog, one behind the other, the median counts. */
const STRETCHES = 9;

/** How fast a relay still is at the end of a backlog, beside the whole of the smallest. */
export async function backlog(bench: Bench): Promise<Row[]> {
  const log = await bench.bigLog();
  const stretch = Math.min(bench.messages, 10_000);
  const rates: number[] = [];
  for (const { name, size, rounds } of SIZES) {
    await fill(log, size(bench.messages));
    const samples: number[] = [];
    for (let round = 0; round < rounds; round++) samples.push(...(await drain(log, `${name}-${round}`, stretch)));
    const rate = median(samples);
    rates.push(rate);
    console.log(`  ${name}: ${formatted(log.stored)} messages, at the end ${formatted(rate)} messages/s`);
  }
  return SIZES.map(({ name }, i) => row(name, rates[i]!, 'messages/s', i === 0 ? null : rates[0]!));
}

/** Messages per second in each of the last stretches of so many messages. */
async function drain(log: Outbox, destination: string, stretch: number): Promise<number[]> {
  const ends: number[] = [];
  // The clock starts once the relay has its lease: that is not done again for each stretch.
  const store = tellingStore(log.pool, () => ends.push(performance.now()));
  let left = Math.ceil(log.stored / stretch);
  await relay({ store, stored: log.stored }, PAGE, destination, (total) => {
    const now = Math.ceil((log.stored - total) / stretch);
    if (now < left) ends.push(performance.now());
    left = now;
  });
  const rates = ends.slice(1).map((end, i) => stretch / ((end - ends[i]!) / 1000));
  return rates.slice(-STRETCHES);
}

const formatted = (value: number): string => Math.round(value).toLocaleString('en');

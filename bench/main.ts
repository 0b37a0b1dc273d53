import { parseArgs } from 'node:util';
import { startPostgres } from '../test/support/embedded-postgres.js';
import { against } from './against.js';
import { backlog } from './backlog.js';
import { deadTuples } from './dead-tuples.js';
import { copyOfLog, drain } from './drain.js';
import { heldVacuum } from './held-vacuum.js';
import { idle } from './idle.js';
import { latency } from './latency.js';
import { memory } from './memory.js';
import { peers } from './peers.js';
import { poll } from './poll.js';
import { relays } from './relays.js';
import { print, writeJson, type Row } from './report.js';
import { createOutbox, fill, type Bench, type Outbox } from './setup.js';
import { storing } from './storing.js';

/**
 * The families of figures, in the order in which they are measured: the first five on one log, of which
 * the last tells what they have left behind. A row's name begins with its family's.
 */
const FAMILIES = {
  drain,
  memory,
  store: storing,
  latency,
  'dead-tuples': deadTuples,
  peer: peers,
  relays,
  idle,
  'held-vacuum': heldVacuum,
  backlog,
  poll,
} satisfies Record<string, (bench: Bench) => Promise<Row[]>>;
const NAMES = Object.keys(FAMILIES) as (keyof typeof FAMILIES)[];

/**
 * `npm run bench [-- --messages N] [-- --only NAME,NAME] [-- --json FILE]`: every figure beside its floor, in one run.
 * `npm run bench -- --against COMMIT [--pairs N] [--messages N]`: the main ones beside those of another commit.
 */
const { values } = parseArgs({
  options: {
    messages: { type: 'string' },
    against: { type: 'string' },
    pairs: { type: 'string', default: '7' },
    only: { type: 'string', default: NAMES.join() },
    json: { type: 'string' },
  },
});
/** Against another commit there are many short rounds. */
const messages = Number(values.messages ?? (values.against === undefined ? 1_000_000 : 200_000));
const pairs = Number(values.pairs);
if (!Number.isSafeInteger(pairs) || pairs < 1)
  fail(`--pairs must be a whole number of at least 1, got ${values.pairs}`);
if (!Number.isSafeInteger(messages) || messages < 1000)
  fail(`--messages must be a whole number of at least 1000, got ${String(values.messages)}`);
const only = values.only.split(',');
const unknown = only.filter((name) => !(NAMES as string[]).includes(name));
if (unknown.length > 0) fail(`--only takes any of ${NAMES.join(', ')}; got ${unknown.join(', ')}`);

function fail(message: string): never {
  console.error(message);
  process.exit(2);
}

/**
 * What a server with some memory is set to; durability stays on. The last two are for a peer that reads
 * the write-ahead log, and for the polls beside five hundred writers.
 */
const SETTINGS = {
  shared_buffers: '1GB',
  max_wal_size: '8GB',
  autovacuum_naptime: '10s',
  wal_level: 'logical',
  max_connections: 600,
};

const server = await startPostgres(17, SETTINGS);
/** Ctrl-C ends the server as well. */
const stopped = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    stopped.abort();
    void server.remove().finally(() => process.exit(130));
  });
}

const outboxes: Outbox[] = [];
const bench: Bench = {
  server,
  messages,
  log: once(async () => {
    const log = await opened('bench');
    console.log(`  storing ${messages.toLocaleString('en')} messages …`);
    await fill(log, messages);
    await copyOfLog(log.pool);
    return log;
  }),
  bigLog: once(() => opened('bench_big')),
};

async function opened(name: string): Promise<Outbox> {
  const outbox = await createOutbox(server, name);
  outboxes.push(outbox);
  return outbox;
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => (made ??= make());
}

const rows: Row[] = [];
try {
  const { against: commit } = values;
  if (commit !== undefined && (await against(server, { commit, pairs, messages }, stopped.signal)))
    process.exitCode = 1;
  for (const name of commit !== undefined ? [] : NAMES.filter((each) => only.includes(each))) {
    const start = performance.now();
    console.log(`${name} …`);
    rows.push(...(await FAMILIES[name](bench)));
    console.log(`${name}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
  }
} finally {
  for (const { pool } of outboxes) await pool.end();
  await server.remove();
}
if (rows.length > 0) print(rows);
if (values.json !== undefined) await writeJson(values.json, rows);

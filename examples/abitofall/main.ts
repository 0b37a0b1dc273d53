/**
 * A bit of all: a shop stores orders and their messages in one transaction, a relay publishes the
 * messages to an SNS topic, and a warehouse receives them from an SQS queue. PostgreSQL, SNS and SQS
 * run on this machine, from npm, and are gone afterwards.
 *
 *     npm run demo                 until Ctrl-C, a few orders a second
 *     npm run demo -- --once       1,000 orders at full speed, and a verdict by a process of its own
 */
import { PostgresStore } from 'messenger-outbox/postgres';
import { startEngines, type Engines } from './engines.js';
import { readOptions, type Options } from './options.js';
import { Parts } from './parts.js';
import { everythingArrived, reportProgress } from './progress.js';
import { runRelay } from './relay.js';
import { openShop } from './shop.js';
import { verify } from './verify.js';
import { openWarehouse } from './warehouse.js';

/** For how many milliseconds --once puts up with nothing arriving before it calls the rest lost. */
const PATIENCE = 15_000;

/** The exit code of a program that was interrupted before it had done what it was to do. */
const INTERRUPTED = 130;

const options = readOptions(process.argv.slice(2));
const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (!stop.signal.aborted) console.log('stopping ...');
    stop.abort();
  });
}
process.stdout.on('error', () => {
  stop.abort(); // As in `npm run demo | head`.
});

// The SDK would say on every start that it will not support this version of Node for ever.
process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] ??= 'true';

console.log('starting PostgreSQL 17, SNS and SQS ...');
const engines = await startEngines({ withVerifier: options.once });
let lastLine: string | undefined;
try {
  console.log(engines.description);
  await demo(engines, options);
  if (options.once) lastLine = stop.signal.aborted ? interrupted() : await verdict(engines);
} finally {
  await engines.stop();
}
console.log(lastLine ?? 'stopped');

/** Runs all parts until the orders are written and have arrived, or until somebody stops them. */
async function demo({ databases, sns, sqs, topic, queue }: Engines, { once, orders }: Options): Promise<void> {
  const store = new PostgresStore(databases.shop);
  const shop = await openShop(databases.shop, store);
  const warehouse = await openWarehouse(databases.warehouse);

  console.log(
    once
      ? `writing ${String(orders)} orders; one transaction in ten is rolled back after it stored its messages`
      : 'writing a few orders a second; one transaction in ten is rolled back. Ctrl-C stops it',
  );
  const parts = new Parts();
  parts.failed.addEventListener('abort', () => {
    stop.abort();
  });
  const relay = parts.begin((signal) => runRelay({ store, sns, topic, signal }));
  const consumer = parts.begin((signal) => warehouse.receive({ sqs, queue, showEvery: once ? 100 : 1, signal }));
  const progress = parts.begin((signal) => reportProgress(databases, { interval: once ? 500 : 1_000, signal }));

  const writing = parts.begin(() =>
    shop.write({ orders: once ? orders : Infinity, pause: once ? 0 : 1_500, signal: stop.signal }),
  );
  await writing.ended;
  const arrival = once ? { patience: PATIENCE, signal: stop.signal } : { patience: 2_000, signal: parts.failed };
  await everythingArrived(databases, arrival);

  for (const part of [relay, consumer, progress]) await part.stop();
  parts.throwFailure();
  console.log(`${String(shop.rolledBack)} transactions were rolled back`);
}

/** What a process that knows nothing of this library finds in the database and in a queue of its own. */
async function verdict({ verifier }: Engines): Promise<string> {
  console.log('verifying ...');
  const { findings, exitCode } = await verify(verifier);
  process.exitCode = exitCode;
  const { stored, published, received, lost, phantom, inversions, duplicates } = findings;
  console.log(`out of their key's order: ${String(inversions)}; received more than once: ${String(duplicates)}`);
  return Object.entries({ stored, published, received, lost, phantom }).flat().join(' ');
}

function interrupted(): string {
  process.exitCode = INTERRUPTED;
  return 'interrupted: no verdict';
}

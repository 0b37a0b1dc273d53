import { parseArgs } from 'node:util';
import pg from 'pg';
import { startPostgres } from '../test/support/embedded-postgres.js';
import { copyOfLog, drain, explainDrain } from './drain.js';
import { latency } from './latency.js';
import { deadTuples, memory } from './memory.js';
import { print, writeJson, type Row } from './report.js';
import { filledStore } from './setup.js';
import { storing } from './storing.js';

/** `npm run bench [-- --messages N] [-- --json FILE]`: every figure beside its floor, in one run. */
const { values } = parseArgs({
  options: { messages: { type: 'string', default: '1000000' }, json: { type: 'string' } },
});
const messages = Number(values.messages);
if (!Number.isSafeInteger(messages) || messages < 1000) {
  console.error(`--messages must be a whole number of at least 1000, got ${values.messages}`);
  process.exit(2);
}

/** What a server with some memory is set to; durability stays on. */
const SETTINGS = { shared_buffers: '1GB', max_wal_size: '8GB', autovacuum_naptime: '10s' };

const postgres = await startPostgres(17, SETTINGS);
/** Ctrl-C ends the server as well. */
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    void postgres.remove().finally(() => process.exit(130));
  });
}

const pool = new pg.Pool({ connectionString: postgres.url(), max: 20 });
const rows: Row[] = [];
try {
  console.log(`storing ${messages.toLocaleString('en')} messages …`);
  const store = await filledStore(pool, messages);
  await copyOfLog(pool);
  explainDrain();
  for (const page of [1000, 100]) rows.push(await drain(pool, store, messages, page));
  console.log('memory …');
  rows.push(await memory(postgres.url(), messages));
  console.log('storing one by one …');
  rows.push(...(await storing(pool, store, Math.min(messages / 10, 20_000))));
  console.log('latency at 1,000 messages/s …');
  rows.push(...(await latency(pool, store, Math.min(messages / 10, 10_000))));
  rows.push(...(await deadTuples(pool)));
} finally {
  await pool.end();
  await postgres.remove();
}
print(rows);
if (values.json !== undefined) await writeJson(values.json, rows);

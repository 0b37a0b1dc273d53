import pg from 'pg';
import { Messenger } from 'messenger-outbox';
import { PostgresStore } from 'messenger-outbox/postgres';
import { counter } from './setup.js';

/** A process that drains some messages and prints its peak memory in bytes. */
const [url, messages] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: url });
const stop = new AbortController();
const publisher = counter((total) => {
  if (total >= Number(messages)) stop.abort();
});
await new Messenger(new PostgresStore(pool), publisher, {
  destination: `memory-${String(messages)}`,
  publishBatchSize: 1000,
}).start({ signal: stop.signal });
await pool.end();
console.log(process.resourceUsage().maxRSS * 1024);

import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { Messenger } from 'messenger-outbox';
import { ACKNOWLEDGED, type BatchPublisher } from 'messenger-outbox/adapter';
import { PostgresStore } from 'messenger-outbox/postgres';
import type { RelayConfig } from './relay.js';

/** A relay in a process of its own, which tells its parent of every batch that it has published, until SIGTERM. */
const { name, url, delay } = JSON.parse(process.argv[2]!) as RelayConfig;
const pool = new pg.Pool({ connectionString: url, application_name: name });
const stop = new AbortController();
const end = () => {
  stop.abort();
};
process.once('SIGTERM', end).once('disconnect', end);

const published = async (count: number): Promise<void> => {
  if (delay > 0) await sleep(delay);
  process.send?.(count);
};
const publisher: BatchPublisher = {
  batchKeepsKeyOrder: true,
  publish: () => published(1),
  publishBatch: async (messages) => {
    await published(messages.length);
    return messages.map(() => ACKNOWLEDGED);
  },
};
await new Messenger(new PostgresStore(pool), publisher, {
  destination: name,
  publishBatchSize: 100,
  pipelineDepth: 1,
}).start({
  signal: stop.signal,
});
await pool.end();
process.disconnect?.();

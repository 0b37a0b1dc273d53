import { Logger, makeWorkerUtils, runOnce } from 'graphile-worker';
import pg from 'pg';
import { inBatches, jsonOf, type Peer } from './peer.js';

const logger = new Logger(() => () => undefined);

/**
 * The settings of its page on performance (https://worker.graphile.org/docs/performance), from which its
 * own figures come: 24 jobs at once, fetched 500 at a time into a local queue, completed in batches. No
 * named queues: jobs of one queue run one by one.
 */
const preset = (url: string) => ({
  worker: {
    connectionString: url,
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    logger,
  },
});

export const graphileWorker: Peer = {
  name: 'graphile-worker',
  oneOf: 1,

  async prepare(url, messages, bytes) {
    const payload = jsonOf(bytes);
    const utils = await makeWorkerUtils({ connectionString: url, logger });
    await utils.migrate();
    await inBatches(messages, (length) =>
      utils.addJobs(Array.from({ length }, () => ({ identifier: 'bench', payload }))),
    );
    await utils.release();
    // Without statistics its plans are those of an empty table.
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    await client.query('VACUUM ANALYZE');
    await client.end();
  },

  async drain(url, _messages, handled) {
    const bench = () => {
      handled(1);
    };
    await runOnce({ preset: preset(url), taskList: { bench }, noHandleSignals: true });
  },
};

import { PgBoss } from 'pg-boss';
import pg from 'pg';
import { inBatches, jsonOf, type Peer } from './peer.js';

const QUEUE = 'bench';
const BATCH = 100;
/** One loop waits for the server half of the time; with more than these nothing is gained. */
const LOOPS = 4;

/** No maintenance and no schedules meanwhile. */
function bossOf(url: string): PgBoss {
  const boss = new PgBoss({ connectionString: url, max: LOOPS, supervise: false, schedule: false });
  // A call that fails rejects as well; this is what comes of connections that nobody uses any more.
  boss.on('error', () => undefined);
  return boss;
}

/**
 * `fetch` and `complete` of a hundred, called by hand: its own `work` adds the calls of a handler. A queue of
 * policy `standard`, and jobs stored by `insert`. It is faster the less it is given: hence a fifth.
 */
export const pgBoss: Peer = {
  name: 'pg-boss',
  oneOf: 5,

  async prepare(url, messages, bytes) {
    const data = jsonOf(bytes);
    const boss = bossOf(url);
    await boss.start();
    await boss.createQueue(QUEUE);
    const jobsOf = (length: number) => Array.from({ length }, () => ({ data }));
    await inBatches(messages, (length) => boss.insert(QUEUE, jobsOf(length)));
    await boss.stop({ graceful: false });
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    await client.query('VACUUM ANALYZE');
    await client.end();
  },

  async drain(url, _messages, handled) {
    const boss = bossOf(url);
    await boss.start();
    const loop = async () => {
      for (;;) {
        const jobs = await boss.fetch(QUEUE, { batchSize: BATCH });
        if (jobs.length === 0) return;
        await boss.complete(
          QUEUE,
          jobs.map(({ id }) => id),
        );
        handled(jobs.length);
      }
    };
    await Promise.all(Array.from({ length: LOOPS }, loop));
    await boss.stop({ graceful: false });
  },
};

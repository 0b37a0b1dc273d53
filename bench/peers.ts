import { PostgresStore } from 'messenger-outbox/postgres';
import { rate } from './drain.js';
import { graphileWorker } from './peers/graphile-worker.js';
import type { Peer } from './peers/peer.js';
import { pgBoss } from './peers/pg-boss.js';
import { pgTransactionalOutbox } from './peers/pg-transactional-outbox.js';
import { median, row, type Row } from './report.js';
import { dropDatabase, fill, PAYLOAD_BYTES, relay, withOutbox, type Bench, type Outbox } from './setup.js';

const PEERS: readonly Peer[] = [graphileWorker, pgBoss, pgTransactionalOutbox];
const ROUNDS = 3;
/** Ours is at its best as well: pages of a thousand. */
const PAGE = 1000;
/** With fewer, ours is over before it has compiled what it runs: figures of a run that small show that it runs, and no more. */
const LEAST = 30_000;

/**
 * How fast a relay works messages off, and each peer as many, or the part of them with which it is as fast, on the same
 * server, alternated. It waits for the disk when it settles, as they do; its time counts from its start to its end, and a
 * peer's from the first message that it handles to the last.
 */
export async function peers({ server, messages }: Bench): Promise<Row[]> {
  const rows: Row[] = [];
  for (const peer of PEERS) {
    rows.push(
      await withOutbox(server, 'bench_ours', async (ours) => {
        await fill(ours, Math.ceil(Math.max(Math.min(LEAST, messages), messages / 10)));
        await ours.pool.query('VACUUM ANALYZE');
        return beside(peer, ours, server);
      }),
    );
  }
  return rows;
}

async function beside(peer: Peer, ours: Outbox, server: Bench['server']): Promise<Row> {
  const given = Math.ceil(ours.stored / peer.oneOf);
  const store = new PostgresStore(ours.pool, { settle: 'sync' });
  const relayed: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    relayed.push(await rate(ours.stored, () => relay({ store, stored: ours.stored }, PAGE, `round-${round}`)));
    theirs.push(await rateOf(peer, given, server));
    console.log(
      `  peer/${peer.name} round ${round + 1}: relay ${Math.round(relayed.at(-1)!).toLocaleString('en')} messages/s, peer, of ${given.toLocaleString('en')}, ${Math.round(theirs.at(-1)!).toLocaleString('en')}`,
    );
  }
  return row(`peer/${peer.name}`, median(relayed), 'messages/s', median(theirs));
}

async function rateOf(peer: Peer, messages: number, server: Bench['server']): Promise<number> {
  const url = await server.createDatabase('bench_peer');
  try {
    await peer.prepare(url, messages, PAYLOAD_BYTES);
    let total = 0;
    let first = 0;
    let last = 0;
    await peer.drain(url, messages, (count) => {
      last = performance.now();
      if (total === 0) first = last;
      total += count;
    });
    if (total !== messages) throw new Error(`${peer.name} handled ${total} of ${messages} messages`);
    return messages / ((last - first) / 1000);
  } finally {
    await dropDatabase(server, 'bench_peer');
  }
}

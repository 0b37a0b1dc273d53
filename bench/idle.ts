import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { commitAndRead, createFloor } from './latency.js';
import { startRelay, type RelayProcess } from './relay.js';
import { percentile, row, type Row } from './report.js';
import { benchMessage, caughtUp, fill, seconds, withOutbox, type Bench, type Outbox } from './setup.js';

const NAME = 'bench-idle';
/** Until a relay with nothing to do pauses for its whole interval: 2, 4, 8 … ms add up to twice that. */
const FALLS_ASLEEP = 2_500;
/** Linux counts processor time in hundredths of a second, whatever the kernel's own tick. */
const TICKS_PER_SECOND = 100;

/** What a relay with nothing to do costs, and how soon it notices that there is something. */
export async function idle(bench: Bench): Promise<Row[]> {
  return withOutbox(bench.server, 'bench_idle', async (outbox) => {
    await fill(outbox, Math.min(bench.messages, 10_000));
    const relay = startRelay({ name: NAME, url: outbox.url, delay: 0 });
    try {
      await caughtUp(outbox.pool, NAME);
      await sleep(FALLS_ASLEEP);
      const cpu = await processorTime(outbox.pool, relay.pid, seconds(bench, 10, 5));
      const { wakes, floor } = await wakeUps(outbox, relay, Math.ceil(seconds(bench, 12, 1)));
      return [
        row('idle/cpu', cpu * 100, '% of a core'),
        row('idle/wake', percentile(wakes, 0.5), 'ms', percentile(floor, 0.5)),
        row('idle/wake-slowest', Math.max(...wakes), 'ms', percentile(floor, 0.5)),
      ];
    } finally {
      await relay.stop();
    }
  });
}

/** Cores that the relay's process and its backends keep busy. */
async function processorTime(pool: pg.Pool, relay: number, time: number): Promise<number> {
  const start = performance.now();
  let ticks = 0;
  let before = await ticksOf([relay, ...(await backends(pool))]);
  // Second by second: a backend may come and go.
  for (let left = time; left > 0; left -= 1) {
    await sleep(1000);
    const now = await ticksOf([relay, ...(await backends(pool))]);
    for (const [pid, count] of now) ticks += count - (before.get(pid) ?? 0);
    before = now;
  }
  return ticks / TICKS_PER_SECOND / ((performance.now() - start) / 1000);
}

async function backends(pool: pg.Pool): Promise<number[]> {
  const { rows } = await pool.query<{ pid: number }>('SELECT pid FROM pg_stat_activity WHERE application_name = $1', [
    NAME,
  ]);
  return rows.map(({ pid }) => pid);
}

/** The processor time so far of those of the processes that are still there. */
async function ticksOf(pids: readonly number[]): Promise<Map<number, number>> {
  const ticks = new Map<number, number>();
  for (const pid of pids) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
    if (stat === undefined) continue;
    // The name, in parentheses, may contain anything; behind it come fields 3, 4 …: 14 and 15 are what counts.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    ticks.set(pid, Number(fields[11]) + Number(fields[12]));
  }
  return ticks;
}

/**
 * Milliseconds from a COMMIT that is sent to the moment when this process hears of the message from the
 * relay's, each time after it has fallen asleep; and of a commit and a read of a row, in between.
 */
async function wakeUps(
  { pool, store }: Outbox,
  relay: RelayProcess,
  times: number,
): Promise<{ wakes: number[]; floor: number[] }> {
  await createFloor(pool);
  const wakes: number[] = [];
  const floor: number[] = [];
  const writer = await pool.connect();
  const reader = await pool.connect();
  try {
    for (let i = 0; i < times; i++) {
      // Not in step with its pauses.
      await sleep(FALLS_ASLEEP + Math.random() * 1000);
      const heard = relay.next();
      await writer.query('BEGIN');
      await store.add(writer, benchMessage(i));
      const sent = performance.now();
      await writer.query('COMMIT');
      wakes.push((await heard) - sent);
      floor.push(await commitAndRead(writer, reader, i));
    }
  } finally {
    writer.release();
    reader.release();
  }
  return { wakes, floor };
}

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { row, type Row } from './report.js';

/** The peak memory of a relay that drains the whole log, beside one that drains a tenth of it, each in a process of its own. */
export async function memory(url: string, messages: number): Promise<Row> {
  const tenth = await peak(url, Math.ceil(messages / 10));
  const all = await peak(url, messages);
  return row('memory', all / 2 ** 20, 'MiB peak', tenth / 2 ** 20);
}

async function peak(url: string, messages: number): Promise<number> {
  const script = fileURLToPath(new URL('drain-process.ts', import.meta.url));
  const child = spawn(process.execPath, [...process.execArgv, script, url, String(messages)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (data: Buffer) => {
    output += data.toString();
  });
  const [code] = (await once(child, 'close')) as [number];
  if (code !== 0) throw new Error(`the relay's process ended with ${String(code)}`);
  return Number(output);
}

/** What is dead in the log and in the tables beside it, after everything above. */
export async function deadTuples(pool: pg.Pool): Promise<Row[]> {
  await pool.query('SELECT pg_stat_force_next_flush()');
  const { rows } = await pool.query<{ log: string; changed: string; all: string }>(`
    SELECT sum(n_dead_tup)::text AS all,
      sum(n_dead_tup) FILTER (WHERE relname LIKE 'messages\\_%')::text AS log,
      sum(n_tup_upd + n_tup_del) FILTER (WHERE relname LIKE 'messages\\_%')::text AS changed
    FROM pg_stat_user_tables WHERE schemaname = 'messenger'`);
  const [found] = rows;
  return [
    row('dead-tuples', Number(found?.all), 'rows, all tables'),
    row('dead-tuples/log', Number(found?.log), 'rows, the log'),
    row('log/updates-and-deletes', Number(found?.changed), 'rows, the log'),
  ];
}

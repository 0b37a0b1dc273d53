import type pg from 'pg';
import { row, type Row } from './report.js';
import type { Bench } from './setup.js';

/** What is dead in the log and in the tables beside it, after all that was measured on it. */
export async function deadTuples(bench: Bench): Promise<Row[]> {
  const { pool } = await bench.log();
  const { all, log, changed } = await countsOf(pool);
  return [
    row('dead-tuples', all, 'rows, all tables'),
    row('dead-tuples/log', log, 'rows, the log'),
    row('log/updates-and-deletes', changed, 'rows, the log'),
  ];
}

/** How many rows of the log were ever updated or deleted. */
export async function changesOfLog(pool: pg.Pool): Promise<number> {
  return (await countsOf(pool)).changed;
}

async function countsOf(pool: pg.Pool): Promise<{ log: number; changed: number; all: number }> {
  await pool.query('SELECT pg_stat_force_next_flush()');
  const { rows } = await pool.query<{ log: number; changed: number; all: number }>(`
    SELECT sum(n_dead_tup)::float AS all,
      (sum(n_dead_tup) FILTER (WHERE relname LIKE 'messages\\_%'))::float AS log,
      (sum(n_tup_upd + n_tup_del) FILTER (WHERE relname LIKE 'messages\\_%'))::float AS changed
    FROM pg_stat_user_tables WHERE schemaname = 'messenger'`);
  return rows[0]!;
}

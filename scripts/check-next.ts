/**
 * Installs examples/next with the packed package, builds it with both bundlers of Next.js, and serves it on a real
 * PostgreSQL: what is stored is published after the response or by the cron job, and no lease is kept. It downloads
 * Next.js.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { newMessage } from '../src/index.js';
import { PostgresStore } from '../src/stores/postgres/index.js';
import { freePort, startPostgres } from '../test/support/embedded-postgres.js';
import { packInto, run } from './pack.js';

const BUNDLERS = ['turbopack', 'webpack'];
/** Milliseconds. */
const LONGEST_WAIT = 30_000;
const SECRET = 'CRON_SECRET';

const folder = mkdtempSync(join(tmpdir(), 'next-'));
const next = join(folder, 'node_modules/next/dist/bin/next');
const postgres = await startPostgres(17);
const pool = new pg.Pool({ connectionString: postgres.url() });
const problems: string[] = [];

/** Starts what was built; resolves when it answers. */
async function serve(signal: AbortSignal) {
  const port = String(await freePort());
  const args = [next, 'start', '--hostname', '127.0.0.1', '--port', port];
  const child = spawn(process.execPath, args, { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  const lines = createInterface({ input: child.stdout });
  const seen: string[] = [];
  lines.on('line', (line) => seen.push(line));
  const printed = async (text: string) => {
    while (!seen.some((line) => line.includes(text))) await once(lines, 'line', { signal });
  };
  const stop = async () => {
    child.kill('SIGTERM');
    await ended;
  };
  try {
    await printed('Ready in');
  } catch (error) {
    await stop();
    throw error;
  }
  return { at: `http://127.0.0.1:${port}`, printed, stop };
}

/** The partitions that somebody holds. */
async function leases(): Promise<number> {
  const { rows } = await pool.query('SELECT 1 FROM messenger.cursors WHERE owner IS NOT NULL');
  return rows.length;
}

/** Stores a message that no request publishes. */
async function store(): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    const order = JSON.stringify({ id: 'by itself', item: 'chair', pieces: 1 });
    await new PostgresStore(pool).add(client, newMessage(order, { topic: 'order.placed' }));
    await client.query('COMMIT');
  } finally {
    client.release();
  }
}

/** What does not work of the application that was built last. */
async function check(bundler: string): Promise<void> {
  const expect = (what: string, found: unknown, expected: unknown) => {
    const [is, should] = [JSON.stringify(found), JSON.stringify(expected)];
    if (is !== should) problems.push(`${bundler}: ${what} is ${is}, not ${should}`);
  };
  const signal = AbortSignal.timeout(LONGEST_WAIT);
  const { at, printed, stop } = await serve(signal);
  const drain = async (secret: string) => {
    const response = await fetch(`${at}/api/drain`, { headers: { authorization: `Bearer ${secret}` }, signal });
    return [response.status, await response.json()];
  };
  try {
    await store();
    expect('the answer to a stranger', await drain('another'), [401, { error: 'unauthorized' }]);
    expect('the answer to the cron job', await drain(SECRET), [200, { published: 1 }]);
    expect('what the cron job holds at its end', await leases(), 0);
    expect('the answer to the next cron job', await drain(SECRET), [200, { published: 0 }]);

    const order = { id: bundler, item: 'chair', pieces: 1 };
    const post = async (body: unknown) =>
      (await fetch(`${at}/api/orders`, { method: 'POST', body: JSON.stringify(body), signal })).status;
    expect('the answer to no order', await post({}), 400);
    expect('the answer to an order', await post(order), 201);
    await printed(`published order.placed ${JSON.stringify(order)}`);
  } finally {
    await stop();
  }
  expect('what after() holds at its end', await leases(), 0);
}

try {
  const example = fileURLToPath(new URL('../examples/next', import.meta.url));
  cpSync(example, folder, { recursive: true });
  run(folder, 'npm', 'install', '--no-audit', '--no-fund', packInto(folder));
  Object.assign(process.env, {
    DATABASE_URL: postgres.url(),
    CRON_SECRET: SECRET,
    NEXT_TELEMETRY_DISABLED: '1',
    NODE_ENV: 'production',
  });
  run(folder, 'npx', '--no-install', 'messenger', 'migrate');
  await pool.query('CREATE TABLE orders (id text PRIMARY KEY, item text NOT NULL, pieces integer NOT NULL)');
  for (const bundler of BUNDLERS) {
    const before = problems.length;
    run(folder, process.execPath, next, 'build', `--${bundler}`);
    await check(bundler);
    console.log(`Next.js, ${bundler}: ${problems.length === before ? 'ok' : 'FAILED'}`);
  }
} finally {
  await pool.end();
  await postgres.remove();
  rmSync(folder, { recursive: true, force: true });
}
for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exit(1);

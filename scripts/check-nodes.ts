/**
 * Installs the packed package as pnpm lays it out, where nothing is found that is not declared; requires and imports
 * every subpath, and stores and relays on a real PostgreSQL, under each supported version of Node: the tests run
 * under one alone. It downloads pnpm, the Nodes and the clients.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import manifest from '../package.json' with { type: 'json' };
import { startPostgres } from '../test/support/embedded-postgres.js';
import { consumer, problemsOf, type Report } from './consumer.js';
import { packInto, run } from './pack.js';

/** The oldest that is supported, and the newest of each line that has come since. */
const NODES = ['20.19.0', '22', '24', '26'];
const PNPM = 'pnpm@10';

/** Prints what it has stored in a transaction when a relay publishes it. */
const relaying = `
  const { Messenger } = require('${manifest.name}');
  const { PostgresStore } = require('${manifest.name}/postgres');
  const pg = require('pg');

  async function main() {
    const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
    const store = new PostgresStore(pool);
    await store.migrate();
    const client = await pool.connect();
    await client.query('BEGIN');
    await store.add(client, 'stored under ' + process.version);
    await client.query('COMMIT');
    client.release();
    const stop = new AbortController();
    const publish = async ({ payload }) => {
      console.log(Buffer.from(payload).toString());
      stop.abort();
    };
    await new Messenger(store, { publish }).start({ signal: stop.signal });
    await pool.end();
  }
  main();
`;

const folder = mkdtempSync(join(tmpdir(), 'nodes-'));
const postgres = await startPostgres();

const problems: string[] = [];
try {
  const tarball = packInto(folder);
  const clients = (
    [
      '@aws-sdk/client-sns',
      '@aws-sdk/client-sqs',
      '@nestjs/common',
      '@nestjs/core',
      'pg',
      'reflect-metadata',
      'rxjs',
    ] as const
  ).map((name) => `${name}@${manifest.devDependencies[name]}`);
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true }));
  writeFileSync(join(folder, 'main.js'), consumer);
  writeFileSync(join(folder, 'relay.js'), relaying);
  run(folder, 'npx', '-y', PNPM, 'add', '--ignore-workspace', tarball, ...clients);
  for (const node of NODES) {
    process.env['DATABASE_URL'] = await postgres.createDatabase(`node-${node}`);
    const under = (file: string) => run(folder, 'npx', '-y', '-p', `node@${node}`, 'node', file);
    const report = JSON.parse(under('main.js')) as Report;
    const found = problemsOf(report);
    if (!`${report.node}.`.startsWith(`${node}.`)) found.push(`this is Node ${report.node}`);
    const published = under('relay.js').trim();
    if (published !== `stored under v${report.node}`) found.push(`a relay published "${published}"`);
    problems.push(...found.map((problem) => `Node ${node}: ${problem}`));
    console.log(`Node ${report.node}: ${found.length === 0 ? 'ok' : 'FAILED'}`);
  }
} finally {
  await postgres.remove();
  rmSync(folder, { recursive: true, force: true });
}
for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exit(1);

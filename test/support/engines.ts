import type { TestProject } from 'vitest/node';
import { startPgBouncer } from './pgbouncer.js';
import { everyVersion, startPostgres, type PostgresVersion } from './embedded-postgres.js';

declare module 'vitest' {
  interface ProvidedContext {
    /** The base connection string of each shared PostgreSQL server. */
    postgres: Record<PostgresVersion, string>;
  }
}

/**
 * Starts the shared engines once for the whole run, and stops them. With `POSTGRES_POOLER=pgbouncer` every
 * connection to them leads through a PgBouncer in transaction mode.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const started: { remove: () => Promise<void> }[] = [];
  const urls: Partial<Record<PostgresVersion, string>> = {};
  for (const version of everyVersion) {
    // Processes crash in these tests, never the machine: what the server has written is there without being flushed.
    const server = await startPostgres(version, { fsync: 'off' });
    started.unshift(server);
    urls[version] = server.url();
    if (process.env['POSTGRES_POOLER'] !== 'pgbouncer') continue;
    const pooler = await startPgBouncer(server.port);
    started.unshift(pooler);
    urls[version] = pooler.through(server.url());
  }
  project.provide('postgres', urls as Record<PostgresVersion, string>);
  return async () => {
    for (const engine of started) await engine.remove();
  };
}

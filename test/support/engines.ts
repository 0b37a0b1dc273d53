import type { TestProject } from 'vitest/node';
import { postgresVersions, startPostgres, type EmbeddedPostgres, type PostgresVersion } from './embedded-postgres.js';

declare module 'vitest' {
  interface ProvidedContext {
    /** The base connection string of each shared PostgreSQL server. */
    postgres: Record<PostgresVersion, string>;
  }
}

/** Starts the shared engines once for the whole run, and stops them. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const servers: EmbeddedPostgres[] = [];
  const urls: Partial<Record<PostgresVersion, string>> = {};
  for (const version of postgresVersions) {
    const server = await startPostgres(version);
    servers.push(server);
    urls[version] = server.url();
  }
  project.provide('postgres', urls as Record<PostgresVersion, string>);
  return async () => {
    await Promise.all(servers.map((server) => server.remove()));
  };
}

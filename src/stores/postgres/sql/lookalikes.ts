import { MessengerError, toError } from '../../../core/errors.js';
import type { Connection, Database } from './database.js';

/**
 * Servers that speak PostgreSQL's protocol but store data differently. Each is recognised by the string that
 * `version()` returns.
 */
const BY_VERSION: readonly (readonly [name: string, version: RegExp])[] = [
  ['CockroachDB', /^CockroachDB /],
  // PostgreSQL 15.2-YB-2025.1.0.0-b0 on x86_64-pc-linux-gnu, …
  ['YugabyteDB', /-YB-\d/],
  ['Amazon Redshift', /\bRedshift\b/],
  ['Greenplum', /\bGreenplum Database\b/],
  ['Apache Cloudberry', /\bCloudberry\b/],
  ['openGauss', /\b(openGauss|GaussDB)\b/],
  ['Materialize', /\bMaterialize\b/],
  ['RisingWave', /\bRisingWave\b/],
  ['CrateDB', /\bCrateDB\b/],
  ['QuestDB', /\bQuestDB\b/],
];

/**
 * In PostgreSQL, `version()` always includes the platform or the compiler. In Aurora DSQL (`PostgreSQL 16`) and Cloud
 * Spanner (`PostgreSQL 14.1`), it returns only the name and a version number.
 */
const BARE = /^PostgreSQL \d+(\.\d+)*$/;

/**
 * Two columns that show which kind of server this is. They work on all of these servers, and read none of our tables.
 */
export const SERVER = {
  version: 'pg_catalog.version()',
  mapsRoles: `(SELECT count(*) > 0 FROM pg_catalog.pg_class c
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'sys' AND c.relname = 'iam_pg_role_mappings')::text`,
} as const;

/**
 * @throws MessengerError `UNSUPPORTED` if the values of the `SERVER` columns come from a server that is not PostgreSQL.
 */
export function assertPostgres({ version, mapsRoles }: Readonly<Record<keyof typeof SERVER, unknown>>): void {
  const name = nameOf(String(version), mapsRoles === 'true');
  if (name === undefined) return;
  throw refused(`this server is ${name} (version() is ${JSON.stringify(String(version).slice(0, 80))})`);
}

function nameOf(version: string, mapsRoles: boolean): string | undefined {
  // No other server has this view of IAM roles.
  if (mapsRoles) return 'Amazon Aurora DSQL';
  const [name] = BY_VERSION.find(([, pattern]) => pattern.test(version)) ?? [];
  return name ?? (BARE.test(version) ? 'Amazon Aurora DSQL, Cloud Spanner or a similar database' : undefined);
}

/** `feature_not_supported`. */
const FEATURE_NOT_SUPPORTED = '0A000';

/**
 * Wraps a database to detect a server that refuses to begin a transaction. Every PostgreSQL server can begin a READ
 * COMMITTED transaction with timeouts. Aurora DSQL can refuse that, before we can ask which server it is. The
 * transaction then rejects with a MessengerError `UNSUPPORTED`.
 */
export function onPostgres(database: Database): Database {
  return {
    ...database,
    async transaction(preamble, work, bounds) {
      const state = { hasBegun: false };
      const begun = (connection: Connection) => {
        state.hasBegun = true;
        return work(connection);
      };
      try {
        return await database.transaction(preamble, begun, bounds);
      } catch (error) {
        const { code } = (error ?? {}) as { code?: unknown };
        if (state.hasBegun || code !== FEATURE_NOT_SUPPORTED) throw error;
        throw refused(
          `this server does not begin a transaction the way PostgreSQL does ("${toError(error).message}"): it is Amazon Aurora DSQL or a similar database`,
          error,
        );
      }
    },
  };
}

function refused(what: string, cause?: unknown): MessengerError {
  return new MessengerError(
    'UNSUPPORTED',
    `${what}, not PostgreSQL. Its snapshots do not show which transactions were running, so messages would be lost or overtake one another. ` +
      'Use PostgreSQL 14 or newer, or a service that runs it, such as Amazon RDS, Aurora PostgreSQL, AlloyDB, Neon or Supabase',
    cause === undefined ? {} : { cause },
  );
}

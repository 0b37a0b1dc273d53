/**
 * Servers that speak PostgreSQL's protocol but are not PostgreSQL: refused by name, before anything is created or read.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Messenger } from '../../../src/core/relay/messenger.js';
import { assertPostgres } from '../../../src/stores/postgres/sql/lookalikes.js';
import { PostgresStore } from '../../../src/stores/postgres/store.js';
import { createDatabase } from './support.js';

/** What `version()` returns on each, and the columns that tell what a server is, as these servers answer. */
const LOOKALIKES = [
  ['CockroachDB', 'CockroachDB CCL v24.3.1 (x86_64-pc-linux-gnu, built 2024/12/09 20:42:31, go1.22.8)', false],
  ['CockroachDB', 'CockroachDB OSS v22.2.0 (aarch64-unknown-linux-gnu, built 2022/12/05, go1.19.1)', false],
  [
    'YugabyteDB',
    'PostgreSQL 11.2-YB-2.20.1.0-b0 on x86_64-pc-linux-gnu, compiled by clang version 16.0.6, 64-bit',
    false,
  ],
  [
    'YugabyteDB',
    'PostgreSQL 15.2-YB-2025.1.0.0-b0 on aarch64-unknown-linux-gnu, compiled by clang version 17, 64-bit',
    false,
  ],
  ['Amazon Aurora DSQL', 'PostgreSQL 16', true],
  ['Amazon Aurora DSQL', 'PostgreSQL 16', false],
  // In case it names its platform one day.
  ['Amazon Aurora DSQL', 'PostgreSQL 17.2 on aarch64-unknown-linux-gnu, compiled by gcc, 64-bit', true],
  ['Cloud Spanner', 'PostgreSQL 14.1', false],
  [
    'Amazon Redshift',
    'PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2, Redshift 1.0.54052',
    false,
  ],
  ['Greenplum', 'PostgreSQL 12.12 (Greenplum Database 7.0.0 build dev) on x86_64-pc-linux-gnu, compiled by gcc', false],
  ['Materialize', 'PostgreSQL 9.5.0 on x86_64-unknown-linux-gnu (Materialize v0.122.0)', false],
  ['RisingWave', 'PostgreSQL 13.14.0-RisingWave-2.1.0 (94d4a4c)', false],
  ['CrateDB', 'CrateDB 5.9.5 (built 2024-12-17, Linux 6.8 amd64, OpenJDK 64-Bit Server VM 22.0.2)', false],
] as const;

/** Real PostgreSQL, as services and builds name themselves. */
const REAL = [
  'PostgreSQL 14.13 on x86_64-pc-linux-musl, compiled by gcc (Alpine 13.2.1) 13.2.1 20240309, 64-bit',
  'PostgreSQL 15.3, compiled by Visual C++ build 1937, 64-bit',
  'PostgreSQL 17.4 on x86_64-windows, compiled by msvc-19.43.34808, 64-bit',
  'PostgreSQL 18beta1 on x86_64-linux, compiled by gcc-14.2.0, 64-bit',
  'PostgreSQL 16.4 on aarch64-unknown-linux-gnu, compiled by gcc (GCC) 9.5.0, 64-bit',
  'PostgreSQL 17.5 (6bc9ef8) on aarch64-unknown-linux-gnu, compiled by gcc (Debian 12.2.0-14) 12.2.0, 64-bit',
  'PostgreSQL 15.7 (EnterpriseDB Advanced Server 15.7.0) on x86_64-pc-linux-gnu, compiled by gcc, 64-bit',
  'PostgreSQL 17.5 on x86_64-pc-linux-gnu, compiled by emcc (Emscripten gcc/clang-like replacement) 3.1.74, 32-bit',
] as const;

let url: string;
let pool: pg.Pool;
beforeAll(async () => {
  url = await createDatabase(17, 'lookalikes');
  pool = new pg.Pool({ connectionString: url });
  // Each store that is built on the pool adds a listener.
  pool.setMaxListeners(100);
});
afterAll(() => pool.end());

type Answer = { rows: unknown[][] } | undefined;

/** A pool whose queries are answered by `script`, or else by the server. */
function scripted(script: (text: string) => Answer): pg.Pool {
  return new Proxy(pool, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (name !== 'connect') return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      return async () => {
        const client = await pool.connect();
        const query = client.query.bind(client) as (...args: unknown[]) => Promise<unknown>;
        return new Proxy(client, {
          get(of, member) {
            const found: unknown = Reflect.get(of, member);
            if (member !== 'query') return typeof found === 'function' ? (found.bind(of) as unknown) : found;
            return async (asked: string | { text: string }, ...rest: unknown[]) =>
              script(typeof asked === 'string' ? asked : asked.text) ?? query(asked, ...rest);
          },
        });
      };
    },
  });
}

/** A server that describes itself as a look-alike does. */
const answering = (version: string, mapsRoles: boolean) =>
  scripted((text) => (text.includes('version()') ? { rows: [['false', version, String(mapsRoles)]] } : undefined));

const schemas = async () =>
  (await pool.query<{ nspname: string }>(`SELECT nspname FROM pg_namespace WHERE nspname = 'messenger'`)).rows;

/** The error that a call must reject with. */
const refuses = (name: string, more = '') => ({
  code: 'UNSUPPORTED',
  message: expect.stringMatching(
    new RegExp(`${name}.*${more}.*not PostgreSQL\\. .* Use PostgreSQL 14 or newer`),
  ) as string,
});

describe.each(LOOKALIKES)('%s, whose version() is %s', (name, version, mapsRoles) => {
  it('is refused by migrate, which creates nothing', async () => {
    const store = new PostgresStore(answering(version, mapsRoles));
    await expect(store.migrate()).rejects.toMatchObject(refuses(name));
    expect(await schemas()).toEqual([]);
  });

  it('is refused by a relay at its start, as a store on which it cannot work', async () => {
    const messenger = new Messenger(new PostgresStore(answering(version, mapsRoles)), {
      publish: () => Promise.resolve(),
    });
    await expect(messenger.start()).rejects.toMatchObject({ code: 'FATAL', cause: refuses(name) });
  });
});

describe('a server that does not begin a transaction as PostgreSQL does', () => {
  const refusing = (code: string) =>
    scripted((text) => {
      if (!text.startsWith('BEGIN')) return undefined;
      throw Object.assign(new Error('unsupported isolation level: READ COMMITTED'), { code, severity: 'ERROR' });
    });

  it('is refused by migrate and by a relay, with an error that quotes it', async () => {
    const store = new PostgresStore(refusing('0A000'));
    const expected = refuses(
      '"unsupported isolation level: READ COMMITTED"',
      'Amazon Aurora DSQL or a similar database',
    );
    await expect(store.migrate()).rejects.toMatchObject(expected);
    const messenger = new Messenger(store, { publish: () => Promise.resolve() });
    await expect(messenger.start()).rejects.toMatchObject({ code: 'FATAL', cause: expected });
  });

  it('keeps its own error if that is a different one', async () => {
    await expect(new PostgresStore(refusing('57P03')).migrate()).rejects.toMatchObject({ code: '57P03' });
  });
});

describe('PostgreSQL itself', () => {
  it.each(REAL)('is not refused: %s', (version) => {
    expect(() => {
      assertPostgres({ version, mapsRoles: 'false' });
    }).not.toThrow();
  });

  it('is not refused for a schema "sys" of the application, nor by a function version() of its own', async () => {
    await pool.query(`CREATE SCHEMA sys; CREATE TABLE sys.jobs (id text);
      CREATE SCHEMA mine; CREATE FUNCTION mine.version() RETURNS text LANGUAGE sql AS $$ SELECT 'CockroachDB CCL v1' $$;
      ALTER DATABASE lookalikes SET search_path = mine, pg_catalog`);
    const fresh = new pg.Pool({ connectionString: url });
    expect(await new PostgresStore(fresh).migrate()).not.toEqual([]);
    await new PostgresStore(fresh).messages(1);
    await fresh.end();
  });
});

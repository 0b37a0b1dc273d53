/**
 * Settings of a database, a role, a session or a client library change nothing that is stored, published or reported.
 */
import { PGlite } from '@electric-sql/pglite';
import { neonConfig, Pool as NeonPool } from '@neondatabase/serverless';
import pg from 'pg';
import postgres from 'postgres';
import { beforeAll, describe, expect, inject, it, onTestFinished } from 'vitest';
import { WebSocket } from 'ws';
import { newMessage } from '../../../src/index.js';
import { PostgresStore } from '../../../src/stores/postgres/index.js';
import { inTransaction, newDatabase } from '../../support/database.js';
import { postgresVersions } from '../../support/embedded-postgres.js';
import { startNeonProxy } from '../../support/neon-proxy.js';
import { life, type Opened } from './life.js';
import { candidates } from './settings-list.js';

type Open = (url: string) => Promise<Opened> | Opened;

const throughPg =
  (config: pg.PoolConfig = {}): Open =>
  (url) => {
    const pool = new pg.Pool({ ...config, connectionString: url, max: 4 });
    return { client: pool, transaction: (work) => inTransaction(pool, work), close: () => pool.end() };
  };
const throughPostgresJs =
  (options: postgres.Options<Record<string, postgres.PostgresType>> = {}): Open =>
  (url) => {
    const sql = postgres(url, { max: 4, onnotice: () => undefined, ...options } as object);
    return {
      client: sql,
      transaction: (work) => sql.begin((handle) => work(handle)) as ReturnType<typeof work>,
      close: () => sql.end(),
    };
  };
const throughNeon: Open = async (url) => {
  const proxy = await startNeonProxy(url);
  neonConfig.webSocketConstructor = WebSocket;
  neonConfig.useSecureWebSocket = false;
  neonConfig.pipelineConnect = false;
  neonConfig.wsProxy = () => proxy.webSocket;
  const pool = new NeonPool({ connectionString: url, max: 4 });
  return {
    client: pool,
    transaction: (work) => inTransaction(pool as unknown as pg.Pool, work),
    close: async () => {
      await pool.end();
      await proxy.close();
    },
  };
};
const LIBRARIES: Record<string, Open> = {
  pg: throughPg(),
  'postgres.js': throughPostgresJs(),
  'postgres.js without prepared statements': throughPostgresJs({ prepare: false }),
};

/** A life on a database of its own, after `prepare`. */
async function lived(open: Open, url: string, options?: Parameters<typeof life>[1]): Promise<Record<string, unknown>> {
  const opened = await open(url);
  try {
    return await life(opened, options);
  } finally {
    await opened.close();
  }
}

/** The settings of one database, and of others that are made of them. */
async function setAll(url: string, settings: readonly (readonly [string, string])[]): Promise<void> {
  const name = new URL(url).pathname.slice(1);
  const admin = new pg.Client({ connectionString: url });
  await admin.connect();
  try {
    for (const [setting, value] of settings) {
      const text = /^(datestyle|search_path)$/i.test(setting) ? value : pg.escapeLiteral(value);
      await admin.query(`ALTER DATABASE ${name} SET ${setting} = ${text === '' ? "''" : text}`);
    }
  } finally {
    await admin.end();
  }
}

/**
 * Each setting once with each of its values, as many as possible at once: as many rounds as the longest list has
 * values.
 */
function roundsOf(all: Record<string, readonly string[]>): (readonly [string, string])[][] {
  const settings = Object.entries(all).filter(([, values]) => values.length > 0);
  const rounds = Math.max(...settings.map(([, values]) => values.length));
  return Array.from({ length: rounds }, (_, n) =>
    settings.map(([name, values]) => [name, values[n % values.length] as string] as const),
  );
}

/** In parallel, because some settings make every commit wait. All are awaited. */
async function together<T>(all: readonly T[], each: (one: T) => Promise<void>): Promise<void> {
  const settled = await Promise.allSettled(all.map(each));
  for (const one of settled) if (one.status === 'rejected') throw one.reason;
}

describe.each(postgresVersions)('PostgreSQL %i', (version) => {
  let server: string;
  let expected: Record<string, unknown>;
  let all: Record<string, readonly string[]>;
  beforeAll(async () => {
    server = inject('postgres')[version];
    const admin = new pg.Client({ connectionString: server });
    await admin.connect();
    all = await candidates(admin);
    await admin.end();
    expected = await lived(throughPg(), await newDatabase(server));
  });

  // Every number and switch has had its values after two rounds, every choice after two more.
  it.each(Object.entries(LIBRARIES).slice(0, version === 17 ? 3 : 1))(
    '%s: no setting changes what the store reads',
    async (name, open) => {
      expect(Object.keys(all).length).toBeGreaterThan(150);
      const rounds = roundsOf(all).slice(0, name === 'pg' && version === 17 ? 4 : 2);
      await together(rounds, async (round) => {
        const url = await newDatabase(server);
        await setAll(url, round);
        expect(await lived(open, url), JSON.stringify(round)).toEqual(expected);
      });
    },
  );

  it('the application’s own functions and operators are not mistaken for PostgreSQL’s', async () => {
    const url = await newDatabase(server);
    const admin = new pg.Client({ connectionString: url });
    await admin.connect();
    onTestFinished(() => admin.end());
    for (const sql of [
      `CREATE FUNCTION public.never(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false'`,
      `CREATE OPERATOR public.= (FUNCTION = public.never, LEFTARG = text, RIGHTARG = text)`,
      `CREATE FUNCTION public.never(bigint, bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false'`,
      `CREATE OPERATOR public.> (FUNCTION = public.never, LEFTARG = bigint, RIGHTARG = bigint)`,
      `CREATE FUNCTION public.pg_current_snapshot() RETURNS pg_snapshot LANGUAGE sql AS $$SELECT '1:1:'::pg_snapshot$$`,
      `CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$SELECT '2000-01-01'::timestamptz$$`,
      `CREATE FUNCTION public.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS $$SELECT '3'::xid8$$`,
    ])
      await admin.query(sql);
    await setAll(url, [['search_path', 'public, pg_catalog']]);
    expect(await lived(throughPg(), url)).toEqual(expected);
  });

  it('the settings of a role and of a session change nothing either', async () => {
    const settings = {
      bytea_output: 'escape',
      extra_float_digits: '-15',
      DateStyle: 'Postgres',
      TimeZone: 'Asia/Kolkata',
    };
    const options = Object.entries(settings)
      .map(([name, value]) => `-c ${name}=${value}`)
      .join(' ');
    await together([throughPg({ options }), throughPostgresJs({ connection: settings })], async (open) => {
      expect(await lived(open, await newDatabase(server))).toEqual(expected);
    });
  });

  if (version === 17) {
    // On pg alone, to be told by its name; each has ended connections, or changed what was seen.
    it.each([
      ['exit_on_error', 'on'],
      ['bytea_output', 'escape'],
      ['lock_timeout', '1ms'],
      ['quote_all_identifiers', 'on'],
    ])('%s = %s by itself neither', async (...setting) => {
      const url = await newDatabase(server);
      await setAll(url, [setting]);
      expect(await lived(throughPg(), url)).toEqual(expected);
    });

    it('Neon: the format of results changes nothing', async () => {
      const url = await newDatabase(server);
      await setAll(url, [
        ['bytea_output', 'escape'],
        ['extra_float_digits', '-15'],
        ['datestyle', 'German'],
        ['lock_timeout', '1ms'],
      ]);
      expect(await lived(throughNeon, url)).toEqual(expected);
    });

    it('JSON payloads arrive as they were stored', async () => {
      const json = { jsonPayload: true };
      const seen = await lived(throughPg(), await newDatabase(server), json);
      await together(roundsOf(all).slice(0, 2), async (round) => {
        const url = await newDatabase(server);
        await setAll(url, round);
        expect(await lived(throughPg(), url, json)).toEqual(seen);
      });
    });
  }
});

describe('options of a client library', () => {
  const server = () => inject('postgres')[17];
  let expected: Record<string, unknown>;
  beforeAll(async () => {
    expected = await lived(throughPg(), await newDatabase(server()));
  });

  it('parsers that are set for pg as a whole or for a pool change nothing', async () => {
    const setParser = pg.types.setTypeParser.bind(pg.types) as (
      oid: number,
      parser: (value: string) => unknown,
    ) => void;
    const getParser = pg.types.getTypeParser.bind(pg.types) as (oid: number) => (value: string) => unknown;
    const before = new Map([17, 25, 20, 114].map((oid) => [oid, getParser(oid)]));
    for (const oid of before.keys()) setParser(oid, () => 'parsed');
    try {
      const url = await newDatabase(server());
      const opened = await throughPg({ types: { getTypeParser: () => () => 'pool' } })(url);
      expect(await life(opened)).toEqual(expected);
      await opened.close();
    } finally {
      for (const [oid, parser] of before) setParser(oid, parser);
    }
  });

  it('pg’s binary format is refused', async () => {
    const { client, close } = await throughPg({ binary: true } as pg.PoolConfig)(await newDatabase(server()));
    onTestFinished(async () => {
      await close();
    });
    const refused = { code: 'INVALID_OPTION', message: expect.stringContaining('binary') as unknown };
    await expect(new PostgresStore(client).migrate()).rejects.toMatchObject(refused);
  });

  it('transforms and types of postgres.js change nothing', async () => {
    const shout = { to: 25, from: [25, 17, 20], serialize: (x: unknown) => `${String(x)} `, parse: () => 'parsed' };
    const options = {
      transform: { ...postgres.camel, value: { from: () => 'transformed' }, undefined: null },
      types: { shout },
    };
    expect(await lived(throughPostgresJs(options as never), await newDatabase(server()))).toEqual(expected);
  });

  it.each([
    ['transform.row', { transform: { row: { from: (row: unknown) => [row] } } }],
    ['fetch_types', { fetch_types: false }],
  ])('%s of postgres.js is refused to the store, and not to who writes', async (option, options) => {
    const url = await newDatabase(server());
    const { client, transaction, close } = await throughPostgresJs(options as never)(url);
    onTestFinished(async () => {
      await close();
    });
    const refused = { code: 'INVALID_OPTION', message: expect.stringContaining(option) as unknown };
    const store = new PostgresStore(client);
    await expect(store.migrate()).rejects.toMatchObject(refused);
    const { client: another, close: closeAnother } = await throughPg()(url);
    const reader = new PostgresStore(another);
    await reader.migrate();
    await transaction((handle) => store.add(handle, newMessage('x', { id: 'x' })));
    expect((await reader.messages(10)).map(({ id }) => id)).toEqual(['x']);
    await reader.close();
    await closeAnother();
  });

  it.each(['LATIN1', 'WIN1252'])('a session in %s is refused', async (encoding) => {
    const { client, close } = await throughPostgresJs({ connection: { client_encoding: encoding } })(
      await newDatabase(server()),
    );
    onTestFinished(async () => {
      await close();
    });
    const store = new PostgresStore(client);
    await store.migrate();
    await expect(store.openFeed({ destination: 'default', pageSize: 1 })).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining(encoding) as unknown,
    });
  });

  it('settings, parsers and serializers of PGlite change nothing', async () => {
    const throughPGlite =
      (options: object = {}, settings = ''): Open =>
      async () => {
        const db = await PGlite.create(options);
        if (settings !== '') await db.exec(settings);
        return {
          client: db,
          transaction: (work) => db.transaction((handle) => work(handle)),
          close: () => db.close(),
        };
      };
    expect(await lived(throughPGlite(), '')).toEqual(expected);
    const odd = {
      parsers: { 17: () => 'parsed', 25: () => 'parsed' },
      serializers: { 25: (x: unknown) => `${String(x)} `, 20: () => '7' },
    };
    const settings = `SET bytea_output = 'escape'; SET extra_float_digits = -15; SET DateStyle = 'German'; SET search_path = nowhere; SET quote_all_identifiers = on; SET exit_on_error = on`;
    expect(await lived(throughPGlite(odd, settings), '')).toEqual(expected);
  });
});

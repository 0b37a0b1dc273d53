import { PGlite } from '@electric-sql/pglite';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import type { Page } from '../../../src/core/contracts/feed.js';
import { newMessage } from '../../../src/core/contracts/message.js';
import { databaseOf } from '../../../src/stores/postgres/drivers/index.js';
import { preamble, type Database } from '../../../src/stores/postgres/sql/database.js';
import { storeError } from '../../../src/stores/postgres/schema/store-error.js';
import { PostgresStore } from '../../../src/stores/postgres/index.js';
import type { Names } from '../../../src/stores/postgres/sql/names.js';
import { statement } from '../../../src/stores/postgres/sql/statement.js';
import { postgresVersions } from '../../support/embedded-postgres.js';

const bounds = { timeout: 10_000 };
const sleepy = statement('sleepy', "SELECT pg_sleep(5)::text, 'x'");

/** What every driver does with a transaction, whoever owns its client. */
function behaves(
  name: string,
  open: () => Promise<{ client: unknown; close: () => Promise<unknown> }>,
  canTimeOut = true,
): void {
  describe(name, () => {
    let database: Database;
    let close: () => Promise<unknown>;
    beforeAll(async () => {
      const opened = await open();
      ({ close } = opened);
      database = databaseOf(opened.client);
      await database.transaction(
        preamble(5_000),
        async (connection) => {
          await connection.query(statement('schema', 'CREATE SCHEMA IF NOT EXISTS driver_test'));
          await connection.query(statement('drop', 'DROP TABLE IF EXISTS driver_test.rows'));
          await connection.query(statement('table', 'CREATE TABLE driver_test.rows (n integer)'));
        },
        bounds,
      );
    });
    afterAll(() => close());

    const run = <T>(text: string, values: (string | number | null)[] = []) =>
      database.transaction(
        preamble(5_000),
        async (connection) => (await connection.query(statement('t', text), values)) as T[],
        bounds,
      );
    const count = async () => Number((await run<string[]>('SELECT count(*)::text FROM driver_test.rows'))[0]?.[0]);

    it('returns arrays of text and bytes, and binds text, numbers and null', async () => {
      const [row] = await run<unknown[]>(
        "SELECT $1::text, $2::bigint::text, $3::text, '\\x00ff5c'::bytea, NULL::bytea, $4::text::text[]::text, (1 = 1)::text",
        ['grüße 😀', 7, null, '{a,b}'],
      );
      expect(row?.slice(0, 3)).toEqual(['grüße 😀', '7', null]);
      expect([...(row?.[3] as Uint8Array)]).toEqual([0, 255, 92]);
      expect(row?.slice(4)).toEqual([null, '{a,b}', 'true']);
    });

    it('commits when the work resolves, and rolls back when it rejects', async () => {
      const before = await count();
      const insert = statement('insert', 'INSERT INTO driver_test.rows VALUES (1)');
      await database.transaction(preamble(5_000), (connection) => connection.query(insert), bounds);
      const failing = database.transaction(
        preamble(5_000),
        async (connection) => {
          await connection.query(insert);
          throw new Error('the work failed');
        },
        bounds,
      );
      await expect(failing).rejects.toThrow('the work failed');
      expect(await count()).toBe(before + 1);
    });

    it('continues after an error of the server, and passes the error on', async () => {
      await expect(run('SELECT 1/0')).rejects.toMatchObject({ code: '22012' });
      await expect(run('SELECT nothing FROM nowhere')).rejects.toMatchObject({ code: '42P01' });
      expect(await run('SELECT 1::text')).toEqual([['1']]);
    });

    it('runs at READ COMMITTED whatever the default is, and leaves no setting behind', async () => {
      const show = "SELECT current_setting('transaction_isolation'), current_setting('statement_timeout')";
      expect(await run(show)).toEqual([['read committed', '5s']]);
      const longer = database.transaction(
        preamble(7_000),
        (connection) => connection.query(statement('s', show)),
        bounds,
      );
      expect(await longer).toEqual([['read committed', '7s']]);
    });

    it('runs a single statement as it runs several: the same values, the same rows, all or nothing', async () => {
      const values = ["o'grüße \\\\ \\' 😀; --", 7, null, '{"a\\\\b","c d"}'];
      const echo = statement(
        'echo',
        "SELECT $1::text, $2::bigint::text, $3::text, $4::text::text[]::text, '\\x00ff5c'::bytea, current_setting('statement_timeout')",
      );
      // The first call prepares the statement.
      for (let i = 0; i < 3; i++) {
        const [row] = await database.once(preamble(4_321), echo, values, bounds);
        expect(row?.slice(0, 4)).toEqual([values[0], '7', null, values[3]]);
        expect([...(row?.[4] as Uint8Array)]).toEqual([0, 255, 92]);
        expect(row?.[5]).toBe('4321ms');
      }
      expect(await run('SHOW statement_timeout')).not.toEqual([['4321ms']]);
      const before = await count();
      const insert = statement(
        'insert-all',
        'INSERT INTO driver_test.rows SELECT 1 / (n - $1::integer) FROM generate_series(1, 3) n',
      );
      for (let i = 0; i < 2; i++) {
        await expect(database.once(preamble(5_000), insert, [3], bounds)).rejects.toMatchObject({ code: '22012' });
        await database.once(preamble(5_000), insert, [4], bounds);
      }
      expect(await count()).toBe(before + 6);
    });

    it('runs simultaneous transactions without mixing them', async () => {
      const before = await count();
      const results = await Promise.all(
        Array.from({ length: 12 }, (_, i) =>
          database
            .transaction(
              preamble(5_000),
              async (connection) => {
                await connection.query(statement('one', 'INSERT INTO driver_test.rows VALUES (2)'));
                if (i % 3 === 0) throw new Error('rolled back');
                await connection.query(statement('two', 'INSERT INTO driver_test.rows VALUES (3)'));
              },
              bounds,
            )
            .then(() => true)
            .catch(() => false),
        ),
      );
      expect(results.filter(Boolean)).toHaveLength(8);
      expect(await count()).toBe(before + 16);
    });

    if (!canTimeOut) return;

    it('no longer waits once its time has passed or its signal is aborted, and works afterwards', async () => {
      const slow = (more: { timeout: number; signal?: AbortSignal }) =>
        database.transaction(preamble(1_000), (connection) => connection.query(sleepy), more);
      await expect(slow({ timeout: 100 })).rejects.toMatchObject({ code: 'TIMEOUT', message: /100 ms/ });
      const reason = new Error('stopped');
      await expect(slow({ timeout: 5_000, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
      expect(await run('SELECT 1::text')).toEqual([['1']]);
      // And the server has ended it by itself.
      await expect(slow({ timeout: 5_000 })).rejects.toMatchObject({ code: '57014' });
      expect(await run('SELECT 1::text')).toEqual([['1']]);
    });
  });
}

for (const version of postgresVersions) {
  const url = inject('postgres')[version];
  const serializable = '-c default_transaction_isolation=serializable';
  behaves(`pg Pool on PostgreSQL ${version}`, async () => {
    const pool = new pg.Pool({ connectionString: url, max: 3, options: serializable });
    return Promise.resolve({ client: pool, close: () => pool.end() });
  });
  behaves(`pg Client on PostgreSQL ${version}`, async () => {
    const client = new pg.Client({ connectionString: url, options: serializable });
    await client.connect();
    return { client, close: () => client.end() };
  });
  behaves(`postgres.js on PostgreSQL ${version}`, async () => {
    const isolated = `${url}?default_transaction_isolation=serializable`;
    const sql = postgres(isolated, { max: 3, onnotice: () => undefined });
    return Promise.resolve({ client: sql, close: () => sql.end({ timeout: 1 }) });
  });
}
behaves(
  'PGlite',
  async () => {
    const db = await PGlite.create();
    return { client: db, close: () => db.close() };
  },
  // PGlite runs in this thread, so nothing can end a statement.
  false,
);

/** The only connection of a pool, and the text of everything that is sent on it from now on. */
async function recorded(pool: pg.Pool) {
  const client = await pool.connect();
  const sent: string[] = [];
  const query = client.query.bind(client);
  client.query = ((what: string | { text: string }) => {
    sent.push(typeof what === 'string' ? what : what.text);
    return query(what as string);
  }) as typeof client.query;
  client.release();
  return { client, sent };
}

describe('pg Pool', () => {
  const url = inject('postgres')[17];

  it('survives a connection that the server ends, idle or in use, and says why', async () => {
    const pool = new pg.Pool({ connectionString: url, max: 1 });
    const database = databaseOf(pool);
    const admin = new pg.Client(url);
    await admin.connect();
    const pid = statement('pid', 'SELECT pg_backend_pid()::text');
    const killed = database.transaction(
      preamble(5_000),
      async (connection) => {
        const [row] = await connection.query(pid);
        await admin.query('SELECT pg_terminate_backend($1)', [Number(row?.[0])]);
        return connection.query(sleepy);
      },
      bounds,
    );
    await expect(killed).rejects.toThrow(/terminat|connection error/i);
    const [row] = await database.transaction(preamble(5_000), (connection) => connection.query(pid), bounds);
    await admin.query('SELECT pg_terminate_backend($1)', [Number(row?.[0])]);
    await expect.poll(() => pool.totalCount).toBe(0);
    await database.transaction(preamble(5_000), (connection) => connection.query(pid), bounds);
    await admin.end();
    await pool.end();
  });

  it('sends a single statement in one round trip once it is prepared, even after the server has forgotten it', async () => {
    const pool = new pg.Pool({ connectionString: url, max: 1 });
    try {
      const { client, sent } = await recorded(pool);
      const database = databaseOf(pool);
      const one = statement('one', 'SELECT $1::text');
      const sentBy = async (value: string) => {
        const before = sent.length;
        expect(await database.once(preamble(5_000), one, [value], bounds)).toEqual([[value]]);
        return sent.length - before;
      };
      expect(await sentBy('a')).toBe(3);
      expect(await sentBy('b')).toBe(1);
      await client.query('DEALLOCATE ALL');
      // As behind a pooler, where another connection has prepared the statement.
      expect(await database.once(preamble(5_000), one, ['c'], bounds)).toEqual([['c']]);
      expect(await database.once(preamble(5_000), one, ['d'], bounds)).toEqual([['d']]);
    } finally {
      await pool.end();
    }
  });

  it('takes one round trip for a poll, and one for a settlement', async () => {
    const pool = new pg.Pool({ connectionString: url, max: 1 });
    const store = new PostgresStore(pool, { schema: 'round trips', notify: false });
    const open = new pg.Client({ connectionString: url });
    try {
      await open.connect();
      await store.migrate();
      const { client, sent } = await recorded(pool);
      const feed = await store.openFeed({ destination: 'default', pageSize: 10 });
      const sentBy = async (work: () => Promise<unknown>) => {
        const before = sent.length;
        await work();
        return sent.length - before;
      };
      // Seen by each snapshot but the first, after which another statement is prepared.
      await open.query('BEGIN; SELECT pg_current_xact_id()');
      for (const [polled, settled] of [
        [3, 3],
        [3, 1],
        [1, 1],
        [1, 1],
      ]) {
        await client.query('BEGIN');
        await store.add(client, newMessage('x'));
        await client.query('COMMIT');
        let page: Page | undefined;
        expect(await sentBy(async () => (page = await feed!.read()))).toBe(polled);
        expect(page?.messages).toHaveLength(1);
        expect(await sentBy(() => feed!.settle(page!, []))).toBe(settled);
      }
      expect(await sentBy(() => feed!.read())).toBe(1);
      await feed!.close();
    } finally {
      await open.end();
      await store.close();
      await pool.end();
    }
  });

  it('gives up on a server that reports every statement as unprepared', async () => {
    let sent = 0;
    const client = {
      query: (what: string | { text: string }) => {
        sent += 1;
        const text = typeof what === 'string' ? what : what.text;
        if (text === 'ROLLBACK') return Promise.resolve();
        return Promise.reject(Object.assign(new Error('unnamed prepared statement does not exist'), { code: '26000' }));
      },
      escapeIdentifier: (text: string) => `"${text}"`,
      escapeLiteral: (text: string) => `'${text}'`,
      connect: () => undefined,
      on: () => undefined,
    };
    const database = databaseOf(client);
    await expect(database.once(preamble(5_000), statement('x', 'SELECT 1'), [], bounds)).rejects.toMatchObject({
      code: '26000',
    });
    expect(sent).toBeLessThan(10);
  });

  it('gets one listener, however many stores it serves', async () => {
    const pool = new pg.Pool({ connectionString: url });
    for (let i = 0; i < 20; i++) new PostgresStore(pool);
    expect(pool.listenerCount('error')).toBe(1);
    await pool.end();
  });

  it('waits for a connection no longer than its time, and gives back one that arrives later', async () => {
    const pool = new pg.Pool({ connectionString: url, max: 1 });
    const database = databaseOf(pool);
    const held = await pool.connect();
    const waiting = database.transaction(preamble(5_000), (connection) => connection.query(sleepy), { timeout: 100 });
    await expect(waiting).rejects.toMatchObject({ code: 'TIMEOUT' });
    held.release();
    await expect.poll(() => [pool.waitingCount, pool.idleCount]).toEqual([0, 1]);
    await pool.end();
  });
});

describe('a pg Client that the application uses too', () => {
  it('is not committed behind the application’s back: in its transaction the store refuses to work', async () => {
    const client = new pg.Client({ connectionString: inject('postgres')[17] });
    await client.connect();
    try {
      const database = databaseOf(client);
      await client.query('BEGIN');
      await expect(
        database.transaction(
          preamble(5_000),
          (connection) => connection.query(statement('one', 'SELECT 1::text')),
          bounds,
        ),
      ).rejects.toMatchObject({
        code: 'INVALID_TRANSACTION',
        message: expect.stringMatching(/a Pool, or a Client of its own/) as string,
      });
      expect(client.getTransactionStatus()).toBe('T');
      await client.query('ROLLBACK');
      await database.transaction(
        preamble(5_000),
        (connection) => connection.query(statement('one', 'SELECT 1::text')),
        bounds,
      );
    } finally {
      await client.end();
    }
  });
});

it.each(postgresVersions)(
  'distinguishes an exhausted pool from a server that does not answer: PostgreSQL %i',
  async (v) => {
    for (const connectionTimeoutMillis of [0, 50]) {
      const pool = new pg.Pool({ connectionString: inject('postgres')[v], max: 1, connectionTimeoutMillis });
      const lent = await pool.connect();
      const working = databaseOf(pool).transaction(preamble(500), () => Promise.resolve(), { timeout: 500 });
      const which = connectionTimeoutMillis === 0 ? 'within 500 ms' : 'within the pool’s connectionTimeoutMillis';
      await expect(working).rejects.toMatchObject({
        code: 'TIMEOUT',
        message: `all 1 connections of the pool are in use: release the clients that you do not need, raise the pool’s max, or give the store a pool of its own. None became free ${which}`,
      });
      lent.release();
      await pool.end();
    }
  },
);

it.each(postgresVersions)('does not mistake default_transaction_read_only for a standby: PostgreSQL %i', async (v) => {
  const options = '-c default_transaction_read_only=on';
  const pool = new pg.Pool({ connectionString: inject('postgres')[v], max: 2, options });
  const client = await pool.connect();
  await client.query('BEGIN');
  const error: unknown = await client.query('CREATE SCHEMA only_reads').catch((thrown: unknown) => thrown);
  await client.query('ROLLBACK');
  expect(storeError(error, {} as Names)).toMatchObject({
    code: 'UNSUPPORTED',
    message: expect.stringMatching(/^this transaction can only read\. .*default_transaction_read_only/) as string,
  });
  client.release();
  await pool.end();
});

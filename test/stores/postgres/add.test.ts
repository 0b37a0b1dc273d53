import { inspect } from 'node:util';
import { PGlite } from '@electric-sql/pglite';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it, onTestFinished, vi } from 'vitest';
import { MessengerError, type ErrorCode } from '../../../src/core/errors.js';
import type { MessengerEvent } from '../../../src/core/contracts/events.js';
import { newMessage, type Message } from '../../../src/core/contracts/message.js';
import {
  PostgresStore,
  type PostgresStoreOptions,
  type TransactionHandle,
} from '../../../src/stores/postgres/index.js';
import { freePort, postgresVersions } from '../../support/embedded-postgres.js';

const url = inject('postgres')[17];
let pool: pg.Pool;
let sql: postgres.Sql;
let db: PGlite;
let store: PostgresStore;

beforeAll(async () => {
  pool = new pg.Pool({ connectionString: url });
  sql = postgres(url, { max: 4, onnotice: () => undefined });
  db = await PGlite.create();
  await pool.query('DROP SCHEMA IF EXISTS add_test CASCADE');
  for (const client of [pool, db]) await new PostgresStore(client, { schema: 'add_test' }).migrate();
  store = new PostgresStore(pool, { schema: 'add_test' });
});
beforeEach(async () => {
  await Promise.all([pool.query('DELETE FROM add_test.messages'), db.query('DELETE FROM add_test.messages')]);
});
afterAll(async () => {
  await Promise.all([pool.end(), sql.end(), db.close()]);
});

const message = () => newMessage('{"n":1}');

/** The ids that are stored, in order, as another connection sees them. */
async function storedIds(schema = 'add_test'): Promise<string[]> {
  const { rows } = await pool.query<{ id: string }>(`SELECT id FROM ${schema}.messages ORDER BY seq`);
  return rows.map(({ id }) => id);
}

/** A client of its own, ended with the test. */
async function connected(config: pg.ClientConfig = {}): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, ...config });
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}

/** The error of a call: one of this package, of this code, whose text matches all of these. */
async function refusal(
  call: Promise<unknown>,
  code: ErrorCode,
  ...texts: readonly (string | RegExp)[]
): Promise<Error> {
  const error: unknown = await call.then(
    () => expect.fail(`expected ${code}, the call resolved`),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(MessengerError);
  expect((error as MessengerError).code).toBe(code);
  for (const text of texts) expect((error as Error).message).toMatch(text);
  return error as Error;
}

it('tells what it stored as an event, whatever becomes of the handler', async () => {
  const events: MessengerEvent[] = [];
  const told = new PostgresStore(pool, {
    schema: 'add_test',
    onEvent: (event) => {
      events.push(event);
    },
  });
  const [logged, failing] = [
    vi.spyOn(console, 'error').mockImplementation(() => undefined),
    new PostgresStore(pool, { schema: 'add_test', onEvent: () => expect.unreachable('in the handler') }),
  ];
  const client = await connected();
  await client.query('BEGIN');
  const [first, second] = [message(), message()];
  await told.add(client, [first, second]);
  await told.add(client, []);
  const third = message();
  await failing.add(client, third);
  await client.query('COMMIT');
  expect(events).toEqual([{ type: 'stored', messages: [first, second] }]);
  expect(await storedIds()).toEqual([first.id, second.id, third.id]);
  expect(logged).toHaveBeenCalledOnce();
  logged.mockRestore();
});

describe('a handle that is no transaction is refused, and says what to pass', () => {
  it('a pg Pool', async () => {
    await refusal(store.add(pool as never, message()), 'INVALID_TRANSACTION', /pg Pool/, /client that ran BEGIN/);
    expect(await storedIds()).toEqual([]);
  });

  it('the root sql of postgres.js', async () => {
    await refusal(store.add(sql as never, message()), 'INVALID_TRANSACTION', /root sql/, /sql\.begin/);
    expect(await storedIds()).toEqual([]);
  });

  it('a PGlite database', async () => {
    await refusal(store.add(db as never, message()), 'INVALID_TRANSACTION', /PGlite database/, /db\.transaction/);
    expect((await db.query('SELECT FROM add_test.messages')).rows).toEqual([]);
  });

  it('a pg client before BEGIN, after COMMIT and after ROLLBACK', async () => {
    const client = await connected();
    await refusal(store.add(client, message()), 'INVALID_TRANSACTION', /not in a transaction/, /await BEGIN before/);
    for (const end of ['COMMIT', 'ROLLBACK']) {
      await client.query('BEGIN');
      await client.query(end);
      await refusal(store.add(client, message()), 'INVALID_TRANSACTION', /not in a transaction/);
    }
    expect(await storedIds()).toEqual([]);
  });

  it('a pg client whose BEGIN was not awaited', async () => {
    const client = await connected();
    const begin = client.query('BEGIN');
    await refusal(store.add(client, message()), 'INVALID_TRANSACTION', /await BEGIN before/);
    await begin;
  });

  it('a pg client that was given back to its pool', async () => {
    const client = await pool.connect();
    await client.query('BEGIN');
    await client.query('COMMIT');
    client.release();
    await refusal(store.add(client, message()), 'INVALID_TRANSACTION', /not in a transaction/);
  });

  it('a pg client that was never connected', async () => {
    await refusal(store.add(new pg.Client(url), message()), 'INVALID_TRANSACTION', /not connected/);
  });

  it('a PGlite transaction that is over', async () => {
    let ended: TransactionHandle | undefined;
    await db.transaction((transaction) => Promise.resolve((ended = transaction)));
    await refusal(store.add(ended!, message()), 'INVALID_TRANSACTION', /over/);
  });

  it.each([
    ['nothing', undefined, 'no transaction handle'],
    ['null', null, 'no transaction handle'],
    ['an object', new Map(), 'an object \\(Map\\)'],
    ['a number', 7, '7 \\(number\\)'],
    ['an object without a prototype', Object.create(null), 'no prototype'],
    ['a query function in an object', { query: () => Promise.resolve() }, 'an object \\(Object\\)'],
  ])('%s, with a list of the known ones', async (_, handle, named) => {
    await refusal(
      store.add(handle as never, message()),
      'INVALID_TRANSACTION',
      new RegExp(named),
      ...[/pg Client or PoolClient/, /sql\.begin/, /PGlite/, /function \(sql, params\)/],
    );
  });
});

describe('a pg client that knows that it is in a transaction', () => {
  /** The values that a client has bound for calls of `add`, the messages aside. */
  function bound(client: pg.Client): unknown[] {
    const values: unknown[] = [];
    const { connection } = client as unknown as { connection: { bind(query: BoundQuery): unknown } };
    const bind = connection.bind.bind(connection);
    // As `pg` does it: each value is made a text as it is written.
    connection.bind = (query) =>
      bind({
        ...query,
        valueMapper: (value, index) => {
          const text = query.valueMapper(value, index);
          if (index === 1) values.push(text);
          return text;
        },
      });
    return values;
  }
  interface BoundQuery {
    valueMapper(value: unknown, index: number): unknown;
  }

  it('says so as it sends the call, and the server need not find out', async () => {
    const client = await connected();
    const values = bound(client);
    await client.query('BEGIN');
    const first = store.add(client, message());
    // Waits in the client's queue behind the first.
    const second = store.add(client, message());
    await Promise.all([first, second]);
    await client.query('COMMIT');
    expect(values).toEqual([null, null]);
    expect(await storedIds()).toHaveLength(2);
  });

  it.each(['COMMIT', 'ROLLBACK'])(
    'does not say so behind a %s that it has not sent yet, and is refused',
    async (end) => {
      const client = await connected();
      const values = bound(client);
      await client.query('BEGIN');
      const ending = client.query(end);
      await refusal(store.add(client, message()), 'INVALID_TRANSACTION', /transaction/);
      await ending;
      expect(values).toEqual(['']);
      expect(await storedIds()).toEqual([]);
    },
  );

  it('does not say so where it sends queries before it has the answers to the last', async () => {
    const client = await connected({ pipeline: true });
    const values = bound(client);
    await client.query('BEGIN');
    const ending = client.query('COMMIT');
    await refusal(store.add(client, message()), 'INVALID_TRANSACTION', /transaction/);
    await ending;
    expect(values).toEqual(['']);
    expect(await storedIds()).toEqual([]);
  });

  it('does not say so for another client, which sends the call in its place', async () => {
    const [client, other] = [await connected(), await connected()];
    const values = bound(other);
    await client.query('BEGIN');
    const wrapper = Object.assign(Object.create(client) as pg.Client, { query: other.query.bind(other) });
    await refusal(store.add(wrapper, message()), 'INVALID_TRANSACTION', /transaction/);
    await client.query('ROLLBACK');
    expect(values).toEqual(['']);
    expect(await storedIds()).toEqual([]);
  });
});

describe('a transaction that has failed', () => {
  it('is refused where pg tells', async () => {
    const client = await connected();
    await client.query('BEGIN');
    await expect(client.query('SELECT 1/0')).rejects.toThrow();
    await refusal(store.add(client, message()), 'INVALID_TRANSACTION', /failed/, /roll it back and start again/);
  });

  const behind: Record<string, (work: (handle: TransactionHandle) => Promise<void>) => Promise<unknown>> = {
    'a function around pg': async (work) => {
      const client = await connected();
      await client.query('BEGIN');
      await client.query('SELECT 1/0').catch(() => undefined);
      await work((text, values) => client.query(text, [...values]));
    },
    'postgres.js': (work) =>
      sql.begin(async (transaction) => {
        await transaction.unsafe('SELECT 1/0').catch(() => undefined);
        await work(transaction);
      }),
    PGlite: (work) =>
      db.transaction(async (transaction) => {
        await transaction.query('SELECT 1/0').catch(() => undefined);
        await work(transaction);
      }),
  };
  it.each(Object.keys(behind))('is told in our words through %s', async (name) => {
    let told = false;
    await behind[name]!(async (handle) => {
      const error = await refusal(store.add(handle, message()), 'INVALID_TRANSACTION', /roll it back/);
      expect((error.cause as { code?: string }).code).toBe('25P02');
      told = true;
    }).catch(() => undefined);
    expect(told).toBe(true);
    expect(await storedIds()).toEqual([]);
  });
});

describe('tables and databases that are not what they should be', () => {
  it('names what to run where the tables are missing', async () => {
    const absences = [
      { code: '3F000', options: { schema: 'no such "schema' } },
      { code: '42883', options: { schema: 'public', tablePrefix: 'other_' } },
    ];
    for (const { code, options } of absences) {
      const absent = new PostgresStore(pool, options);
      const client = await connected();
      await client.query('BEGIN');
      const texts = ['missing', 'messenger migrate --schema', 'await store.migrate()', options.schema];
      const error = await refusal(absent.add(client, message()), 'SCHEMA_MISMATCH', ...texts);
      expect((error.cause as { code?: string }).code).toBe(code);
      await refusal(absent.messages(1), 'SCHEMA_MISMATCH', ...texts);
      await refusal(absent.deletePublishedByExpiration(1), 'SCHEMA_MISMATCH', ...texts);
    }
  });

  it('says jsonPayload where it differs from the tables, to writers and relays', async () => {
    const wrong = new PostgresStore(pool, { schema: 'add_test', jsonPayload: true });
    const client = await connected();
    await client.query('BEGIN');
    await refusal(wrong.add(client, message()), 'SCHEMA_MISMATCH', /jsonPayload/);
    await refusal(wrong.messages(1), 'SCHEMA_MISMATCH', /payload_type = bytea/, /given json/);
    const json = new PostgresStore(pool, { schema: 'add_json', jsonPayload: true });
    await pool.query('DROP SCHEMA IF EXISTS add_json CASCADE');
    await json.migrate();
    await client.query('ROLLBACK');
    await client.query('BEGIN');
    await refusal(
      new PostgresStore(pool, { schema: 'add_json' }).add(client, message()),
      'SCHEMA_MISMATCH',
      /jsonPayload/,
    );
    await client.query('ROLLBACK');
    await client.query('BEGIN');
    await refusal(json.add(client, newMessage('not JSON', { id: 'm-1' })), 'INVALID_MESSAGE', /m-1/, /jsonPayload/);
    await json.add(client, { fine: true });
    await client.query('COMMIT');
    const { rows } = await pool.query(`SELECT payload->>'fine' AS fine FROM add_json.messages`);
    expect(rows).toEqual([{ fine: 'true' }]);
  });

  it('says so where partitions differ from the tables', async () => {
    const wrong = new PostgresStore(pool, { schema: 'add_test', partitions: 3 });
    await refusal(wrong.messages(1), 'SCHEMA_MISMATCH', /partitions = 8/, /given 3/);
  });

  it('rejects within its time, with the error of the client, where there is no server', async () => {
    const nobody = `postgresql://app:hunter2@127.0.0.1:${await freePort()}/db`;
    const down = new pg.Pool({ connectionString: nobody });
    const sqlDown = postgres(nobody, { connect_timeout: 1, max: 1 });
    const single = new pg.Client(nobody);
    await expect(single.connect()).rejects.toThrow('ECONNREFUSED');
    for (const client of [down, sqlDown, single]) {
      const unreachable = new PostgresStore(client, { timeout: 2_000 });
      const calls = [
        () => unreachable.messages(1),
        () => unreachable.migrate(),
        () => unreachable.deletePublishedByExpiration(1),
      ];
      for (const call of calls) {
        const error = await call().then(
          () => expect.fail('resolved'),
          (thrown: unknown) => thrown,
        );
        expect(error).toBeInstanceOf(Error);
        expect(inspect(error, { depth: 10 })).not.toContain('hunter2');
      }
    }
    await Promise.all([down.end(), sqlDown.end({ timeout: 0 })]);
  });

  it('keeps the password of a connection string out of every error', async () => {
    const secret = new URL(url);
    secret.password = 'hunter2';
    const text = secret.href;
    const wrong = new URL(text);
    wrong.pathname = '/no_such_database';
    const bad = new pg.Pool({ connectionString: wrong.href });
    const badSql = postgres(wrong.href, { max: 1 });
    const good = await connected({ connectionString: text });
    await good.query('BEGIN');
    const errors = await Promise.all(
      [
        async () => Promise.resolve(new PostgresStore(text as never)),
        () => store.add(text as never, message()),
        () => new PostgresStore(bad).messages(1),
        () => new PostgresStore(badSql).messages(1),
        () => new PostgresStore(good, { schema: 'absent' }).add(good, message()),
        () => new PostgresStore(good, { schema: 'absent' }).add(bad as never, message()),
      ].map((call) =>
        call().then(
          () => expect.fail('resolved'),
          (error: unknown) => error,
        ),
      ),
    );
    for (const error of errors) {
      expect(error).toBeInstanceOf(Error);
      expect(inspect(error, { depth: 10, showHidden: false })).not.toContain('hunter2');
    }
    await Promise.all([bad.end(), badSql.end({ timeout: 0 })]);
  });
});

describe('options that are no options are refused, quoting them', () => {
  it.each([
    [{ partitions: 0 }, 'partitions must be a whole number from 1 to 1024, got 0'],
    [{ partitions: 1.5 }, '1.5'],
    [{ retention: 1 }, 'retention'],
    [{ lease: 10 }, 'lease must be a number from 1000'],
    [{ timeout: Infinity }, 'Infinity'],
    [{ schema: '' }, 'schema must be a non-empty string'],
    [{ schema: 'a\u0000' }, 'schema'],
    [{ schema: 'é'.repeat(32) }, 'at most 63 bytes'],
    [{ tablePrefix: 'x'.repeat(33) }, 'tablePrefix must be a string of at most 32 bytes'],
    [{ jsonPayload: 'yes' }, 'jsonPayload must be true or false, got "yes"'],
    [{ settle: 'later' }, "settle must be 'async' or 'sync', got \"later\""],
    [{ transform: {} }, 'transform must be a function'],
  ])('%o', (options, text) => {
    expect(() => new PostgresStore(pool, options as PostgresStoreOptions)).toThrow(text);
  });

  it.each([undefined, null, {}, 7, new Map()])('%o as a client', (client) => {
    expect(() => new PostgresStore(client as never)).toThrow(
      /client must be a pg Pool or Client, a postgres\.js sql, or a PGlite/,
    );
  });
});

describe('statement', () => {
  it('is one text, whatever it stores, with one string as its value', () => {
    const statements = [
      store.statement([]),
      store.statement(message()),
      store.statement(Array.from({ length: 10_000 }, message)),
      store.statement([{ json: true }, 'text', new Uint8Array([1])]),
      store.statement(newMessage("'; DROP TABLE x; -- $1 $2", { key: "'", topic: '$1', metadata: { '"': "'" } })),
    ];
    for (const { text, values } of statements) {
      expect(text).toBe(statements[0]!.text);
      expect(values.map((value) => typeof value)).toEqual(['string']);
    }
    expect(statements[0]!.text.match(/\$\d+/g)).toEqual(['$1']);
  });

  it('refuses what add refuses', () => {
    expect(() => store.statement('')).toThrow(expect.objectContaining({ code: 'EMPTY_MESSAGE_PAYLOAD' }) as Error);
    expect(() => store.statement([7])).toThrow(expect.objectContaining({ code: 'INVALID_MESSAGE' }) as Error);
  });

  it('runs in a batch through pg, postgres.js and PGlite', async () => {
    const messages = [message(), message(), message()];
    const statements = messages.map((each) => store.statement(each));
    const ids = messages.map(({ id }) => id);

    const client = await connected();
    await Promise.all([
      client.query('BEGIN'),
      ...statements.map(({ text, values }) => client.query(text, values)),
      client.query('COMMIT'),
    ]);
    expect(await storedIds()).toEqual(ids);

    await pool.query('DELETE FROM add_test.messages');
    await sql.begin((transaction) => statements.map(({ text, values }) => transaction.unsafe(text, values)));
    expect(await storedIds()).toEqual(ids);

    await db.transaction(async (transaction) => {
      await Promise.all(statements.map(({ text, values }) => transaction.query(text, values)));
    });
    const { rows } = await db.query('SELECT id FROM add_test.messages ORDER BY seq');
    expect(rows).toEqual(ids.map((id) => ({ id })));
  });
});

describe('what is stored', () => {
  /** Stores in a transaction and returns what a relay would get. */
  async function roundTrip<Input>(target: PostgresStore<Input>, input: Input | Input[]): Promise<readonly Message[]> {
    const client = await connected();
    await client.query('BEGIN');
    await target.add(client, input);
    await client.query('COMMIT');
    const listed = await target.messages(20_000);
    await target.published(...listed);
    await target.close();
    return listed;
  }
  const textOf = (each: Message | undefined) => Buffer.from(each!.payload).toString();

  it('is bytes, strings, JSON objects and ready messages by default', async () => {
    const ready = newMessage('ready', { id: 'mine', key: 'k', topic: 't', metadata: { a: 'b' } });
    const listed = await roundTrip(store, [
      ready,
      'text',
      new Uint8Array([0, 255]),
      { order: 1 },
      Buffer.from('buffer'),
    ]);
    expect(listed.map(textOf)).toEqual(['ready', 'text', '\u0000\ufffd', '{"order":1}', 'buffer']);
    expect([...listed[2]!.payload]).toEqual([0, 255]);
    expect(listed.map(({ metadata }) => metadata)).toEqual([
      { a: 'b' },
      {},
      {},
      { 'content-type': 'application/json' },
      {},
    ]);
    expect(listed[0]).toMatchObject({ id: 'mine', key: 'k', topic: 't' });
    expect(listed[1]!.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/);
  });

  it('has a key of 2,000 bytes at most', async () => {
    const longest = newMessage('x', { key: '名'.repeat(666) + '12' });
    expect((await roundTrip(store, longest))[0]!.key).toBe(longest.key);
    const client = await connected();
    await client.query('BEGIN');
    // However well it could be compressed.
    for (const key of ['名'.repeat(667), 'x'.repeat(2_001)]) {
      const long = newMessage('x', { id: 'm-1', key });
      const texts = [/the key of message m-1/, /2000 bytes at most, got 2001/];
      await refusal(store.add(client, [message(), long]), 'INVALID_MESSAGE', ...texts);
      expect(() => store.statement(long)).toThrow(texts[0]);
    }
    const after = message();
    await store.add(client, after);
    await client.query('COMMIT');
    expect((await storedIds()).slice(1)).toEqual([after.id]);
  });

  it('is what a transform makes of it', async () => {
    interface Order {
      order: number;
    }
    const orders = new PostgresStore<Order>(pool, {
      schema: 'add_test',
      transform: ({ order }) => newMessage(String(order), { id: `order-${order}`, topic: 'orders' }),
    });
    const listed = await roundTrip(orders, [{ order: 7 }, { order: 8 }]);
    expect(listed.map((each) => [each.id, each.topic, textOf(each)])).toEqual([
      ['order-7', 'orders', '7'],
      ['order-8', 'orders', '8'],
    ]);
    const client = await connected();
    await client.query('BEGIN');
    const broken = new PostgresStore<Order>(pool, {
      schema: 'add_test',
      transform: () => {
        throw new TypeError('no such order');
      },
    });
    await expect(broken.add(client, { order: 1 })).rejects.toThrow('no such order');
  });

  it('is stored whatever the session says of backslashes in strings', async () => {
    const client = await connected({ options: '-c standard_conforming_strings=off' });
    await client.query('BEGIN');
    await store.add(client, newMessage('x', { id: 'a', key: 'back\\slash' }));
    await client.query('COMMIT');
    const { rows } = await pool.query('SELECT key FROM add_test.messages');
    expect(rows).toEqual([{ key: 'back\\slash' }]);
  });

  it('is 10,000 messages in one statement', async () => {
    const client = await connected();
    let statements = 0;
    await client.query('BEGIN');
    const messages = Array.from({ length: 10_000 }, message);
    await store.add((text, values) => {
      statements += 1;
      return client.query(text, [...values]);
    }, messages);
    await client.query('COMMIT');
    expect(statements).toBe(1);
    expect(await storedIds()).toEqual(messages.map(({ id }) => id));
  });

  it.each(postgresVersions)(
    'is read alike whatever the application set globally in pg, on PostgreSQL %i',
    async (version) => {
      const own = new pg.Pool({ connectionString: inject('postgres')[version] });
      const target = new PostgresStore(own, { schema: 'add_parsers' });
      const before = parsed.map(parserOf);
      for (const oid of parsed) pg.types.setTypeParser(oid, () => 'changed by the application');
      try {
        const changed = parsed.map(parserOf);
        await own.query('DROP SCHEMA IF EXISTS add_parsers CASCADE');
        await target.migrate();
        const client = await own.connect();
        await client.query('BEGIN');
        const ready = newMessage(new Uint8Array([0, 1, 255]), { key: 'k', topic: 't', metadata: { a: 'b' } });
        await target.add(client, ready);
        await client.query('COMMIT');
        client.release();
        const [listed] = await target.messages(1);
        const { id, key, topic, metadata, at } = ready;
        expect(listed).toMatchObject({ id, key, topic, metadata, at });
        expect([...listed!.payload]).toEqual([0, 1, 255]);
        await target.published(listed!);
        await target.deletePublishedByExpiration(0);
        await target.close();
        expect(parsed.map(parserOf)).toEqual(changed);
        expect((await own.query<{ n: unknown }>('SELECT 1::bigint AS n')).rows[0]!.n).toBe(
          'changed by the application',
        );
      } finally {
        parsed.forEach((oid, i) => {
          pg.types.setTypeParser(oid, before[i]!);
        });
        await own.end();
      }
    },
  );

  it('is read alike whatever parsers a PGlite or a postgres.js was opened with', async () => {
    const odd = (value: unknown) => `changed: ${String(value)}`;
    const type = { to: 25, from: [...parsed], serialize: (value: unknown) => String(value), parse: odd };
    const oddSql = postgres(url, { max: 2, types: { odd: type }, onnotice: () => undefined });
    const ready = newMessage(new Uint8Array([0, 1, 255]), { id: 'm', key: 'k' });
    await sql.begin(async (transaction) => {
      await store.add(transaction, ready);
    });
    const oddDb = await PGlite.create({ parsers: Object.fromEntries(parsed.map((oid) => [oid, odd])) });
    await new PostgresStore(oddDb).migrate();
    await oddDb.transaction((transaction) => new PostgresStore(oddDb).add(transaction, ready));
    for (const target of [new PostgresStore(oddSql, { schema: 'add_test' }), new PostgresStore(oddDb)]) {
      const listed = await target.messages(10);
      expect(listed.map(({ id, key, payload }) => [id, key, [...payload]])).toEqual([['m', 'k', [0, 1, 255]]]);
      await target.close();
    }
    await Promise.all([oddSql.end(), oddDb.close()]);
  });
});

/** Of all types that a column of ours could be of: boolean, bytes, numbers, text, JSON, times. */
const { BOOL, BYTEA, INT2, INT4, INT8, FLOAT8, TEXT, JSON: JSON_TYPE, JSONB, TIMESTAMPTZ } = pg.types.builtins;
const parsed = [BOOL, BYTEA, INT2, INT4, INT8, FLOAT8, TEXT, JSON_TYPE, JSONB, TIMESTAMPTZ] as const;
const parserOf = (oid: (typeof parsed)[number]) => pg.types.getTypeParser(oid) as (value: string) => unknown;

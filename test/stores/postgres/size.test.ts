/**
 * Messages that are too large: refused when they are stored, and given up if they are stored already, while everything
 * else continues.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { Messenger } from '../../../src/core/relay/messenger.js';
import { newMessage, type Message } from '../../../src/core/contracts/message.js';
import { migrationScript, PostgresStore } from '../../../src/stores/postgres/index.js';
import { encodeMessages } from '../../../src/stores/postgres/write/encode.js';
import { inTransaction, newDatabase } from '../../support/database.js';
import { outermostVersions, startPostgres, type EmbeddedPostgres } from '../../support/embedded-postgres.js';

const MIB = 1024 * 1024;

describe('a message that is too large to be stored', () => {
  const refusal = (message: Message, jsonPayload = false): string => {
    try {
      return `stored as ${String(encodeMessages([message], jsonPayload).length)} characters`;
    } catch (error) {
      expect(error).toMatchObject({ code: 'INVALID_MESSAGE' });
      return (error as Error).message;
    }
  };

  it.each([false, true])('is refused for a payload of more than 64 MiB, with jsonPayload %s', (jsonPayload) => {
    const payload = new Uint8Array(64 * MIB + 1).fill(0x31);
    expect(refusal(newMessage(payload.subarray(1), { id: 'm' }), jsonPayload)).toMatch(/^stored as/);
    expect(refusal(newMessage(payload, { id: 'm' }), jsonPayload)).toBe(
      'the payload of message m must have at most 67108864 bytes, got 67108865: keep large data elsewhere, such as in an object store, and send a reference to it',
    );
  });

  it('is refused for metadata of more than 1 MiB, as PostgreSQL writes it', () => {
    // {"n": "…"}: nine bytes around it.
    const of = (bytes: number) => newMessage('x', { id: 'm', metadata: { n: 'v'.repeat(bytes - 9) } });
    expect(refusal(of(MIB))).toMatch(/^stored as/);
    expect(refusal(of(MIB + 1))).toMatch(/^the metadata of message m must have at most 1048576 bytes, got 1048577: /);
    expect(refusal(newMessage('x', { id: 'm', metadata: { n: '\u0001'.repeat(200_000) } }))).toMatch(/got 1200009: /);
  });

  it('is refused for an id or topic of more than 4,000 bytes, or a key of more than 2,000', () => {
    const [key, fits] = [`${'名'.repeat(666)}12`, `${'名'.repeat(1_333)}1`];
    expect(refusal(newMessage('x', { id: fits, topic: fits, key }))).toMatch(/^stored as/);
    const most = 'must have at most 4000 bytes, got 4001';
    expect(refusal(newMessage('x', { id: 'm', topic: `${fits}3` }))).toBe(`the topic of message m ${most}`);
    expect(refusal(newMessage('x', { id: 'm', key: `${key}3` }))).toBe(
      'the key of message m must have at most 2000 bytes, got 2001',
    );
    expect(refusal(newMessage('x', { id: 'i'.repeat(4_001) }))).toBe(
      `the id of a message, "${'i'.repeat(77)}...", ${most}`,
    );
  });
});

it('one call of add accepts a message of any allowed size, and as many messages as fit into one statement', () => {
  const message = newMessage(`"${'\\\\'.repeat(32 * MIB - 1)}"`);
  expect(encodeMessages([message], true).length).toBeGreaterThan(128 * MIB);
  const half = newMessage(new Uint8Array(50 * MIB));
  const error = () => encodeMessages([half, half, half], false);
  expect(error).toThrow(
    '3 messages are too many for one call of add: the first 1 of them fill the 134217728 characters of JSON that one call takes. Store them with several calls in the same transaction',
  );
  expect(error).toThrow(expect.objectContaining({ code: 'INVALID_MESSAGE' }) as Error);
  expect(encodeMessages([], false)).toBe('[]');
  expect(JSON.parse(encodeMessages([newMessage('1'), newMessage('2')], false))).toHaveLength(2);
});

describe.each(outermostVersions)('PostgreSQL %i', (version) => {
  it.each([false, true])(
    'refuses in SQL what add refuses, with jsonPayload %s, and keeps existing messages',
    async (jsonPayload) => {
      const pool = new pg.Pool({ connectionString: await newDatabase(inject('postgres')[version]), max: 2 });
      try {
        const script = await migrationScript({ jsonPayload });
        await pool.query(`${script.slice(0, script.indexOf('\n-- 0008_'))}\nCOMMIT;`);
        const sized = (bytes: string) =>
          jsonPayload ? `('"' || repeat('x', ${bytes} - 2) || '"')::json` : `convert_to(repeat('x', ${bytes}), 'UTF8')`;
        const insert = ({ id = `'m'`, topic = 'NULL', payload = sized('10'), metadata = `'{}'` }) =>
          pool.query(
            `INSERT INTO messenger.messages (id, topic, payload, metadata) VALUES (${id}, ${topic}, ${payload}, ${metadata})`,
          );
        // Compressed to a hundredth of it, where it is copied from a table.
        await insert({ payload: sized('67108865') });
        expect(await new PostgresStore(pool, { jsonPayload }).migrate()).toContain('0008_message_size.sql');
        const metadata = (bytes: number) => `jsonb_build_object('n', repeat('v', ${String(bytes)} - 9))`;
        // Kept in little, and much to read: compressed, and numbers of many digits.
        await pool.query(`CREATE TABLE kept AS SELECT ${metadata(4 * MIB)} AS metadata`);
        await insert({
          payload: sized('67108864'),
          metadata: metadata(MIB),
          id: `repeat('i', 4000)`,
          topic: `repeat('t', 4000)`,
        });
        const refused = [
          ['payload_at_most_64_mib', { payload: sized('67108865') }],
          ['metadata_at_most_1_mib', { metadata: metadata(MIB + 1) }],
          ['metadata_at_most_1_mib', { metadata: '(SELECT metadata FROM kept)' }],
          [
            'metadata_at_most_1_mib',
            { metadata: `(SELECT jsonb_agg('1e131071'::jsonb) FROM generate_series(1, 300))` },
          ],
          ['id_at_most_4000_bytes', { id: `repeat('i', 4001)` }],
          ['topic_at_most_4000_bytes', { topic: `repeat('t', 4001)` }],
        ] as const;
        for (const [constraint, values] of refused) {
          await expect(insert(values)).rejects.toThrow(`violates check constraint "${constraint}"`);
        }
        const again =
          "INSERT INTO messenger.messages (id, payload) SELECT id, payload FROM messenger.messages WHERE id = 'm'";
        await expect(pool.query(again)).rejects.toThrow('violates check constraint "payload_at_most_64_mib"');
      } finally {
        await pool.end();
      }
    },
  );
});

/** A relay that reads one message, publishes it, and reports what it gives up. */
async function publishAll(store: PostgresStore): Promise<{ published: string[]; errors: string[] }> {
  const published: string[] = [];
  const errors: string[] = [];
  const messenger = new Messenger(store, { publish: async ({ id }) => void published.push(id) });
  for (let idle = 0; idle < 2;) {
    const before = published.length;
    await messenger.publish().catch((error: unknown) => errors.push((error as Error).message));
    idle = published.length === before ? idle + 1 : 0;
  }
  return { published, errors };
}

it('asks for the size of messages that were stored before the limits, even if they are late', async () => {
  const server = await startPostgres(17, { fsync: 'off', autovacuum: 'off' });
  const pool = new pg.Pool({ connectionString: server.url(), max: 5 });
  pool.on('error', () => undefined);
  try {
    const script = await migrationScript();
    await pool.query(`${script.slice(0, script.indexOf('\n-- 0008_'))}\nCOMMIT;`);
    // Of a size that only their id and topic have together: what reads it without asking publishes it.
    await pool.query(
      `INSERT INTO messenger.messages (id, topic, payload) SELECT id || repeat('i', bytes), repeat('t', bytes), 'x'
        FROM (VALUES ('small:1', 0), ('large', $1), ('small:2', 0)) AS m (id, bytes)`,
      [130 * MIB],
    );
    const store = new PostgresStore(pool);
    await store.migrate();
    const add = (id: string) => inTransaction(pool, (client) => store.add(client, newMessage('x', { id })));
    const limitedAfter = async () =>
      (await pool.query<{ value: string }>("SELECT value FROM messenger.settings WHERE name = 'limited_after'"))
        .rows[0]!.value;
    expect(await limitedAfter()).toBe('3');
    const { published, errors } = await publishAll(store);
    expect(published).toEqual(['small:1', 'small:2']);
    expect(errors).toEqual([expect.stringMatching(/message largei{95} is a dead letter: /)]);
    await add('small:3');
    expect((await publishAll(store)).published).toEqual(['small:3']);

    // A message of a transaction that was open while the cursor moved on: its number is below everything that is read
    // next.
    const limits = ['id_at_most_4000_bytes', 'topic_at_most_4000_bytes'] as const;
    for (const name of limits) await pool.query(`ALTER TABLE messenger.messages DROP CONSTRAINT ${name}`);
    const writer = await pool.connect();
    await writer.query('BEGIN');
    await writer.query(
      `INSERT INTO messenger.messages (id, topic, payload) SELECT 'late' || repeat('i', $1), repeat('t', $1), 'x'`,
      [130 * MIB],
    );
    for (const id of ['small:4', 'small:5', 'small:6']) {
      await add(id);
      expect((await publishAll(store)).published).toEqual([id]);
    }
    await writer.query('COMMIT');
    writer.release();
    for (const name of limits)
      await pool.query(
        `ALTER TABLE messenger.messages ADD CONSTRAINT ${name} CHECK (octet_length(${name.split('_')[0]!}) <= 4000) NOT VALID`,
      );
    await pool.query("UPDATE messenger.settings SET value = '7' WHERE name = 'limited_after'");
    expect(await publishAll(new PostgresStore(pool))).toEqual({
      published: [],
      errors: [expect.stringMatching(/message latei{96} is a dead letter: /)],
    });
  } finally {
    await pool.end();
    await server.remove();
  }
});

/** Servers of their own, for one test, because the messages here are too large for a shared one. */
describe('a stored message that is too large to be read', () => {
  let server: EmbeddedPostgres;
  let pool: pg.Pool;
  let store: PostgresStore;
  beforeAll(async () => {
    server = await startPostgres(17, { fsync: 'off', autovacuum: 'off' });
    pool = new pg.Pool({ connectionString: server.url(), max: 5 });
    pool.on('error', () => undefined);
    store = new PostgresStore(pool);
    await store.migrate();
    for (const constraint of [
      'payload_at_most_64_mib',
      'metadata_at_most_1_mib',
      'id_at_most_4000_bytes',
      'topic_at_most_4000_bytes',
    ])
      await pool.query(`ALTER TABLE messenger.messages DROP CONSTRAINT ${constraint}`);
  });
  afterAll(async () => {
    await pool.end();
    await server.remove();
  });

  const add = (...messages: Message[]) => inTransaction(pool, (client) => store.add(client, messages));
  const of = (id: string, key?: string) => newMessage(id, { id, key });

  /** 260 MiB in SQL, between two other messages of its key. Compressed, so that the test needs little space. */
  async function large(id: string, key: string | null): Promise<void> {
    await pool.query(
      "INSERT INTO messenger.messages (id, key, payload) VALUES ($1, $2, convert_to(repeat('x', $3), 'UTF8'))",
      [id, key, 260 * MIB],
    );
  }

  it('becomes a dead letter and is kept complete, while its key and all others continue, and again after a requeue', async () => {
    await add(of('k:1', 'k'), of('other', 'o'));
    await large('k:2', 'k');
    await large('alone', null);
    await add(of('k:3', 'k'));
    const published: string[] = [];
    const events: string[] = [];
    const errors: string[] = [];
    const messenger = () =>
      new Messenger(
        store,
        { publish: async ({ id, payload }) => void (expect(payload.byteLength).toBeLessThan(100), published.push(id)) },
        {
          interval: 50,
          onEvent: (event) => {
            if (event.type === 'dead') events.push(event.message.id);
          },
          errorLogger: { error: (error) => void errors.push(error.message) },
        },
      );
    const run = async (until: () => boolean) => {
      const stop = new AbortController();
      const relay = messenger().start({ signal: stop.signal });
      await expect.poll(until, { timeout: 120_000, interval: 20 }).toBe(true);
      stop.abort();
      await relay;
    };
    await run(() => published.length === 3 && events.length === 2);
    expect(published.filter((id) => id.startsWith('k'))).toEqual(['k:1', 'k:3']);
    expect(events.toSorted()).toEqual(['alone', 'k:2']);
    expect(errors).toHaveLength(2);
    expect(errors.find((text) => text.includes('k:2'))).toMatch(
      /^message k:2 is a dead letter: message k:2 has 27262\d{4} bytes/,
    );

    const letters = await store.admin.deadLetters();
    expect(
      letters.map(({ message, state, attempts }) => [
        message.id,
        message.key,
        message.payload.byteLength,
        state,
        attempts,
      ]),
    ).toEqual([
      ['k:2', 'k', 0, 'dead', 1],
      ['alone', undefined, 0, 'dead', 1],
    ]);
    expect(letters[0]!.error).toMatch(/^message k:2 has 27262\d{4} bytes, but at most 267386880 can be read/);
    expect(await store.admin.destinations()).toMatchObject([{ name: 'default', pending: 0, dead: 2, parked: 0 }]);
    const kept = await pool.query('SELECT octet_length(payload) AS bytes FROM messenger.parked');
    expect(kept.rows).toEqual([{ bytes: 260 * MIB }, { bytes: 260 * MIB }]);

    expect(await store.admin.requeue({ all: true })).toBe(2);
    events.length = 0;
    await add(of('k:4', 'k'));
    await run(() => published.includes('k:4') && events.length === 2);
    expect((await store.admin.deadLetters()).map(({ message, attempts }) => [message.id, attempts])).toEqual([
      ['k:2', 1],
      ['alone', 1],
    ]);
    expect(await store.admin.discard({ all: true })).toBe(2);
  });

  it('is given up by a single call of publish too, and when messages are listed through the plain contract', async () => {
    await large('p:1', 'p');
    await add(of('p:2', 'p'));
    const published: string[] = [];
    const once = new Messenger(store, { publish: async ({ id }) => void published.push(id) });
    await expect(once.publish()).rejects.toThrow('message p:1 is a dead letter: ');
    while (published.length === 0) await once.publish();
    expect(published).toEqual(['p:2']);

    await large('q:1', 'q');
    const first = await store.messages(10);
    expect(first).toEqual([]);
    expect(await store.admin.requeue({ ids: ['p:1', 'q:1'] })).toBe(2);
    await add(of('q:2', 'q'));
    await large('q:3', 'q');
    await add(of('q:4', 'q'));
    const listed: string[] = [];
    for (let page = await store.messages(10); page.length > 0; page = await store.messages(10)) {
      listed.push(...page.map(({ id }) => id));
      await store.published(...page);
    }
    await store.close();
    expect(listed).toEqual(['q:2', 'q:4']);
    expect((await store.admin.deadLetters()).map(({ message }) => message.id)).toEqual(['p:1', 'q:1', 'q:3']);
    expect(await store.admin.discard({ all: true })).toBe(3);
  });

  it('is given up for a large id and topic too, of which as much as possible is shown', async () => {
    await pool.query(
      `INSERT INTO messenger.messages (id, topic, payload) VALUES (repeat('i', $1), repeat('t', $2), 'x')`,
      [130 * MIB, 130 * MIB],
    );
    await add(of('after'));
    const published: string[] = [];
    const once = new Messenger(store, { publish: async ({ id }) => void published.push(id) });
    await expect(once.publish()).rejects.toThrow('is a dead letter: ');
    expect(published).toEqual(['after']);
    const letters = await store.admin.deadLetters();
    expect(letters.map(({ message: { id, topic, metadata } }) => ({ id, topic, metadata }))).toEqual([
      { id: 'i'.repeat(100), topic: undefined, metadata: {} },
    ]);
  });
});

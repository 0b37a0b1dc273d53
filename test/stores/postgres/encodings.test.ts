/** Databases that are not in UTF-8: a text that is stored with a message never keeps the message from being settled. */
import pg from 'pg';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { Messenger, newMessage, PublishError, type Message } from '../../../src/index.js';
import { PostgresStore } from '../../../src/stores/postgres/index.js';
import { inTransaction } from '../../support/database.js';
import { postgresVersions, type PostgresVersion } from '../../support/embedded-postgres.js';

/** The encodings, and a text that each of them can keep. */
const ENCODINGS = { UTF8: 'ü’😀', LATIN1: 'ü', WIN1252: 'ü’€', SQL_ASCII: 'ü’😀', EUC_JP: '日本' };

/**
 * Error texts that some encodings, or PostgreSQL itself, cannot keep, and what is kept of them in an encoding that has
 * all characters.
 */
const ERRORS: readonly (readonly [message: unknown, kept: string])[] = [
  ['it’s “refused” – 日本 😀 €', 'it’s “refused” – 日本 😀 €'],
  ['null \u0000 and \ud83d alone', 'null  and \ufffd alone'],
  [`${'x'.repeat(1_999)}😀`, `${'x'.repeat(1_999)}\ufffd`],
  ['\u0081\u009f\u00a0 controls', '\u0081\u009f\u00a0 controls'],
  // An error without a message is reported with its code.
  [undefined, 'PUBLISH_FAILED'],
];

async function databaseIn(version: PostgresVersion, encoding: string): Promise<pg.Pool> {
  const server = inject('postgres')[version];
  const name = `in_${encoding.toLowerCase()}_${String(process.pid)}_${String(Math.random()).slice(2)}`;
  const admin = new pg.Client({ connectionString: server });
  await admin.connect();
  await admin.query(`CREATE DATABASE ${name} TEMPLATE template0 ENCODING '${encoding}' LC_COLLATE 'C' LC_CTYPE 'C'`);
  await admin.end();
  const url = new URL(server);
  url.pathname = `/${name}`;
  const pool = new pg.Pool({ connectionString: url.href, max: 4 });
  onTestFinished(() => pool.end());
  return pool;
}

/** As an escape in a JavaScript string. */
const ascii = (text: string) =>
  text
    .split('')
    .map((unit) => (unit < '\u0080' ? unit : `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`))
    .join('');

describe.each(postgresVersions)('PostgreSQL %i', (version) => {
  it.each(Object.entries(ENCODINGS))('%s: a message is settled whatever its error says', async (encoding, text) => {
    const pool = await databaseIn(version, encoding);
    const store = new PostgresStore(pool);
    await store.migrate();
    const sent: Message[] = ERRORS.map((_, n) =>
      newMessage(`${text} ${String(n)}`, {
        id: `${text}${String(n)}`,
        key: `k ${text}${String(n)}`,
        topic: text,
        metadata: { [text]: text },
      }),
    );
    const last = newMessage('last', { id: 'last' });
    await inTransaction(pool, (client) => store.add(client, [...sent, last]));
    const published: Message[] = [];
    const errors: Error[] = [];
    let refuses = true;
    const publish = (message: Message) => {
      const n = sent.findIndex(({ id }) => id === message.id);
      if (n < 0 || !refuses) {
        published.push(message);
        return Promise.resolve();
      }
      const error = new PublishError('', { kind: 'permanent' });
      Object.defineProperty(error, 'message', { value: ERRORS[n]?.[0] });
      return Promise.reject(error);
    };
    const messenger = new Messenger(
      store,
      { publish },
      { publishBatchSize: 2, errorLogger: { error: (error) => void errors.push(error) } },
    );
    for (let n = 0; n < 10; n++)
      await messenger.publish().catch((error: unknown) => {
        if (!(error instanceof PublishError)) throw error;
      });
    expect(published.map(({ id }) => id)).toEqual(['last']);
    const dead = await store.admin.deadLetters();
    const kept = ERRORS.map(([, each]) => (encoding === 'UTF8' ? each : ascii(each)));
    expect(dead.map(({ error }) => error)).toEqual(kept);
    refuses = false;
    expect(await store.admin.requeue({ all: true })).toBe(ERRORS.length);
    while ((await messenger.publish()) > 0);
    expect(
      published
        .slice(1)
        .sort((a, b) => (a.id < b.id ? -1 : 1))
        .map(({ id, key, topic, metadata, payload }) => ({ id, key, topic, metadata, payload: String(payload) })),
    ).toEqual(
      sent.map(({ id, key, topic, metadata, payload }) => ({
        id,
        key,
        topic,
        metadata,
        payload: Buffer.from(payload).toString(),
      })),
    );
    expect(errors).toEqual([]);
  });

  it('a session with another client_encoding stores nothing, and receives nothing', async () => {
    const pool = await databaseIn(version, 'UTF8');
    const store = new PostgresStore(pool);
    await store.migrate();
    await store.admin.addDestination('elsewhere', { from: 'end', topics: [] });
    const message = newMessage('ü', { topic: 'ü' });
    const addressed = newMessage('ü', { topic: 'ü', destination: 'elsewhere' });
    const uses: Record<string, (client: pg.PoolClient) => Promise<unknown>> = {
      add: (client) => store.add(client, message),
      addressed: (client) => store.add(client, addressed),
      receive: (client) => store.receive(client, 'consumer', 'ü'),
      statement: (client) => client.query(store.statement(message)),
      'addressed statement': (client) => client.query(store.statement(addressed)),
    };
    for (const [what, use] of Object.entries(uses)) {
      const work = inTransaction(pool, async (client) => {
        await client.query(`SET LOCAL client_encoding = 'LATIN1'`);
        await use(client);
      });
      const text = what.includes('statement')
        ? 'texts would be altered, since client_encoding is LATIN1'
        : 'the client_encoding is LATIN1 in this session';
      await expect(work, what).rejects.toThrow(text);
    }
    const { rows } = await pool.query(
      'SELECT (SELECT count(*)::int FROM messenger.messages) + (SELECT count(*)::int FROM messenger.inbox) AS count',
    );
    expect(rows).toEqual([{ count: 0 }]);
    // The server converts nothing there.
    await inTransaction(pool, async (client) => {
      await client.query(`SET LOCAL client_encoding = 'SQL_ASCII'`);
      await store.add(client, message);
    });
    expect((await store.messages(10)).map(({ topic }) => topic)).toEqual(['ü']);
    await store.close();
  });

  it('recognises an open transaction on a server that speaks another language', async () => {
    const pool = await databaseIn(version, 'UTF8');
    const store = new PostgresStore(pool);
    await store.migrate();
    // As it would be there: the text is none that the procedures know, and they try both ways.
    for (const name of ['store_in_transaction', 'receive_in_transaction']) {
      const { rows } = await pool.query<{ definition: string }>(
        `SELECT pg_get_functiondef('messenger.${name}'::regproc) AS definition`,
      );
      const definition = rows[0]!.definition.replace("'invalid transaction termination'", "'in another language'");
      expect(definition).not.toBe(rows[0]!.definition);
      await pool.query(definition);
    }
    const client = await pool.connect();
    await inTransaction(pool, async (inside) => {
      await store.add(inside, newMessage('x', { id: 'inside' }));
      expect(await store.receive(inside, 'consumer', 'inside')).toBe(true);
    });
    await inTransaction(pool, async (inside) => {
      expect(await store.receive(inside, 'consumer', 'inside')).toBe(false);
    });
    await client.query('BEGIN');
    const writes = [
      client.query('ROLLBACK'),
      ...[store.add(client, newMessage('x')), store.receive(client, 'consumer', 'outside')].map((work) =>
        expect(work).rejects.toMatchObject({ code: 'INVALID_TRANSACTION' }),
      ),
    ];
    await Promise.all(writes);
    client.release();
    expect((await store.messages(10)).map(({ id }) => id)).toEqual(['inside']);
    await store.close();
  });
});

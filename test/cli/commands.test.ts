/** What `messenger` says to an operator: what happened, what did not happen and why, and what to do next. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { Messenger, newMessage, PublishError, type Message } from 'messenger-outbox';
import { migrationScript, PostgresStore } from 'messenger-outbox/postgres';
import manifest from '../../package.json' with { type: 'json' };
import { newDatabase } from '../support/database.js';
import { messenger, onTerminal } from './support.js';

interface Database {
  readonly url: string;
  readonly pool: pg.Pool;
  readonly store: PostgresStore;
}
const pools: pg.Pool[] = [];

async function database(): Promise<Database> {
  const url = await newDatabase(inject('postgres')[17]);
  const pool = new pg.Pool({ connectionString: url });
  pools.push(pool);
  return { url, pool, store: new PostgresStore(pool) };
}

async function add({ pool, store }: Database, ...messages: Message[]): Promise<void> {
  const client = await pool.connect();
  await client.query('BEGIN');
  await store.add(client, messages);
  await client.query('COMMIT');
  client.release();
}

/** Publishes once to a broker that refuses `dead`, `blocked` and `retried`, each for a reason of its own. */
async function publishOnce({ store }: Database): Promise<void> {
  const publish = ({ id }: Message) =>
    id.startsWith('fine') || id.startsWith('late')
      ? Promise.resolve()
      : Promise.reject(new PublishError(`${id} is refused`, { kind: id === 'retried' ? 'retryable' : 'permanent' }));
  const topics = { blocking: { retry: { onExhausted: 'block-key' as const } } };
  const options = { errorLogger: { error: () => {} }, topics };
  await new Messenger(store, { publish }, options).publish().catch(() => undefined);
  await store.close();
}

afterAll(async () => {
  for (const pool of pools) await pool.end();
});

it('prints its version', async () => {
  expect(await messenger('', '--version')).toMatchObject({ code: 0, stdout: [manifest.version] });
});

describe('before a relay has run', () => {
  let outbox: Database;
  beforeAll(async () => {
    outbox = await database();
    await outbox.store.migrate();
  });

  it('destinations says that nothing is stored, then what is stored and that nobody publishes it', async () => {
    const nothing = await messenger(outbox.url, 'destinations');
    expect(nothing).toMatchObject({ code: 0, stdout: [] });
    expect(nothing.stderr).toContain('no message is stored, and no relay has run yet');

    await add(outbox, newMessage('1', { topic: 'a' }), newMessage('2'));
    const { stdout, stderr } = await messenger(outbox.url, 'destinations');
    expect(stdout.map((line) => JSON.parse(line) as object)).toMatchObject([
      { name: 'default', topics: null, partitions: 8, held: 0, relays: 0, pending: 2, createdAt: null, activeAt: null },
    ]);
    expect(stderr).toContain(
      '"default": no relay has run yet, and 2 messages are waiting to be published: start a relay with',
    );
  });

  it('the state of default counts what no destination takes, until one takes everything', async () => {
    await outbox.store.admin.addDestination('some', { from: 'beginning', topics: ['a'] });
    expect(await outbox.store.admin.destinations()).toMatchObject([
      { name: 'default', pending: 1, morePending: false, oldestPending: expect.any(Number) as number },
      { name: 'some', pending: 1 },
    ]);
    expect((await outbox.store.admin.destinations())[0]?.stalledSince).toBeInstanceOf(Date);
    await outbox.store.admin.addDestination('all', { from: 'beginning' });
    expect((await outbox.store.admin.destinations()).map(({ name }) => name)).toEqual(['all', 'some']);
  });
});

describe('with messages in every state', () => {
  let outbox: Database;
  beforeAll(async () => {
    outbox = await database();
    await outbox.store.migrate();
    const deliverAt = new Date(Date.now() + 86_400_000);
    await add(
      outbox,
      ...[newMessage('1', { id: 'dead' }), newMessage('2', { id: 'fine' })],
      newMessage('3', { id: 'blocked', topic: 'blocking', key: 'b' }),
      newMessage('4', { id: 'retried', topic: 'busy', key: 'r' }),
      newMessage('5', { id: 'behind', topic: 'busy', key: 'r' }),
      newMessage('6', { id: 'late', deliverAt }),
    );
    await publishOnce(outbox);
  });

  it('lists what waits: why, since when, and until when', async () => {
    const states = (await outbox.store.admin.parked()).map(({ message, state, attempts, nextAt, error }) => [
      ...[message.id, state, attempts, nextAt !== null, error],
    ]);
    expect(states).toEqual([
      ['blocked', 'blocked', 1, false, 'blocked is refused'],
      ['retried', 'retry', 1, true, 'retried is refused'],
      ['behind', 'behind', 0, false, null],
      ['late', 'delayed', 0, true, null],
    ]);
    for (const state of ['blocked', 'retry', 'behind', 'delayed'] as const) {
      expect(await outbox.store.admin.parked({ state })).toMatchObject([{ state }]);
    }
    expect(
      (await outbox.store.admin.parked({ key: 'r', topic: 'busy', limit: 1 })).map((each) => each.message.id),
    ).toEqual(['retried']);
    const [first] = await outbox.store.admin.parked({ error: 'is refused' });
    const rest = await outbox.store.admin.parked({ error: 'is refused', after: first?.seq });
    expect([first, ...rest].map((each) => each?.message.id)).toEqual(['blocked', 'retried']);
    await expect(outbox.store.admin.parked({ state: 'dead' as never })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: `state must be one of 'retry', 'behind', 'delayed', 'blocked', got "dead"`,
    });
    const listed = await messenger(outbox.url, 'parked', '--state', 'retry');
    expect(listed.stdout.map((line) => JSON.parse(line) as object)).toMatchObject([
      { state: 'retry', attempts: 1, error: 'retried is refused', message: { id: 'retried', payload: '4' } },
    ]);
  });

  it('names a destination that does not exist, and those that there are', async () => {
    const commands = [
      ...[
        ['destinations', 'nowhere'],
        ['remove-destination', 'nowhere'],
        ['remove-destination', 'nowhere', '--discard'],
      ],
      ...[['dead-letters'], ['parked'], ['requeue', '--all'], ['discard', '--all']].map((command) => [
        ...[...command, '--destination', 'nowhere'],
      ]),
    ];
    for (const command of commands) {
      const { code, stdout, stderr } = await messenger(outbox.url, ...command);
      expect([command, code, stdout]).toEqual([command, 1, []]);
      expect(stderr).toContain('there is no destination "nowhere"; there are "default" [UNKNOWN_DESTINATION]');
    }
  });

  it('deletes only what somebody has agreed to', async () => {
    const refused = await messenger(outbox.url, 'discard', '--all');
    expect(refused).toMatchObject({ code: 1, stdout: [] });
    expect(refused.stderr).toMatch(
      /delete 2 dead letters and blocked messages of destination "default".*no terminal.*pass --yes/,
    );
    expect(await messenger(outbox.url, 'discard', '--state', 'dead')).toMatchObject({ code: 1 });
    expect(await messenger(outbox.url, 'discard', '--all', '--dry-run')).toMatchObject({
      code: 0,
      stdout: ['would delete 2 messages'],
    });
    expect(await messenger(outbox.url, 'requeue', '--state', 'dead', '--dry-run')).toMatchObject({
      code: 0,
      stdout: ['would requeue 1 messages'],
    });
    expect(await messenger(outbox.url, 'remove-destination', 'default', '--discard')).toMatchObject({ code: 1 });
    const denied = await onTerminal(outbox.url, 'n\n', 'discard', '--all');
    expect(denied.code).toBe(1);
    expect(denied.stdout.join('\n')).toContain('nothing was changed');
    expect(await outbox.store.admin.deadLetters()).toHaveLength(2);

    const agreed = await onTerminal(outbox.url, 'y\n', 'discard', '--state', 'dead');
    expect(agreed.stdout.at(-1)).toBe('deleted 1 messages');
    expect(await messenger(outbox.url, 'discard', '--all', '--yes')).toMatchObject({
      code: 0,
      stdout: ['deleted 1 messages'],
    });
    const none = await messenger(outbox.url, 'requeue', '--all');
    expect(none).toMatchObject({ code: 0, stdout: ['requeued 0 messages'] });
    expect(none.stderr).toContain('no dead letter or blocked message matches');
  });
});

it('migrate says what it changed, and refuses what it does not change', async () => {
  const { url, pool } = await database();
  await messenger(url, 'migrate', '--retention', '7d');
  const setting = async (name: string) =>
    (await pool.query<{ value: string }>('SELECT value FROM messenger.settings WHERE name = $1', [name])).rows[0]
      ?.value;
  expect(await setting('slice_seconds')).toBe(String((7 * 86_400) / 6));
  expect((await messenger(url, 'migrate', '--environment', 'production')).stdout).toEqual([
    'set environment production in schema messenger',
  ]);
  expect((await messenger(url, 'migrate', '--environment', 'production')).stdout).toEqual([
    'schema messenger is up to date: nothing to do',
  ]);
  expect(await messenger(url, 'migrate', '--partitions', '8')).toMatchObject({ code: 0 });
  const partitions = await messenger(url, 'migrate', '--partitions', '4');
  expect(partitions).toMatchObject({ code: 1, stdout: [] });
  expect(partitions.stderr).toMatch(/have 8 partitions.*Nothing was changed.*`messenger repartition 4`/);
  const payloads = await messenger(url, 'migrate', '--json-payload');
  expect(payloads).toMatchObject({ code: 1, stdout: [] });
  expect(payloads.stderr).toContain('keep payloads as bytea, and migrating does not change that');
  const script = await messenger(url, 'migrate', '--sql', '--environment', 'x');
  expect(script).toMatchObject({ code: 1, stdout: [] });
  expect(script.stderr).toContain('remove --environment');
});

it('an upgrade goes by what the tables have, where it is not told', async () => {
  const { pool } = await database();
  const script = await migrationScript({ jsonPayload: true, partitions: 3 });
  await pool.query(`${script.slice(0, script.indexOf('\n-- 0004_'))}\nCOMMIT;`);
  expect(await new PostgresStore(pool).migrate()).toContain('0004_addressed.sql');
  const { rows } = await pool.query<{ prosrc: string }>(`SELECT prosrc FROM pg_proc WHERE proname = 'store_addressed'`);
  expect(rows[0]?.prosrc).toContain('m.payload::pg_catalog.json');
});

it('takes durations and times as people write them, and says what is wrong with others', async () => {
  const { url, store } = await database();
  await store.migrate();
  const add = (...args: string[]) => messenger(url, 'add-destination', ...args);
  expect(await add('week', '--from', '7d', '--forget-after', '12h')).toMatchObject({ code: 0 });
  expect(await add('bare', '--from', 'end', '--forget-after', '60000')).toMatchObject({ code: 0 });
  expect(await store.admin.destinations()).toMatchObject([
    { name: 'bare', forgetAfter: 60_000 },
    { name: 'week', forgetAfter: 43_200_000 },
  ]);
  const wrong = [
    [['add-destination', 'x', '--from', 'end', '--forget-after', '7 days'], 'must be a duration such as 7d'],
    [['add-destination', 'x', '--from', 'end', '--forget-after', '30s'], 'forgetAfter must be a number from 60000'],
    [['add-destination', 'x', '--from', '7'], 'must be a time such as'],
    [['dead-letters', '--since', '2026-02-31'], 'must be a time such as'],
    [['dead-letters', '--limit', '0'], 'limit must be a whole number from 1 to 10000, got 0'],
    [['dead-letters', '--state', 'gone'], `state must be 'dead' or 'blocked', got "gone"`],
    [['requeue'], 'say which'],
    [['requeue', '--destination', ''], 'must not be empty'],
    [['repartition', 'many'], 'must be a whole number'],
    [['repartition', '0'], 'partitions must be a whole number from 1 to 1024, got 0'],
    [['migrate', '--retention', 'long'], 'must be a duration such as 7d'],
    [['destinations', '--colour'], 'unknown option'],
    [['unknown'], 'unknown command'],
    [['parked', '--schema', 'elsewhere'], 'messenger migrate --schema elsewhere'],
  ] as const;
  for (const [args, said] of wrong) {
    const { code, stdout, stderr } = await messenger(url, ...args);
    expect([args, code, stdout]).toEqual([args, 1, []]);
    expect(stderr).toContain(said);
  }
});

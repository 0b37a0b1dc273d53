/** The programs and commands of docs/reference. */
import pg from 'pg';
import { describe, expect, inject, it } from 'vitest';
import { Messenger, newMessage, PublishError } from 'messenger-outbox';
import { PostgresStore } from 'messenger-outbox/postgres';
import { messenger } from '../cli/support.js';
import { newDatabase } from '../support/database.js';
import { pages, sampleRunner, type Sample } from './sample-runner.js';

const start = sampleRunner();

const database = () => newDatabase(inject('postgres')[17]);

/** That a program of node:test ended with many tests passed, and none failed. */
async function passes(sample: Sample): Promise<void> {
  const code = await sample.ended;
  expect(sample.output()).toMatch(/pass ([6-9]|\d{2})/);
  expect([code, sample.output()]).toEqual([0, expect.stringMatching(/fail 0/)]);
}

it('write-a-store: stores in SQLite, and passes the suites', async () => {
  await passes(await start('write-a-store', {}));
});

it('publish-function: a function is a publisher', async () => {
  const sample = await start('publish-function', {});
  expect([await sample.ended, sample.output()]).toEqual([0, 'order.created of order-1: {"total":42}\npublished 1\n']);
});

it('write-a-publisher: publishes to a webhook, and passes the suite', async () => {
  await passes(await start('write-a-publisher', {}));
});

it('write-a-subscriber: receives from a queue, and passes the suite', async () => {
  await passes(await start('write-a-subscriber', {}));
});

it('write-a-bridge: stores through a transaction, and refuses anything else', async () => {
  const sample = await start('write-a-bridge', { DATABASE_URL: await database() });
  expect([await sample.ended, sample.output().trim().split('\n')]).toEqual([
    0,
    ['stored 1', 'no stock', 'INVALID_TRANSACTION', 'published 1'],
  ]);
});

it('options: accepts one option of each kind', async () => {
  const sample = await start('options', { DATABASE_URL: await database() });
  expect([await sample.ended, sample.output().trim().split('\n')]).toEqual([
    0,
    ['published 1', 'default: 0 pending', 'INVALID_OPTION'],
  ]);
});

it('errors: tells errors apart by their codes', async () => {
  const sample = await start('errors', { DATABASE_URL: await database() });
  expect([await sample.ended, sample.output().trim().split('\n')]).toEqual([
    0,
    ['FATAL SCHEMA_MISMATCH', 'INVALID_TRANSACTION', 'PUBLISH_FAILED permanent 2'],
  ]);
});

it('events: prints the events of published and refused messages', async () => {
  const sample = await start('events', { DATABASE_URL: await database() });
  expect([await sample.ended, sample.output().trim().split('\n')]).toEqual([
    0,
    [
      ...['stored fine,refused', 'claimed fine,refused', 'published fine'],
      ...['failed refused 1', 'dead refused 1', 'cleaned'],
    ],
  ]);
});

it('store-from-sql: stores from a trigger of the application', async () => {
  const sample = await start('store-from-sql', { DATABASE_URL: await database() });
  expect([await sample.ended, sample.output()]).toEqual([0, 'order.created order-1 42\n']);
});

describe('the reference of tables', () => {
  const page = pages.get('docs/reference/tables.md') ?? '';

  it('names every table, column and routine', async () => {
    const pool = new pg.Pool({ connectionString: await database() });
    await new PostgresStore(pool).migrate();
    const names = await pool.query<{ name: string }>(`
      SELECT DISTINCT relname AS name FROM pg_class WHERE relnamespace = 'messenger'::regnamespace AND relkind IN ('r', 'p')
        AND relname !~ '^messages_[1-6]$'
      UNION SELECT attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace = 'messenger'::regnamespace AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped
      UNION SELECT proname FROM pg_proc WHERE pronamespace = 'messenger'::regnamespace`);
    await pool.end();
    const missing = names.rows.map(({ name }) => name).filter((name) => !new RegExp(`\`${name}[\`(]`).test(page));
    expect(missing).toEqual([]);
  });
});

describe('the reference of commands', () => {
  const page = pages.get('docs/reference/commands.md') ?? '';

  it('names every command and flag', async () => {
    const help = await messenger('', '--help');
    const commands = help.stdout.flatMap((line) => /^ {2}([a-z][a-z-]+) /.exec(line)?.[1] ?? []);
    expect(commands).toContain('migrate');
    for (const command of commands.filter((name) => name !== 'help')) {
      expect([command, page.includes(`\n## ${command}\n`)]).toEqual([command, true]);
      const { stdout } = await messenger('', 'help', command);
      const flags = stdout.flatMap((line) => /^ {2}(?:-\w, )?(--[a-z-]+)/.exec(line)?.[1] ?? []);
      expect(flags.length).toBeGreaterThan(3);
      const missing = flags.filter((flag) => !page.includes(`\`${flag}\``) && !page.includes(`\`${flag} `));
      expect([command, ...missing]).toEqual([command]);
    }
  });

  it('shows what the commands print', async () => {
    const url = await database();
    const prints = async (command: string, line: string | RegExp, code = 0) => {
      const ended = await messenger(url, ...command.split(' '));
      const found = ended.stdout.find((each) => (typeof line === 'string' ? each === line : line.test(each)));
      expect([command, ended.code, found ?? ended]).toEqual([command, code, found]);
      expect(found).toBeDefined();
      if (typeof line === 'string') expect([line, page.includes(line)]).toEqual([line, true]);
      expect([command, page.includes(`npx messenger ${command}\n`)]).toEqual([command, true]);
      return found ?? '';
    };
    await prints('migrate --retention 7d --environment production', 'set environment production in schema messenger');
    const pool = new pg.Pool({ connectionString: url });
    const store = new PostgresStore(pool, { environment: 'production' });
    await prints('rebase --environment staging', 'schema messenger belongs to this cluster: nothing to rebase');
    await prints('add-destination audit --from 7d --topics order.created --forget-after 7d', /^added "audit"/);
    await prints(
      'add-destination kafka --addressed',
      'added "kafka": start a relay with this name as its destination option',
    );
    await prints(
      'remove-destination kafka',
      'removed "kafka" with 0 unpublished messages, 0 parked messages and 0 dead letters',
    );
    await store.admin.rebase({ environment: 'production' });
    await prints('repartition 32', '32 partitions: set the partitions option of every store to this number');
    await prints(
      'roles',
      '-- nobody has more privileges than the roles need: pass --sql to print the SQL for the roles',
    );
    const fields = (line: string) => Object.keys(JSON.parse(line) as object);
    const shown = (start: string) => page.split('\n').find((line) => line.startsWith(start)) ?? '{}';
    const client = await pool.connect();
    await client.query('BEGIN');
    const ids = ['a', 'b'];
    const messages = ids.map((id) => newMessage('{"total":42}', { id, topic: 'order.created', key: id }));
    await store.add(client, messages);
    await client.query('COMMIT');
    client.release();
    const refusing = new Messenger(
      new PostgresStore(pool, { environment: 'production', partitions: 32 }),
      ({ id }) =>
        Promise.reject(new PublishError(`${id} is refused`, { kind: id === 'a' ? 'permanent' : 'retryable' })),
      { errorLogger: { error: () => undefined } },
    );
    await expect(refusing.publish()).rejects.toThrow();
    expect(fields(await prints('destinations', /"name":"default"/))).toEqual(fields(shown('{"name":')));
    expect(fields(await prints('parked', /"state":"retry"/))).toEqual(fields(shown('{"seq":3')));
    const letter = await prints('dead-letters --topic order.created --since 7d', /"state":"dead"/);
    expect(fields(letter)).toEqual(fields(shown('{"seq":2')));
    await prints('requeue --topic order.created --dry-run', 'would requeue 1 messages');
    await prints('discard --ids a', 'deleted 1 messages');
    await pool.end();
  });
});

/** The operator's commands, as `messenger` runs them, on a real database. */
import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import pg from 'pg';
import { expect, inject, it } from 'vitest';
import { Messenger, newMessage, PublishError } from 'messenger-outbox';
import { migrationScript, PostgresStore, rolesScript } from 'messenger-outbox/postgres';
import { newDatabase } from '../support/database.js';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** Runs `messenger` with these arguments. Resolves to its output, and rejects with its error. */
async function messenger(url: string, ...args: string[]): Promise<string[]> {
  const env = { PATH: process.env['PATH'], DATABASE_URL: url };
  const run = promisify(execFile)(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', ...args], {
    cwd: root,
    env,
  });
  return (await run).stdout.split('\n').filter((line) => line !== '');
}

it('shows, requeues, discards, repartitions, adopts, and prints roles', async () => {
  const url = await newDatabase(inject('postgres')[17]);
  expect(await messenger(url, 'migrate')).toHaveLength((await readdir(path.join(root, 'migrations/postgres'))).length);
  const pool = new pg.Pool({ connectionString: url });
  try {
    const store = new PostgresStore(pool);
    await pool.query(`CREATE TABLE messages (id uuid PRIMARY KEY, metadata jsonb NOT NULL, payload text,
      published boolean DEFAULT FALSE, created_at timestamptz NOT NULL DEFAULT now())`);
    await pool.query(`INSERT INTO messages VALUES (gen_random_uuid(), '{"group":"k"}', 'from Go', false, now())`);
    expect(await messenger(url, 'import-go', '--key', 'group')).toEqual(['imported 1 messages']);
    const client = await pool.connect();
    await client.query('BEGIN');
    await store.add(client, [newMessage('1', { id: 'a', key: 'k' }), newMessage('2', { id: 'b' })]);
    await client.query('COMMIT');
    client.release();
    // Each for a reason of its own, because equal failures would be taken for an outage of the broker.
    const reasons = ['too large', 'malformed', 'unknown type'];
    const refusing = { publish: () => Promise.reject(new PublishError(String(reasons.pop()), { kind: 'permanent' })) };
    await expect(new Messenger(store, refusing, { errorLogger: { error: () => {} } }).publish()).rejects.toThrow();
    await store.close();

    const letters = (await messenger(url, 'dead-letters', '--limit', '2')).map((line) => JSON.parse(line) as object);
    expect(letters).toMatchObject([
      { message: { key: 'k', payload: 'from Go' } },
      { message: { id: 'a', payload: '1' } },
    ]);
    await expect(messenger(url, 'requeue')).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringContaining('say which') as string,
    });
    expect(await messenger(url, 'discard', '--ids', 'a', 'x', '--key', 'k')).toEqual(['deleted 1 messages']);
    const [state] = await messenger(url, 'destinations');
    expect(JSON.parse(state!)).toMatchObject({ name: 'default', partitions: 8, dead: 2 });
    expect(
      await messenger(url, 'add-destination', 'second', '--from', '2026-01-31T12:00:00Z', '--topics', 'a', 'b'),
    ).toHaveLength(1);
    expect(await messenger(url, 'add-destination', 'addressed', '--addressed')).toHaveLength(1);
    await expect(
      messenger(url, 'add-destination', 'both', '--from', 'end', '--addressed', '--topics', 'a'),
    ).rejects.toMatchObject({ stderr: expect.stringContaining('cannot be used with') as string });
    await expect(messenger(url, 'add-destination', 'nowhere')).rejects.toMatchObject({
      stderr: expect.stringContaining('say where the destination begins') as string,
    });
    await expect(messenger(url, 'add-destination', 'third', '--from', 'yesterday')).rejects.toMatchObject({
      stderr: expect.stringContaining('must be a time') as string,
    });
    const states = (await messenger(url, 'destinations')).map((line) => JSON.parse(line) as object);
    expect(states).toMatchObject([
      { name: 'addressed', topics: [] },
      { name: 'default' },
      { name: 'second', topics: ['a', 'b'] },
    ]);
    await messenger(url, 'remove-destination', 'addressed');
    expect(await messenger(url, 'remove-destination', 'second', '--discard')).toEqual([
      'removed "second" with 0 unpublished messages, 0 parked messages and 0 dead letters',
    ]);
    expect(await messenger(url, 'repartition', '3')).toHaveLength(1);
    expect(await messenger(url, 'requeue', '--all')).toEqual(['requeued 2 messages']);
    await expect(messenger(url, 'repartition', '4')).rejects.toMatchObject({
      stderr: expect.stringMatching(/are waiting to be retried.*\[CONFLICT\]/) as string,
    });
    expect(await messenger('', 'roles', '--sql', '--relay', 'r')).toEqual(
      rolesScript({ relay: 'r' })
        .split('\n')
        .filter((line) => line !== ''),
    );
    await expect(messenger('', 'destinations')).rejects.toMatchObject({
      stderr: expect.stringContaining('no database was given') as string,
    });
  } finally {
    await pool.end();
  }
});

it('prints the SQL of an upgrade for a tool, and refuses to take that for a migration', async () => {
  const lines = await messenger('', 'migrate', '--sql', '--no-transaction', '--from', '1', '--schema', 's');
  expect(`${lines.join('\n')}\n`).toBe(await migrationScript({ schema: 's', from: 1, transaction: false }));
  for (const flags of [['--from', '1'], ['--no-transaction']]) {
    await expect(messenger('postgresql://nowhere/x', 'migrate', ...flags)).rejects.toMatchObject({
      stderr: expect.stringContaining('pass --sql too') as string,
    });
  }
});

it('says why there is no database, without the password', async () => {
  const refused = messenger('postgres://me:hush@localhost:1/nowhere', 'destinations');
  await expect(refused).rejects.toMatchObject({
    stderr: expect.stringMatching(/^messenger: connect ECONNREFUSED \S+:1\b.*\n$/) as string,
  });
  await expect(refused).rejects.not.toMatchObject({ stderr: expect.stringContaining('hush') as string });
});

it('tells a role without rights what it may not, and what to run', async () => {
  const url = new URL(await newDatabase(inject('postgres')[17]));
  await messenger(url.href, 'migrate');
  const admin = new pg.Client({ connectionString: url.href });
  await admin.connect();
  const role = `stranger_${process.pid}`;
  await admin.query(`CREATE ROLE ${role} LOGIN PASSWORD 'x'`);
  try {
    url.username = role;
    url.password = 'x';
    await expect(messenger(url.href, 'destinations')).rejects.toMatchObject({
      stderr: expect.stringMatching(
        /^messenger: permission denied for schema messenger: .*`messenger roles --sql --schema messenger` .* \[NOT_ALLOWED\]\n$/,
      ) as string,
    });
  } finally {
    await admin.query(`DROP ROLE ${role}`);
    await admin.end();
  }
});

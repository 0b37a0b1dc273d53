/** Reading partitions that are not read equally far. */
import pg from 'pg';
import { expect, inject, it, onTestFinished } from 'vitest';
import { newMessage } from '../../../src/core/contracts/message.js';
import { databaseOf } from '../../../src/stores/postgres/drivers/index.js';
import { PostgresStore } from '../../../src/stores/postgres/index.js';
import { namesOf } from '../../../src/stores/postgres/sql/names.js';
import { Reader } from '../../../src/stores/postgres/relay/reader.js';
import { statementsOf } from '../../../src/stores/postgres/relay/statements.js';
import { newDatabase } from '../../support/database.js';

it('says that there is nothing only after looking at each place again', async () => {
  const pool = new pg.Pool({ connectionString: await newDatabase(inject('postgres')[17]) });
  onTestFinished(() => pool.end());
  const store = new PostgresStore(pool, { partitions: 2, notify: false });
  await store.migrate();
  const add = async (id: string, key: string) => {
    const client = await pool.connect();
    await client.query('BEGIN');
    await store.add(client, newMessage('x', { id, key }));
    await client.query('COMMIT');
    client.release();
  };
  const cursor = { from: '1:1:', to: null, after: 0, low: 0, nextLow: 0, high: 0 };
  const partitions = [0, 1].map((partition) => ({ partitions: [partition], cursor }));
  const { rows } = await pool.query<{ oid: string }>(`SELECT 'messenger.messages_seq_seq'::regclass::oid::text AS oid`);
  const options = {
    sequence: rows[0]!.oid,
    pageSize: 2,
    partitions: 2,
    destination: 'default',
    topics: null,
    limitedAfter: 0,
    timeout: 10_000,
    acknowledgedHigh: () => 0,
  };
  const reader = new Reader(databaseOf(pool), statementsOf(namesOf('messenger', ''), false), partitions, options);
  const ids = async () => (await reader.next())?.messages.map(({ id }) => id);
  // Of partition 1, by its hash (0x0baf, see docs/operate/several-relays.md): a full page, so that its window stays open; of 0, nothing.
  for (const id of ['a', 'b']) await add(id, 'order-1');
  expect(await ids()).toEqual(['a', 'b']);
  await add('c', 'order-1');
  expect(await ids()).toEqual(['c']);
  expect(await ids()).toBeUndefined();
});

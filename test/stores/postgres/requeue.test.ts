import { readFile } from 'node:fs/promises';
import pg from 'pg';
import { expect, inject, it } from 'vitest';
import { Messenger, newMessage, PublishError, type Message } from 'messenger-outbox';
import { PostgresStore } from 'messenger-outbox/postgres';
import { newDatabase } from '../../support/database.js';

it('dead letters are tried again after the statement that the README gives, in the order of their key', async () => {
  const readme = await readFile(new URL('../../../README.md', import.meta.url), 'utf8');
  const [, requeue = ''] = /`(UPDATE messenger\.parked SET dead_at = NULL[^`]+)`/.exec(readme) ?? [];
  const pool = new pg.Pool({ connectionString: await newDatabase(inject('postgres')[17]) });
  try {
    const store = new PostgresStore(pool);
    await store.migrate();
    const client = await pool.connect();
    await client.query('BEGIN');
    await store.add(client, [newMessage('1', { key: 'a' }), newMessage('2', { key: 'a' }), newMessage('3')]);
    await client.query('COMMIT');
    client.release();
    const published: string[] = [];
    let refuses = true;
    const publisher = {
      publish(message: Message): Promise<void> {
        const text = Buffer.from(message.payload).toString();
        // Each for its own reason: what fails alike is taken for the broker.
        const reason = { 1: 'too large', 2: 'malformed', 3: 'unknown type' }[text];
        if (refuses) return Promise.reject(new PublishError(String(reason), { kind: 'permanent' }));
        published.push(text);
        return Promise.resolve();
      },
    };
    const messenger = new Messenger(store, publisher);
    await expect(messenger.publish()).rejects.toThrow('3 failures');
    refuses = false;
    expect(await messenger.publish()).toBe(0);
    expect((await pool.query('SELECT FROM messenger.parked WHERE dead_at IS NOT NULL')).rowCount).toBe(3);
    await pool.query(requeue);
    expect(await messenger.publish()).toBe(3);
    expect(published.filter((text) => text !== '3')).toEqual(['1', '2']);
    expect((await pool.query('SELECT FROM messenger.parked')).rowCount).toBe(0);
  } finally {
    await pool.end();
  }
});

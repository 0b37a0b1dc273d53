import type pg from 'pg';
import { ACKNOWLEDGED, newMessage, type BatchPublisher, type Message } from 'messenger-outbox';
import { PostgresStore } from 'messenger-outbox/postgres';

/** The size of a payload, as in the figures of the design. */
const PAYLOAD_BYTES = 250;
const payload = new Uint8Array(PAYLOAD_BYTES).fill(0x61);

export function benchMessage(i: number): Message {
  return newMessage(payload, { topic: 'bench', key: `key-${String(i % 1000)}` });
}

/** A publisher that acknowledges everything at once and counts. */
export function counter(onCount?: (total: number) => void): BatchPublisher & { count: number } {
  const publisher = {
    count: 0,
    batchKeepsKeyOrder: true,
    publish(): Promise<void> {
      publisher.count += 1;
      onCount?.(publisher.count);
      return Promise.resolve();
    },
    publishBatch(messages: readonly Message[]) {
      publisher.count += messages.length;
      onCount?.(publisher.count);
      return Promise.resolve(messages.map(() => ACKNOWLEDGED));
    },
  };
  return publisher;
}

/** A store with `messages` messages in it, in transactions of a thousand. */
export async function filledStore(pool: pg.Pool, messages: number): Promise<PostgresStore> {
  const store = new PostgresStore(pool);
  await store.migrate();
  const client = await pool.connect();
  try {
    for (let from = 0; from < messages; from += 1000) {
      const length = Math.min(1000, messages - from);
      await client.query('BEGIN');
      await store.add(
        client,
        Array.from({ length }, (_, i) => benchMessage(from + i)),
      );
      await client.query('COMMIT');
    }
  } finally {
    client.release();
  }
  return store;
}

import pg from 'pg';
import { Messenger, newMessage, type Message } from 'messenger-outbox';
import { ACKNOWLEDGED, type BatchPublisher, type Feed } from 'messenger-outbox/adapter';
import { PostgresStore } from 'messenger-outbox/postgres';
import type { EmbeddedPostgres } from '../test/support/embedded-postgres.js';

/** The size of a payload, as in the figures of the design. */
export const PAYLOAD_BYTES = 250;
const payload = new Uint8Array(PAYLOAD_BYTES).fill(0x61);

/** How many messages a full run is about: what is measured in seconds is shorter in a smaller one. */
const FULL = 1_000_000;

/** An outbox in a database of its own. */
export interface Outbox {
  readonly url: string;
  readonly pool: pg.Pool;
  readonly store: PostgresStore;
  /** How many messages `fill` has stored. */
  stored: number;
}

/** What every family of figures is given. */
export interface Bench {
  readonly server: EmbeddedPostgres;
  /** `--messages`: what everything is scaled by. */
  readonly messages: number;
  /** The log that most figures are measured on: of that many messages, with a copy of it in a plain table. */
  readonly log: () => Promise<Outbox>;
  /** A log that grows to several times that many, for what only shows there. */
  readonly bigLog: () => Promise<Outbox>;
}

/** Seconds of a measurement that takes `full` seconds in a full run. */
export function seconds({ messages }: Bench, full: number, least: number): number {
  return Math.max(least, full * Math.min(1, messages / FULL));
}

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

/** Relays everything that is stored to a destination that is new, and so starts at the beginning of the log. */
export async function relay(
  { store, stored }: Pick<Outbox, 'store' | 'stored'>,
  page: number,
  destination: string,
  onCount?: (total: number) => void,
): Promise<void> {
  const stop = new AbortController();
  const publisher = counter((total) => {
    onCount?.(total);
    if (total >= stored) stop.abort();
  });
  await new Messenger(store, publisher, { destination, publishBatchSize: page }).start({ signal: stop.signal });
  if (publisher.count !== stored) throw new Error(`relayed ${publisher.count} of ${stored} messages`);
}

export async function createOutbox(server: EmbeddedPostgres, name: string): Promise<Outbox> {
  const url = await server.createDatabase(name);
  const pool = new pg.Pool({ connectionString: url, max: 20 });
  const store = new PostgresStore(pool);
  await store.migrate();
  return { url, pool, store, stored: 0 };
}

/** A store that tells of every feed that it has opened. */
export function tellingStore(pool: pg.Pool, opened: (feed: Feed) => void): PostgresStore {
  const store = new PostgresStore(pool);
  const open = store.openFeed.bind(store);
  store.openFeed = async (options) => {
    const feed = await open(options);
    if (feed) opened(feed);
    return feed;
  };
  return store;
}

/** An outbox for one measurement. */
export async function withOutbox<T>(
  server: EmbeddedPostgres,
  name: string,
  work: (outbox: Outbox) => Promise<T>,
): Promise<T> {
  const outbox = await createOutbox(server, name);
  try {
    return await work(outbox);
  } finally {
    await outbox.pool.end();
    await dropDatabase(server, name);
  }
}

/**
 * Files of a database that nobody needs any more would only be written to the disk while others are measured. A pool
 * that has ended can have connections that are about to: ending them by force is an error that nobody listens to.
 */
export async function dropDatabase(server: EmbeddedPostgres, name: string): Promise<void> {
  const client = new pg.Client({ connectionString: server.url() });
  await client.connect();
  const gone = async () => {
    const { rowCount } = await client.query('SELECT FROM pg_stat_activity WHERE datname = $1', [name]);
    return rowCount === 0;
  };
  for (let look = 0; look < 100 && !(await gone()); look++) await new Promise((resolve) => setTimeout(resolve, 50));
  await client.query(`DROP DATABASE ${pg.escapeIdentifier(name)} WITH (FORCE)`);
  await client.end();
}

/** Stores messages until there are `to`, in transactions of a thousand. */
export async function fill(outbox: Outbox, to: number): Promise<void> {
  const client = await outbox.pool.connect();
  try {
    while (outbox.stored < to) {
      await client.query('BEGIN');
      await storeIn(client, outbox, Math.min(1000, to - outbox.stored));
      await client.query('COMMIT');
    }
  } finally {
    client.release();
  }
}

/** Stores messages in a transaction that somebody else commits. */
export async function storeIn(client: pg.PoolClient, outbox: Outbox, messages: number): Promise<void> {
  for (let left = messages; left > 0; left -= 1000) {
    const length = Math.min(1000, left);
    await outbox.store.add(
      client,
      Array.from({ length }, (_, i) => benchMessage(outbox.stored + i)),
    );
    outbox.stored += length;
  }
}

/** Resolves when the destination has nothing to do: it began at the beginning of a log that is not empty. */
export async function caughtUp(pool: pg.Pool, destination: string): Promise<void> {
  for (;;) {
    const { rowCount } = await pool.query(
      `SELECT FROM messenger.cursors WHERE destination = $1 AND high = (SELECT max(seq) FROM messenger.messages)`,
      [destination],
    );
    if (rowCount !== null && rowCount > 0) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

import { inject, onTestFinished } from 'vitest';
import pg from 'pg';
import { newMessage, type Message } from '../../../src/core/contracts/message.js';
import type { ToPark } from '../../../src/core/contracts/feed.js';
import { PostgresStore, type PostgresStoreOptions } from '../../../src/stores/postgres/index.js';
import { newDatabase } from '../../support/database.js';
import type { PostgresVersion } from '../../support/embedded-postgres.js';

/** An outbox in a database of its own, and what a test does with it. */
export class Outbox {
  readonly url: string;
  readonly pool: pg.Pool;
  readonly store: PostgresStore;
  readonly #sessions: pg.Client[] = [];
  #closed: Promise<void> | undefined;

  private constructor(url: string, options: PostgresStoreOptions) {
    this.url = url;
    this.pool = new pg.Pool({ connectionString: url, max: 5 });
    this.pool.on('error', () => {});
    this.store = new PostgresStore(this.pool, options);
  }

  /** Opens the outbox of a database, which ends with the test. Its tables are made unless told not to. */
  static async at(url: string, options: PostgresStoreOptions = {}, migrate = true): Promise<Outbox> {
    const outbox = new Outbox(url, { partitions: 3, lease: 600_000, ...options });
    onTestFinished(() => outbox.close());
    if (migrate) await outbox.store.migrate();
    return outbox;
  }

  static async on(version: PostgresVersion, options: PostgresStoreOptions = {}): Promise<Outbox> {
    return Outbox.at(await newDatabase(inject('postgres')[version]), options);
  }

  async session(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.url });
    client.on('error', () => {});
    await client.connect();
    this.#sessions.push(client);
    return client;
  }

  /** A session whose transaction has its id already. */
  async begin(): Promise<pg.Client> {
    const client = await this.session();
    await client.query('BEGIN; SELECT pg_current_xact_id()');
    return client;
  }

  /** Stores messages in an open transaction: a key is what stands before a colon in an id. */
  async addTo(client: pg.Client | pg.PoolClient, ...ids: readonly string[]): Promise<void> {
    const key = (id: string) => (id.includes(':') ? id.slice(0, id.indexOf(':')) : undefined);
    await this.store.add(
      client,
      ids.map((id) => newMessage(id, { id, key: key(id) })),
    );
  }

  async add(...ids: readonly string[]): Promise<void> {
    const client = await this.pool.connect();
    try {
      await client.query('BEGIN');
      await this.addTo(client, ...ids);
      await client.query('COMMIT');
    } finally {
      client.release();
    }
  }

  async value(text: string, values: unknown[] = []): Promise<unknown> {
    const { rows } = await this.pool.query<unknown[]>({ text, values, rowMode: 'array' });
    return rows[0]?.[0];
  }

  /** A relay of its own, which works off so many pages and ends; returns the ids that it published. */
  async relay({
    destination = 'default',
    pages = Infinity,
    pageSize = 100,
    toPark = () => undefined,
    store = this.store,
  }: RelayRun = {}): Promise<string[]> {
    const feed = await store.openFeed({ destination, pageSize });
    if (feed === null) throw new Error(`${destination} is held by another relay`);
    const published: string[] = [];
    try {
      for (let n = 0; n < pages; n++) {
        let worked = false;
        for (const fromLog of [false, true]) {
          const page = await (fromLog ? feed.read() : feed.retries());
          if (page.messages.length === 0) continue;
          worked = true;
          const isParked = (key: string) => fromLog && feed.isParked(key);
          const all = behind(page.messages, isParked, toPark);
          published.push(...page.messages.filter((m) => !all.some(({ message }) => message === m)).map(({ id }) => id));
          await feed.settle(page, all);
        }
        if (!worked) break;
      }
    } finally {
      await feed.close();
    }
    return published;
  }

  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    await this.store.close();
    await Promise.all(this.#sessions.map((session) => session.end().catch(() => undefined)));
    await this.pool.end();
  }
}

export interface RelayRun {
  readonly destination?: string;
  readonly pages?: number;
  readonly pageSize?: number;
  /** Whether the broker refuses a message, and for how many milliseconds it is then parked. */
  readonly toPark?: (id: string) => number | undefined;
  readonly store?: PostgresStore;
}

/** What is refused, and what waits behind it. */
function behind(
  messages: readonly Message[],
  isParked: (key: string) => boolean,
  refused: (id: string) => number | undefined,
): ToPark[] {
  const keys = new Set<string>();
  return messages.flatMap((message): ToPark[] => {
    const retryIn = refused(message.id);
    const waits = message.key !== undefined && (keys.has(message.key) || isParked(message.key));
    if (retryIn === undefined && !waits) return [];
    if (message.key !== undefined) keys.add(message.key);
    const base = { message, dead: false };
    return [
      retryIn === undefined || waits
        ? { ...base, attempts: 0 }
        : { ...base, attempts: 1, error: new Error('refused'), retryIn },
    ];
  });
}

import type { Feed, IdleOptions, Page, SetAside } from '../../core/feed.js';
import type { StoreCallOptions } from '../../core/call.js';
import { sameCursor, type Cursor } from './cursor.js';
import type { Connection, Database } from './database.js';
import { Lease, type ClaimOptions } from './lease.js';
import { Parked } from './parked.js';
import { Reader, type LogPage } from './reader.js';
import type { StoredMessage } from './rows.js';
import type { Statements } from './statements.js';
import type { Waker } from './wake.js';

/** How long a message that became due may wait to be looked for. Milliseconds. */
const RETRY_LOOK = 1_000;

/** A page of the log or of the side table: which of them decides how it is settled. */
export interface PostgresPage extends Page {
  readonly messages: readonly StoredMessage[];
  /** Absent for messages of the side table. */
  readonly log?: LogPage;
}

export interface PostgresFeedOptions extends ClaimOptions {
  readonly pageSize: number;
  /** How it sleeps while there is nothing to do. */
  readonly waker: Waker;
}

/** One relay's hold on a destination of a PostgreSQL store. */
export class PostgresFeed implements Feed {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #options: PostgresFeedOptions;
  readonly #lease: Lease;
  readonly #parked: Parked;
  #reader: Reader;
  /** The cursor of the last settlement that was acknowledged. */
  #settled: Cursor;
  /** The cursor of the last settlement that was asked for: what changes the side table alone keeps it. */
  #asked: Cursor;
  /** How many pages of the log were read and not settled yet. */
  #unsettled = 0;

  private constructor(
    database: Database,
    statements: Statements,
    options: PostgresFeedOptions,
    lease: Lease,
    cursor: Cursor,
    parked: Parked,
  ) {
    this.#database = database;
    this.#statements = statements;
    this.#options = options;
    this.#lease = lease;
    this.#settled = cursor;
    this.#asked = cursor;
    this.#parked = parked;
    this.#reader = this.#newReader();
  }

  /** Claims the destination, or resolves to `null` while another relay holds it. */
  static async open(
    database: Database,
    statements: Statements,
    options: PostgresFeedOptions,
  ): Promise<PostgresFeed | null> {
    const claimed = await Lease.claim(database, statements, options);
    if (claimed === null) return null;
    const { lease, cursor } = claimed;
    try {
      // In a statement after the claim has committed: read with it, they would be the old owner's, and
      // messages behind a key that it set aside since would overtake.
      const parked = await Parked.load(database, statements, options);
      return new PostgresFeed(database, statements, options, lease, cursor, parked);
    } catch (error) {
      await lease.release();
      throw error;
    }
  }

  get lost(): AbortSignal {
    return this.#lease.lost;
  }

  get partitions(): readonly number[] {
    return Array.from({ length: this.#options.partitions }, (_, partition) => partition);
  }

  get unbalanced(): boolean {
    return this.#lease.lost.aborted;
  }

  async rebalance(): Promise<void> {
    // Until partitions are shared.
  }

  waiting(topic: string | undefined): number {
    return this.#parked.waiting(topic);
  }

  async idle(ms: number, { interval = ms, signal }: IdleOptions = {}): Promise<void> {
    await this.#options.waker.idle({
      ms,
      // Nobody tells when a message that was set aside becomes due.
      interval: this.#parked.mayWait ? Math.min(interval, RETRY_LOOK) : interval,
      partitions: this.partitions,
      signals: [signal, this.lost],
    });
  }

  isSetAside(key: string): boolean {
    return this.#parked.has(key);
  }

  async read({ signal }: StoreCallOptions = {}): Promise<PostgresPage> {
    const log = await this.#reader.next(signal);
    if (log.messages.length > 0) {
      this.#options.waker.awake();
      this.#unsettled += 1;
    }
    // A window that turned out to be at its end is stored as closed, so that cleaning can see it; but
    // never past a page that was read and not settled.
    else if (this.#unsettled === 0 && this.#asked.to !== null) await this.#settle(log.cursor());
    return { messages: log.messages, log };
  }

  async retries({ signal }: StoreCallOptions = {}): Promise<PostgresPage> {
    const page = await this.#parked.due(this.#options.pageSize, signal);
    if (page.messages.length > 0) this.#options.waker.awake();
    return page;
  }

  async settle(page: Page, setAside: readonly SetAside[]): Promise<void> {
    const { log, messages } = page as PostgresPage;
    if (log) {
      if (log.messages.length > 0) this.#unsettled -= 1;
      const park = this.#parked.parking(setAside);
      await this.#settle(log.cursor(), park);
    } else {
      const gone = new Set(setAside.map(({ message }) => message));
      const unpark = this.#parked.unparking(
        messages.filter((message) => !gone.has(message)),
        setAside,
      );
      await this.#settle(this.#asked, unpark);
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.#options.waker.close(), this.#lease.release()]);
  }

  /**
   * For the plain `Store` contract: what is set aside and due, and then what is new, from the settled
   * cursor on, however often it is read.
   */
  async unpublished(limit: number, signal?: AbortSignal): Promise<{ parked: PostgresPage; page: PostgresPage }> {
    const parked = await this.#parked.due(limit, signal);
    this.#reader = this.#newReader();
    this.#unsettled = 0;
    const page = await this.read({ signal });
    return { parked, page };
  }

  /**
   * For the plain `Store` contract: settles, in one transaction, messages of the side table and the
   * first `count` of a page of the log, of which `gaps` were not published and go to the side table.
   */
  async settlePublished(published: {
    parked: readonly StoredMessage[];
    page: PostgresPage;
    count: number;
    gaps: readonly SetAside[];
  }): Promise<void> {
    const { parked, page, count, gaps } = published;
    const cursor = count > 0 && page.log ? page.log.cursor(count) : this.#asked;
    const park = this.#parked.parking(gaps);
    const unpark = this.#parked.unparking(parked, []);
    await this.#settle(cursor, async (connection) => {
      await park?.(connection);
      await unpark(connection);
    });
  }

  async #settle(cursor: Cursor, also?: (connection: Connection) => Promise<void>): Promise<void> {
    if (!also && sameCursor(cursor, this.#settled)) return;
    this.#asked = cursor;
    await this.#lease.settle(also ? { cursor, also } : { cursor });
    this.#settled = cursor;
  }

  #newReader(): Reader {
    return new Reader(this.#database, this.#statements, this.#settled, {
      pageSize: this.#options.pageSize,
      timeout: this.#options.timeout,
      acknowledgedHigh: () => this.#settled.high,
    });
  }
}

import type { Feed, Page, SetAside } from '../../core/feed.js';
import type { StoreCallOptions } from '../../core/call.js';
import type { Message } from '../../core/message.js';
import { sleep } from '../../core/wait.js';
import { sameCursor, type Cursor } from './cursor.js';
import type { Connection, Database } from './database.js';
import { Lease, type ClaimOptions } from './lease.js';
import { Delays } from './delays.js';
import { Parked, type ToPark } from './parked.js';
import { Reader, type LogPage } from './reader.js';
import type { StoredMessage } from './rows.js';
import type { Statements } from './statements.js';

/** A page of the log or of the side table: which of them decides how it is settled. */
export interface PostgresPage extends Page {
  readonly messages: readonly StoredMessage[];
  /** Absent for messages of the side table. */
  readonly log?: LogPage;
  /** What was read with it, or before it, and is parked with it instead of published: its time has not come. */
  readonly delayed?: readonly ToPark[];
}

/**
 * How long one call of `read` goes on parking where all that there is is delayed, so that retries, and a
 * stop, do not wait for it. Milliseconds.
 */
const LONGEST_PARKING = 500;

export interface PostgresFeedOptions extends ClaimOptions {
  readonly pageSize: number;
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
  #delays = new Delays();

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

  async idle(ms: number, { signal }: StoreCallOptions = {}): Promise<void> {
    await sleep(ms, signal, this.lost);
  }

  isSetAside(key: string): boolean {
    return this.#parked.has(key);
  }

  async read({ signal }: StoreCallOptions = {}): Promise<PostgresPage> {
    const until = performance.now() + LONGEST_PARKING;
    for (;;) {
      const log = await this.#reader.next(signal);
      const messages = this.#delays.sift(log.messages);
      if (messages.length > 0) {
        this.#unsettled += 1;
        return { messages, log, delayed: this.#delays.take() };
      }
      // Never past a page that was read and not settled: what was kept back goes with a later one.
      if (this.#unsettled > 0) return { messages };
      const delayed = this.#delays.take();
      if (delayed.length > 0) await this.#settle(log.cursor(), this.#parking(delayed));
      // A window that turned out to be at its end is stored as closed, so that cleaning can see it.
      else if (this.#asked.to !== null) await this.#settle(log.cursor());
      if (log.messages.length === 0 || signal?.aborted === true || performance.now() > until) return { messages };
    }
  }

  async retries({ signal }: StoreCallOptions = {}): Promise<PostgresPage> {
    return this.#parked.due(this.#options.pageSize, signal);
  }

  async settle(page: Page, setAside: readonly SetAside[]): Promise<void> {
    const { log, messages, delayed = [] } = page as PostgresPage;
    if (log) {
      this.#unsettled -= 1;
      await this.#settle(log.cursor(), this.#parking(delayed, setAside));
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
    await this.#lease.release();
  }

  /**
   * For the plain `Store` contract: what is set aside and due, and then what is new, from the settled
   * cursor on, however often it is read.
   */
  async unpublished(limit: number, signal?: AbortSignal): Promise<{ parked: PostgresPage; page: PostgresPage }> {
    const parked = await this.#parked.due(limit, signal);
    this.#reader = this.#newReader();
    this.#unsettled = 0;
    this.#delays = new Delays();
    const page = await this.read({ signal });
    return { parked, page };
  }

  /**
   * For the plain `Store` contract: settles, in one transaction, messages of the side table and the
   * first `count` of a page of the log, of which `gaps` were not published and go to the side table. The
   * first `passed` of them were settled before.
   */
  async settlePublished(published: {
    parked: readonly StoredMessage[];
    page: PostgresPage;
    passed: number;
    count: number;
    gaps: readonly SetAside[];
  }): Promise<void> {
    const { parked, page, passed, count, gaps } = published;
    const [from, to] = [rowsUpTo(page, passed), rowsUpTo(page, count)];
    const cursor = to > 0 && page.log ? page.log.cursor(to) : this.#asked;
    const rows = new Set<Message>(page.log?.messages.slice(from, to));
    const park = this.#parking(page.delayed?.filter(({ message }) => rows.has(message)) ?? [], gaps);
    const unpark = this.#parked.unparking(parked, []);
    await this.#settle(cursor, async (connection) => {
      await park?.(connection);
      await unpark(connection);
    });
  }

  /** Sets aside what was kept back for later, and what the relay set aside. */
  #parking(
    delayed: readonly ToPark[],
    setAside: readonly SetAside[] = [],
  ): ((connection: Connection) => Promise<void>) | undefined {
    const park = this.#parked.parking([...delayed, ...setAside]);
    this.#delays.settled(delayed);
    return park;
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

/** How many messages of the log are settled with the first `count` that were handed out; with all, all. */
function rowsUpTo({ messages, log }: PostgresPage, count: number): number {
  const last = messages[count - 1];
  if (last === undefined || log === undefined) return 0;
  return count === messages.length ? log.messages.length : log.messages.indexOf(last) + 1;
}

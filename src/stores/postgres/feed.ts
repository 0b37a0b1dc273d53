import type { StoreCallOptions } from '../../core/call.js';
import type { Feed, Page, SetAside } from '../../core/feed.js';
import { sleep } from '../../core/wait.js';
import type { ClaimOptions, CursorRow } from './claim.js';
import { sameCursor, type Cursor } from './cursor.js';
import { preamble, type Database } from './database.js';
import { Lease, type Change } from './lease.js';
import { Parked } from './parked.js';
import { Reader, type LogPage, type Position } from './reader.js';
import type { StoredMessage } from './rows.js';
import type { Statements } from './statements.js';

/** A page of the log or of the side table: which of them decides how it is settled. */
export interface PostgresPage extends Page {
  readonly messages: readonly StoredMessage[];
  /** Absent for messages of the side table, and where nothing was read. */
  readonly log?: LogPage;
}

export interface PostgresFeedOptions extends ClaimOptions {
  readonly pageSize: number;
}

/**
 * By how many numbers of the sequence a stored cursor may be behind, while there is nothing of ours:
 * beyond it, the other partitions' messages since then would be read over again and again.
 */
const FAR_BEHIND = 1_000;

/** One relay's hold on partitions of a destination of a PostgreSQL store. */
export class PostgresFeed implements Feed {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #options: PostgresFeedOptions;
  readonly #lease: Lease;
  readonly #topics: readonly string[] | null;
  #parked: Parked;
  #reader: Reader;
  /** The cursor of each partition, as the last settlement of it that was acknowledged stored it. */
  readonly #settled: Map<number, Cursor>;
  /** The same of the last settlement that was asked for. */
  readonly #asked: Map<number, Cursor>;
  /** How many pages of the log were read and not settled yet. */
  #unsettled = 0;

  private constructor(
    database: Database,
    statements: Statements,
    options: PostgresFeedOptions,
    held: { lease: Lease; taken: readonly CursorRow[]; parked: Parked; topics: readonly string[] | null },
  ) {
    this.#database = database;
    this.#statements = statements;
    this.#options = options;
    this.#lease = held.lease;
    this.#topics = held.topics;
    this.#parked = held.parked;
    this.#settled = new Map(held.taken.map(({ partition, cursor }) => [partition, cursor]));
    this.#asked = new Map(this.#settled);
    this.#reader = this.#newReader();
  }

  /** Claims a share of the destination, or resolves to `null` while there is nothing for this relay. */
  static async open(
    database: Database,
    statements: Statements,
    options: PostgresFeedOptions,
  ): Promise<PostgresFeed | null> {
    const claimed = await Lease.claim(database, statements, options);
    if (claimed === null) return null;
    const { lease, taken } = claimed;
    try {
      const topics = await topicsOf(database, statements, options);
      // In a statement after the claim has committed: read with it, they would be the old owner's, and
      // messages behind a key that it set aside since would overtake.
      const parked = await Parked.load(database, statements, options, lease.partitions);
      return new PostgresFeed(database, statements, options, { lease, taken, parked, topics });
    } catch (error) {
      await lease.release();
      throw error;
    }
  }

  get lost(): AbortSignal {
    return this.#lease.lost;
  }

  get partitions(): readonly number[] {
    return this.#lease.partitions;
  }

  get unbalanced(): boolean {
    return this.#lease.unbalanced;
  }

  async rebalance({ signal }: StoreCallOptions = {}): Promise<void> {
    const taken = await this.#lease.rebalance();
    const { partitions } = this.#lease;
    // After the claim, as in `open`.
    this.#parked = await Parked.load(this.#database, this.#statements, { ...this.#options, signal }, partitions);
    for (const partition of this.#settled.keys()) if (!partitions.includes(partition)) this.#settled.delete(partition);
    for (const { partition, cursor } of taken) this.#settled.set(partition, cursor);
    this.#asked.clear();
    for (const [partition, cursor] of this.#settled) this.#asked.set(partition, cursor);
    this.#reader = this.#newReader();
    this.#unsettled = 0;
  }

  isSetAside(key: string): boolean {
    return this.#parked.has(key);
  }

  waiting(topic: string | undefined): number {
    return this.#parked.waiting(topic);
  }

  async read({ signal }: StoreCallOptions = {}): Promise<PostgresPage> {
    const log = await this.#reader.next(signal);
    if (log === null) {
      if (this.#unsettled === 0) await this.#keepUp();
      return { messages: [] };
    }
    this.#unsettled += 1;
    return { messages: log.messages, log };
  }

  async retries({ signal }: StoreCallOptions = {}): Promise<PostgresPage> {
    return this.#parked.due(this.#options.pageSize, signal);
  }

  async settle(page: Page, setAside: readonly SetAside[]): Promise<void> {
    const { log, messages } = page as PostgresPage;
    if (log) {
      this.#unsettled -= 1;
      await this.#settle(log.partitions, log.cursor(), this.#parked.parking(setAside));
    } else if (messages.length > 0) {
      const gone = new Set(setAside.map(({ message }) => message));
      const published = messages.filter((message) => !gone.has(message));
      await this.#lease.change(this.#parked.unparking(published, setAside));
    }
  }

  async idle(ms: number, { signal }: StoreCallOptions = {}): Promise<void> {
    await sleep(ms, signal, this.lost, this.#lease.stirred);
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
    const park = this.#parked.parking(gaps);
    const unpark = this.#parked.unparking(parked, []);
    const also: Change = async (connection) => {
      await park?.(connection);
      await unpark(connection);
    };
    if (count > 0 && page.log) await this.#settle(page.log.partitions, page.log.cursor(count), also);
    else await this.#lease.change(also);
  }

  /**
   * Stores where reading is when there is nothing to publish: a window that turned out to be at its end,
   * so that cleaning can see it, and what the log has grown by without anything of ours.
   */
  async #keepUp(): Promise<void> {
    for (const { partitions, cursor } of this.#reader.positions) {
      const isBehind = partitions.some((partition) => {
        const asked = this.#asked.get(partition);
        return asked !== undefined && (asked.to !== null || asked.high + FAR_BEHIND <= cursor.high);
      });
      if (isBehind) await this.#settle(partitions, cursor);
    }
  }

  async #settle(partitions: readonly number[], cursor: Cursor, also?: Change): Promise<void> {
    const isStored = partitions.every((partition) => {
      const settled = this.#settled.get(partition);
      return settled !== undefined && sameCursor(cursor, settled);
    });
    if (!also && isStored) return;
    for (const partition of partitions) this.#asked.set(partition, cursor);
    await this.#lease.settle(partitions, cursor, also);
    for (const partition of partitions) this.#settled.set(partition, cursor);
  }

  #newReader(): Reader {
    const { pageSize, partitions, timeout } = this.#options;
    return new Reader(this.#database, this.#statements, positionsOf(this.#settled), {
      pageSize,
      partitions,
      topics: this.#topics,
      timeout,
      acknowledgedHigh: () => Math.max(0, ...[...this.#settled.values()].map(({ high }) => high)),
    });
  }
}

/** Partitions with equal cursors are read together. */
function positionsOf(cursors: ReadonlyMap<number, Cursor>): Position[] {
  const positions: { partitions: number[]; cursor: Cursor }[] = [];
  for (const [partition, cursor] of cursors) {
    const same = positions.find((position) => sameCursor(position.cursor, cursor));
    if (same) same.partitions.push(partition);
    else positions.push({ partitions: [partition], cursor });
  }
  return positions;
}

async function topicsOf(
  database: Database,
  statements: Statements,
  { destination, timeout, signal }: ClaimOptions,
): Promise<readonly string[] | null> {
  const [row] = await database.transaction(
    preamble(timeout),
    (connection) => connection.query(statements.destination, [destination]),
    { timeout, signal },
  );
  return typeof row?.[0] === 'string' ? (JSON.parse(row[0]) as string[]) : null;
}

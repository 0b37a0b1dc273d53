import type { StoreCallOptions } from '../../../core/contracts/call-options.js';
import type { CloseOptions, Feed, IdleOptions, Page, ToPark } from '../../../core/contracts/feed.js';
import type { Message } from '../../../core/contracts/message.js';
import { serially, sleep } from '../../../core/util/async.js';
import type { ClaimOptions, CursorRow } from './claim.js';
import type { Database } from '../sql/database.js';
import { DelayedMessages } from './delayed-messages.js';
import { HeldCursors } from './held-cursors.js';
import { Lease, type Change } from './lease.js';
import { givenUp, NOTHING, rowsUpTo, settledBy, type PostgresPage } from './page.js';
import { Parked, type ToParkOrDelay } from './parked.js';
import { Reader, type LogPage, type Position } from './reader.js';
import { unreadable, type StoredMessage } from '../sql/stored-message.js';
import type { Source } from './source.js';
import type { Statements } from './statements.js';
import type { Waker } from './waker.js';

/** The longest time between a message becoming due and the feed looking for it, in milliseconds. */
const RETRY_LOOK = 1_000;

/**
 * How many milliseconds one call of `read` can spend on parking if it finds only delayed messages. Retries and a stop
 * wait for that call.
 */
const LONGEST_PARKING = 500;

/** How many milliseconds to wait for the pages in flight before the feed reads more. */
const SHORT_PAUSE = 20;

export interface PostgresFeedOptions extends ClaimOptions {
  readonly pageSize: number;
  /** How the feed sleeps while there is nothing to do. */
  readonly waker: Waker;
}

/** One relay's hold on partitions of a destination in a PostgreSQL store. */
export class PostgresFeed implements Feed {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #options: PostgresFeedOptions;
  readonly #lease: Lease;
  readonly #source: Source;
  #parked: Parked;
  #reader: Reader;
  readonly #cursors: HeldCursors;
  /** How many pages of the log have been read but not settled. */
  #unsettled = 0;
  #delayed = new DelayedMessages();
  /** Whether the last page reached the end of the log. */
  #atEnd = false;
  /** The last page, if none of its messages is due. The feed settles it once all other pages are settled. */
  #carried: { readonly log: LogPage; readonly delayed: readonly ToParkOrDelay[] } | undefined;
  /**
   * Runs one thing at a time: either a look at the parked messages, or a change to them that is no settlement of a
   * page. Each must see what the other has done.
   */
  readonly #beside = serially();

  private constructor(
    database: Database,
    statements: Statements,
    options: PostgresFeedOptions,
    held: { lease: Lease; taken: readonly CursorRow[]; parked: Parked; source: Source },
  ) {
    this.#database = database;
    this.#statements = statements;
    this.#options = options;
    this.#lease = held.lease;
    this.#source = held.source;
    this.#parked = held.parked;
    this.#cursors = new HeldCursors(held.taken);
    this.#reader = this.#newReader();
  }

  /** Claims a share of the destination. Resolves to `null` if there is no partition for this relay now. */
  static async open(
    database: Database,
    statements: Statements,
    options: PostgresFeedOptions,
  ): Promise<PostgresFeed | null> {
    const claimed = await Lease.claim(database, statements, options);
    if (claimed === null) return null;
    const { lease, taken } = claimed;
    try {
      // Read the parked keys only after the claim has committed. If the claim itself read them, it could miss keys that
      // the previous owner is just parking. Later messages with those keys would then overtake.
      const loaded = await Parked.load(database, statements, options, lease.partitions);
      return new PostgresFeed(database, statements, options, { lease, taken, ...loaded });
    } catch (error) {
      await lease.release(true);
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
    // Read the parked keys after the claim, as `open` does.
    const { parked } = await Parked.load(this.#database, this.#statements, { ...this.#options, signal }, partitions);
    this.#parked = parked;
    this.#cursors.rebalanced(partitions, taken);
    this.#readAnew();
  }

  isParked(key: string): boolean {
    return this.#parked.has(key);
  }

  waiting(topic: string | undefined): number {
    return this.#parked.waiting(topic);
  }

  async read({ signal }: StoreCallOptions = {}): Promise<PostgresPage> {
    const until = performance.now() + LONGEST_PARKING;
    for (;;) {
      if (this.#carried !== undefined) {
        // Never move the cursor past a page that was read but not settled.
        if (this.#unsettled > 0) return NOTHING;
        const { log, delayed } = this.#carried;
        await this.#beside(() => this.#settle(settledBy(log), this.#parking(delayed)));
        this.#carried = undefined;
        if (signal?.aborted === true || performance.now() > until) return NOTHING;
      }
      if (this.#atEnd) await this.#options.waker.lull();
      const log = await this.#reader.next(signal);
      this.#atEnd = log !== null && this.#reader.isAtEnd;
      if (log !== null) this.#options.waker.found(log.messages);
      if (log === null) {
        if (this.#unsettled === 0) await this.#beside(() => this.#keepUp());
        return NOTHING;
      }
      const { messages, delayed } = this.#delayed.sift(log.messages);
      if (messages.length > 0) {
        this.#unsettled += 1;
        this.#options.waker.awake();
        return { messages, log, delayed, unreadable: unreadable(messages) };
      }
      this.#carried = { log, delayed };
    }
  }

  async retries({ signal }: StoreCallOptions = {}): Promise<PostgresPage> {
    const page = await this.#beside(() => this.#parked.due(this.#options.pageSize, signal));
    if (page.messages.length > 0) this.#options.waker.awake();
    return page;
  }

  async settle(page: Page, toPark: readonly ToPark[]): Promise<void> {
    const { log, messages, delayed = [] } = page as PostgresPage;
    if (log) {
      this.#unsettled -= 1;
      await this.#settle(settledBy(log), this.#parking(delayed, toPark));
    } else if (messages.length > 0) {
      const gone = new Set(toPark.map(({ message }) => message));
      const published = messages.filter((message) => !gone.has(message));
      const { change, committed } = this.#parked.unparking(published, toPark);
      await this.#lease.change(change);
      committed();
    }
  }

  async idle(ms: number, { interval = ms, signal }: IdleOptions = {}): Promise<void> {
    // Sleep only briefly. The feed can read more as soon as the pages in flight are settled.
    if (this.#carried !== undefined) return sleep(Math.min(ms, SHORT_PAUSE), signal, this.lost);
    await this.#options.waker.idle({
      ms,
      // Nothing wakes the feed when a parked message becomes due.
      interval: this.#parked.mayWait ? Math.min(interval, RETRY_LOOK) : interval,
      partitions: this.partitions,
      signals: [signal, this.lost, this.#lease.stirred],
    });
  }

  async close({ stays = false }: CloseOptions = {}): Promise<void> {
    await Promise.all([this.#options.waker.close(), this.#lease.release(stays)]);
  }

  /**
   * For the plain `Store` contract: reads the due parked messages, and then the new messages. Each call starts again
   * from the settled cursor.
   */
  async unpublished(limit: number, signal?: AbortSignal): Promise<{ parked: PostgresPage; page: PostgresPage }> {
    const parked = await this.#giveUp(await this.#parked.due(limit, signal));
    this.#readAnew();
    for (;;) {
      const { unreadable: errors, messages, ...rest } = await this.read({ signal });
      if (errors === undefined) return { parked, page: { ...rest, messages } };
      const delayed = [...(rest.delayed ?? []), ...[...errors].map(([message, error]) => givenUp(message, error, 0))];
      const readable = messages.filter((message) => !errors.has(message));
      if (readable.length > 0) return { parked, page: { ...rest, delayed, messages: readable } };
      const none: PostgresPage = { ...rest, delayed, messages };
      await this.settle(none, []);
    }
  }

  /** Returns the due messages that can be read. The others become dead letters. */
  async #giveUp({ messages, attempts = [], unreadable: errors }: PostgresPage): Promise<PostgresPage> {
    if (errors === undefined) return { messages };
    const dead = messages.flatMap((message, n) => {
      const error = errors.get(message);
      return error ? [givenUp(message, error, attempts[n] ?? 0)] : [];
    });
    const { change, committed } = this.#parked.unparking([], dead);
    await this.#lease.change(change);
    committed();
    return { messages: messages.filter((message) => !errors.has(message)) };
  }

  /**
   * For the plain `Store` contract: settles, in one transaction, the messages in the side table and the first `count`
   * messages of a page of the log. An earlier call has already settled the first `passed` of them. The messages in
   * `gaps` were not published, so they go to the side table.
   */
  async settlePublished(published: {
    parked: readonly StoredMessage[];
    page: PostgresPage;
    passed: number;
    count: number;
    gaps: readonly ToPark[];
  }): Promise<void> {
    const { parked, page, passed, count, gaps } = published;
    const [from, to] = [rowsUpTo(page, passed), rowsUpTo(page, count)];
    const rows = new Set<Message>(page.log?.messages.slice(from, to));
    const park = this.#parking(page.delayed?.filter(({ message }) => rows.has(message)) ?? [], gaps);
    const unpark = this.#parked.unparking(parked, []);
    const also: Change = async (connection) => {
      await park?.(connection);
      await unpark.change(connection);
    };
    if (to > 0 && page.log) await this.#settle(settledBy(page.log, to), also);
    else await this.#lease.change(also);
    unpark.committed();
  }

  /** Parks the delayed messages of a page, and the messages that the relay wants to park. */
  #parking(delayed: readonly ToParkOrDelay[], toPark: readonly ToPark[] = []): Change | undefined {
    const park = this.#parked.parking([...delayed, ...toPark]);
    this.#delayed.settled(delayed);
    return park;
  }

  /**
   * Stores how far the feed has read, even though there was nothing to publish: the end of a window that was read
   * completely, which cleaning needs, and how far the sequence has advanced without a message for this feed.
   */
  async #keepUp(): Promise<void> {
    for (const position of this.#reader.positions) {
      if (this.#cursors.areBehind(position)) await this.#settle(position);
    }
  }

  async #settle(position: Position, also?: Change): Promise<void> {
    // Copy the position, because the reader replaces the cursor in it.
    const { partitions, cursor } = position;
    const reached = { partitions, cursor };
    if (!also && this.#cursors.areStored(reached)) return;
    this.#cursors.asked(reached);
    await this.#lease.settle(partitions, cursor, also);
    this.#cursors.settled(reached);
  }

  /** Forgets the pages that were read but not settled. */
  #readAnew(): void {
    this.#reader = this.#newReader();
    this.#unsettled = 0;
    this.#delayed = new DelayedMessages();
    this.#carried = undefined;
    this.#atEnd = false;
  }

  #newReader(): Reader {
    const { destination, pageSize, partitions, timeout } = this.#options;
    return new Reader(this.#database, this.#statements, this.#cursors.positions, {
      pageSize,
      partitions,
      destination,
      ...this.#source,
      timeout,
      acknowledgedHigh: () => this.#cursors.high,
    });
  }
}

import { textOf } from '../../../core/util/error-text.js';
import { MessengerError, toError } from '../../../core/errors.js';
import { uuidv7 } from '../../../core/util/uuid.js';
import { claimRows, decodePlaces, look, type ClaimOptions, type Claimed, type CursorRow } from './claim.js';
import { arrayText } from '../sql/statement.js';
import {
  preamble,
  type Connection,
  type Database,
  type Row,
  type TransactionBounds,
  type Value,
} from '../sql/database.js';
import type { Cursor } from './cursor.js';
import { INDEX_SETTINGS } from '../sql/statement.js';
import { PART_OF_LEASE, SETTLE_SETTINGS } from './lease-statements.js';
import type { Statements } from './statements.js';

/** More to change in the transaction that moves a cursor. */
export type Change = (connection: Connection) => Promise<void>;

/** A cursor that is to be stored, and what with it. */
interface Settlement {
  readonly partitions: readonly number[];
  cursor: Cursor;
  readonly also: Change[];
  done: Promise<void>;
}

/** Where no row is. */
const NO_PLACE = '(0,0)';

/** How often a relay looks whether others have come or gone, at the latest. Milliseconds. */
const LONGEST_BLINK = 1_000;

/**
 * One relay's hold on partitions of a destination: rows that it owns under an epoch, and where they are
 * (`ctid`). Everything that changes them, or the side table, selects from the fenced update of those
 * rows, so a relay that lost its lease changes nothing.
 */
export class Lease {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #options: ClaimOptions;
  /** Random, and of this lease alone: no other ever has it, whatever its epoch. */
  readonly #owner: string;
  readonly #lost = new AbortController();
  #epoch: string;
  #places: ReadonlyMap<number, string>;
  /** Changes are made one after another: each needs the place that the one before left the rows at. */
  #last: Promise<unknown> = Promise.resolve();
  /** The settlement that was asked for last, while its turn has not come. */
  #waiting: Settlement | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #heartbeat: ReturnType<typeof setInterval> | undefined;
  #renewedAt = 0;
  #looking = false;
  #stirred = new AbortController();

  private constructor(
    database: Database,
    statements: Statements,
    options: ClaimOptions,
    held: { owner: string; claimed: Claimed; sentAt: number },
  ) {
    this.#database = database;
    this.#statements = statements;
    this.#options = options;
    this.#owner = held.owner;
    this.#epoch = held.claimed.epoch;
    this.#places = held.claimed.places;
    this.#renewed(held.sentAt);
    this.#heartbeat = setInterval(
      () => {
        this.#renewIfDue();
        void this.#lookAround();
      },
      Math.min(options.lease / 6, LONGEST_BLINK),
    );
    this.#heartbeat.unref();
  }

  /**
   * Claims this relay's share of the destination under a new epoch, or resolves to `null` while there is
   * nothing for it. The claim is committed synchronously.
   *
   * @throws MessengerError `SCHEMA_MISMATCH` when the cursor was not written by this cluster.
   */
  static async claim(
    database: Database,
    statements: Statements,
    options: ClaimOptions,
  ): Promise<{ lease: Lease; taken: readonly CursorRow[] } | null> {
    const { timeout, signal } = options;
    // Looked at before anything is locked: one that stands by must never hold up an owner.
    const { rows, take } = await database.transaction(
      preamble(timeout, 'SET LOCAL synchronous_commit = off'),
      (connection) => look(connection, statements, options, []),
      { timeout, signal },
    );
    if (take === 0 || (options.whole === true && take < rows.length)) return null;
    const owner = uuidv7();
    const sentAt = performance.now();
    const claimed = await database.transaction(
      locking(options, 'SET LOCAL synchronous_commit = on'),
      (connection) => claimRows(connection, statements, options, { owner, kept: [], take, rows }),
      { timeout, signal },
    );
    if (claimed.taken.length === 0) return null;
    const lease = new Lease(database, statements, options, { owner, claimed, sentAt });
    if (options.whole === true && claimed.taken.length < rows.length) {
      await lease.release();
      return null;
    }
    return { lease, taken: claimed.taken };
  }

  /** Aborted when the lease is lost, or not renewed in time by this process's own clock. */
  get lost(): AbortSignal {
    // A process that was frozen gets here before its timers.
    if (this.#isOver) this.#expire();
    return this.#lost.signal;
  }

  get partitions(): readonly number[] {
    return [...this.#places.keys()];
  }

  /** Whether it holds more than its share, or less while something is free. */
  get unbalanced(): boolean {
    return this.#stirred.signal.aborted;
  }

  /** Aborted as soon as it is unbalanced. */
  get stirred(): AbortSignal {
    return this.#stirred.signal;
  }

  /**
   * Stores the cursor of these partitions, and renews the lease on them. Several of the same partitions
   * that wait for their turn are stored as one, in one transaction.
   *
   * @throws MessengerError `LEASE_LOST`.
   */
  settle(partitions: readonly number[], cursor: Cursor, also?: Change): Promise<void> {
    const waiting = this.#waiting;
    if (waiting?.partitions.join() === partitions.join()) {
      waiting.cursor = cursor;
      if (also) waiting.also.push(also);
      return waiting.done;
    }
    // What is set aside must be as durable as the row that says so; both are in one transaction.
    const settlement: Settlement = { partitions, cursor, also: also ? [also] : [], done: Promise.resolve() };
    settlement.done = this.#inTurn(() => {
      if (this.#waiting === settlement) this.#waiting = undefined;
      const { from, to, after, low, nextLow, high } = settlement.cursor;
      const values = [this.#options.lease, from, to, after, low, nextLow, high];
      return this.#update(this.#statements.settle, values, partitions, settlement.also);
    });
    this.#waiting = settlement;
    return settlement.done;
  }

  /** Changes the side table and no cursor, and renews the lease. @throws MessengerError `LEASE_LOST`. */
  change(...also: readonly Change[]): Promise<void> {
    return this.#inTurn(() =>
      // All that are held when its turn comes.
      this.#update(this.#statements.renew, [this.#options.lease], this.partitions, also),
    );
  }

  /**
   * Gives up what is more than this relay's share, and claims what it lacks and is free; what it keeps is
   * claimed anew.
   *
   * @returns the rows that are new.
   * @throws MessengerError `LEASE_LOST`.
   */
  rebalance(): Promise<readonly CursorRow[]> {
    return this.#inTurn(async () => {
      const sentAt = performance.now();
      const own = this.partitions;
      const claimed = await this.#transaction(['SET LOCAL synchronous_commit = on'], async (connection) => {
        await this.#fenced(connection, this.#statements.renew, [this.#options.lease], own);
        const { rows, give, take } = await look(connection, this.#statements, this.#options, own);
        if (give.length > 0)
          await connection.query(this.#statements.giveUp, [this.#options.destination, arrayText(give)]);
        const kept = own.filter((partition) => !give.includes(partition));
        return claimRows(connection, this.#statements, this.#options, { owner: this.#owner, kept, take, rows });
      });
      this.#epoch = claimed.epoch;
      this.#places = claimed.places;
      this.#stirred = new AbortController();
      this.#renewed(sentAt);
      return claimed.taken;
    });
  }

  /** Gives the partitions back, and goes, unless it stays. Never rejects: what could not be released expires. */
  async release(stays = false): Promise<void> {
    this.#stopTimers();
    const { destination, relay, timeout } = this.#options;
    await this.#last.catch(() => undefined);
    const places = this.#places;
    this.#places = new Map();
    this.#lose('the lease was released');
    await this.#database
      .transaction(
        locking(this.#options, ...SETTLE_SETTINGS),
        async (connection) => {
          // Fenced, so that it is safe where the lease may be lost: then it changes nothing.
          if (places.size > 0) await this.#giveBack(connection, places);
          if (relay !== undefined && !stays) await connection.query(this.#statements.leave, [destination, relay]);
        },
        { timeout },
      )
      .catch(() => undefined);
  }

  async #giveBack(connection: Connection, places: ReadonlyMap<number, string>): Promise<void> {
    const given = await connection.query(this.#statements.release, this.#fence([...places.keys()], places));
    if (given.length === places.size) return;
    // A row that was moved is ours all the same, and nobody should have to wait until the lease is over.
    const { destination } = this.#options;
    await connection.query(this.#statements.releaseMoved, [destination, this.#owner, this.#epoch]);
  }

  /** Of each of these partitions the place, where the fence looks for it. */
  #fence(partitions: readonly number[], places = this.#places): Value[] {
    const at = Array.from({ length: Math.max(...partitions) + 1 }, () => NO_PLACE);
    for (const partition of partitions) at[partition] = places.get(partition) ?? NO_PLACE;
    return [arrayText(at), this.#options.destination, this.#owner, this.#epoch];
  }

  /** Runs a fenced update of these partitions' rows, all of which must still be ours: or none is changed. */
  async #fenced(
    connection: Connection,
    statement: Statements['settle'],
    values: readonly Value[],
    partitions: readonly number[],
  ): Promise<readonly Row[]> {
    const whole = [...this.#fence(partitions), partitions.length, ...values];
    const rows = await connection.query(statement, whole).catch((error: unknown) => {
      if (!toError(error).message.includes(PART_OF_LEASE)) throw error;
      return [];
    });
    const found = decodePlaces(rows);
    if (found.size === partitions.length && partitions.every((partition) => found.has(partition))) return rows;
    this.#lose(
      'another relay has taken the lease over, the server has crashed since it was claimed, or the rows of the cursors were moved (VACUUM FULL, CLUSTER)',
    );
    throw this.#lost.signal.reason;
  }

  async #update(
    statement: Statements['settle'],
    values: readonly Value[],
    partitions: readonly number[],
    also: readonly Change[],
  ): Promise<void> {
    const sentAt = performance.now();
    const settings = [
      ...(also.length > 0 ? INDEX_SETTINGS : SETTLE_SETTINGS),
      `SET LOCAL synchronous_commit = ${this.#options.synchronousSettle ? 'on' : 'off'}`,
    ];
    const query: Connection['query'] = (each, its = []) =>
      this.#whileHeld(settings, (before, bounds) => this.#database.once(before, each, its, bounds));
    const moved =
      also.length === 0
        ? await this.#fenced({ query }, statement, values, partitions)
        : await this.#transaction(settings, async (connection) => {
            const rows = await this.#fenced(connection, statement, values, partitions);
            for (const change of also) await change(connection);
            return rows;
          });
    this.#places = new Map([...this.#places, ...decodePlaces(moved)]);
    // Of the others, the lease is no newer than it was.
    if (partitions.length === this.#places.size) this.#renewed(sentAt);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    // What is settled after this is not settled before it.
    this.#waiting = undefined;
    const change = this.#last.then(() => {
      this.lost.throwIfAborted();
      return work();
    });
    this.#last = change.catch((error: unknown) => {
      // Whether it was committed is unknown, and with it where the rows are: nothing more can be changed.
      this.#lose('a change of the cursor failed', error);
    });
    return change;
  }

  #transaction<T>(settings: readonly string[], work: (connection: Connection) => Promise<T>): Promise<T> {
    return this.#whileHeld(settings, (before, bounds) => this.#database.transaction(before, work, bounds));
  }

  /** Waits for a transaction while the lease is held; once it is lost, that is the error. */
  async #whileHeld<T>(
    settings: readonly string[],
    run: (preamble: string, bounds: TransactionBounds) => Promise<T>,
  ): Promise<T> {
    const { timeout } = this.#options;
    try {
      return await run(locking(this.#options, ...settings), {
        timeout,
        signal: this.#lost.signal,
      });
    } catch (error) {
      // A process that was frozen may hear of its connection's end before its timers run.
      if (this.#isOver) this.#expire(error);
      this.#lost.signal.throwIfAborted();
      throw error;
    }
  }

  #renewIfDue(): void {
    if (performance.now() - this.#renewedAt < this.#options.lease / 3 || this.#lost.signal.aborted) return;
    this.change().catch(() => undefined);
  }

  /** Finds out whether relays have come or gone. A look that fails says nothing: it is the renewal that counts. */
  async #lookAround(): Promise<void> {
    if (this.#options.relay === undefined || this.#looking || this.#lost.signal.aborted) return;
    this.#looking = true;
    const stirred = this.#stirred;
    const { timeout } = this.#options;
    try {
      const { give, take } = await this.#database.transaction(
        preamble(timeout, 'SET LOCAL synchronous_commit = off'),
        (connection) => look(connection, this.#statements, this.#options, this.partitions),
        { timeout, signal: this.#lost.signal },
      );
      if (give.length > 0 || take > 0) stirred.abort();
    } catch {
      // The next one may find out.
    } finally {
      this.#looking = false;
    }
  }

  /** How long this process trusts a renewal, from before it was sent: less than the database does. Milliseconds. */
  get #trusted(): number {
    return this.#options.lease * 0.8;
  }

  /** Whether it is over by this process's clock. */
  get #isOver(): boolean {
    return performance.now() - this.#renewedAt >= this.#trusted;
  }

  #renewed(sentAt: number): void {
    this.#renewedAt = sentAt;
    clearTimeout(this.#timer);
    const left = sentAt + this.#trusted - performance.now();
    this.#timer = setTimeout(
      () => {
        this.#expire();
      },
      Math.max(0, left),
    );
    this.#timer.unref();
  }

  /** An error that came meanwhile is told, and is not what failed: it may be the end of the lease that caused it. */
  #expire(meanwhile?: unknown): void {
    const more = meanwhile === undefined ? '' : `: ${textOf(meanwhile)}`;
    this.#lose(`the lease was not renewed in time${more}`);
  }

  #lose(why: string, cause?: unknown): void {
    this.#stopTimers();
    if (!this.#lost.signal.aborted) this.#lost.abort(new MessengerError('LEASE_LOST', why, { cause }));
  }

  #stopTimers(): void {
    clearTimeout(this.#timer);
    clearInterval(this.#heartbeat);
  }
}

/**
 * A process that is frozen, or cut off, in a transaction that has locked the rows would keep everybody
 * else from claiming them until the server ends it: so that has to be with the lease, at the latest.
 */
function locking({ lease, timeout }: ClaimOptions, ...settings: readonly string[]): string {
  return preamble({ timeout, idle: Math.min(lease, timeout) }, ...settings);
}

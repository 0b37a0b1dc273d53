import { toError } from '../../../core/errors.js';
import {
  claimRows,
  claimShare,
  decodePlaces,
  isUnbalanced,
  locking,
  look,
  type ClaimOptions,
  type CursorRow,
  type Held,
} from './claim.js';
import type { Connection, Database, Row, TransactionBounds, Value } from '../sql/database.js';
import { arrayText, INDEX_SETTINGS } from '../sql/statement.js';
import type { Cursor } from './cursor.js';
import { LeaseClock } from './lease-clock.js';
import { fenceOf, PART_OF_LEASE, SETTLE_SETTINGS, type Holder } from './lease-statements.js';
import type { Statements } from './statements.js';

/** An additional change in the transaction that moves a cursor. */
export type Change = (connection: Connection) => Promise<void>;

/** A cursor to store, and the changes to make in the same transaction. */
interface Settlement {
  readonly partitions: readonly number[];
  cursor: Cursor;
  readonly also: Change[];
  done: Promise<void>;
}

/**
 * One relay's lease on partitions of a destination: the cursor rows that the relay owns under an epoch, and their
 * places (`ctid`). Every change to these rows or to the side table requires a fenced update of the rows. So a relay
 * that has lost its lease changes nothing.
 */
export class Lease {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #options: ClaimOptions;
  /** A random value that is unique to this lease. No other lease has it, even with the same epoch. */
  readonly #owner: string;
  #epoch: string;
  #places: ReadonlyMap<number, string>;
  /** Changes run one after another, because each needs the places to which the previous one moved the rows. */
  #last: Promise<unknown> = Promise.resolve();
  /** The last requested settlement, until its turn comes. */
  #waiting: Settlement | undefined;
  readonly #clock: LeaseClock;
  #looking = false;
  #stirred = new AbortController();

  private constructor(database: Database, statements: Statements, options: ClaimOptions, held: Held) {
    this.#database = database;
    this.#statements = statements;
    this.#options = options;
    this.#owner = held.owner;
    this.#epoch = held.claimed.epoch;
    this.#places = held.claimed.places;
    this.#clock = new LeaseClock(options.lease, held.sentAt, () => {
      this.#renewIfDue();
      void this.#lookAround();
    });
  }

  /**
   * Claims this relay's share of the destination under a new epoch. Resolves to `null` if there is no partition for it.
   * The claim is committed synchronously.
   *
   * @throws MessengerError `SCHEMA_MISMATCH` if a cursor was not written by this cluster.
   */
  static async claim(
    database: Database,
    statements: Statements,
    options: ClaimOptions,
  ): Promise<{ lease: Lease; taken: readonly CursorRow[] } | null> {
    const held = await claimShare(database, statements, options);
    if (held === null) return null;
    const lease = new Lease(database, statements, options, held);
    const { taken } = held.claimed;
    if (options.whole !== true || taken.length === options.partitions) return { lease, taken };
    await lease.release();
    return null;
  }

  /** Aborts when the lease is lost, or was not renewed in time by this process's clock. */
  get lost(): AbortSignal {
    this.#clock.look();
    return this.#clock.lost;
  }

  get partitions(): readonly number[] {
    return [...this.#places.keys()];
  }

  /** Whether the relay holds more than its share, or holds less than its share while a partition is free. */
  get unbalanced(): boolean {
    return this.#stirred.signal.aborted;
  }

  /** Aborts as soon as the relay is unbalanced. */
  get stirred(): AbortSignal {
    return this.#stirred.signal;
  }

  /**
   * Stores the cursor of these partitions, and renews the lease on them. If several settlements of the same partitions
   * are waiting for their turn, they are merged into one transaction. @throws MessengerError `LEASE_LOST`.
   */
  settle(partitions: readonly number[], cursor: Cursor, also?: Change): Promise<void> {
    const waiting = this.#waiting;
    if (waiting?.partitions.join() === partitions.join()) {
      waiting.cursor = cursor;
      if (also) waiting.also.push(also);
      return waiting.done;
    }
    // Parked messages must be as durable as the cursor that has passed them, so one transaction writes both.
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

  /** Changes the side table, but no cursor, and renews the lease. @throws MessengerError `LEASE_LOST`. */
  change(...also: readonly Change[]): Promise<void> {
    return this.#inTurn(() =>
      // Look up the held partitions only when it is this change's turn.
      this.#update(this.#statements.renew, [this.#options.lease], this.partitions, also),
    );
  }

  /**
   * Gives up the partitions beyond this relay's share, and claims free partitions up to its share. Claims again the
   * partitions that it keeps.
   *
   * @returns the rows of the newly claimed partitions.
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
      this.#clock.renewed(sentAt);
      return claimed.taken;
    });
  }

  /**
   * Releases the partitions, and removes the relay's registration unless it `stays`. Never rejects: a lease that cannot
   * be released expires.
   */
  async release(stays = false): Promise<void> {
    this.#clock.stop();
    const { destination, relay, timeout } = this.#options;
    await this.#last.catch(() => undefined);
    const places = this.#places;
    this.#places = new Map();
    this.#clock.lose('the lease was released');
    await this.#database
      .transaction(
        locking(this.#options, ...SETTLE_SETTINGS),
        async (connection) => {
          // The statement is fenced, so it is safe even if the lease is lost. It then changes nothing.
          if (places.size > 0) await this.#giveBack(connection, places);
          if (relay !== undefined && !stays) await connection.query(this.#statements.leave, [destination, relay]);
        },
        { timeout },
      )
      .catch(() => undefined);
  }

  async #giveBack(connection: Connection, places: ReadonlyMap<number, string>): Promise<void> {
    const given = await connection.query(this.#statements.release, fenceOf(this.#self, [...places.keys()], places));
    if (given.length === places.size) return;
    // A row that has moved still belongs to this lease. Release it too, so that other relays do not have to wait until
    // the lease expires.
    const { destination, owner, epoch } = this.#self;
    await connection.query(this.#statements.releaseMoved, [destination, owner, epoch]);
  }

  get #self(): Holder {
    return { destination: this.#options.destination, owner: this.#owner, epoch: this.#epoch };
  }

  /** Runs a fenced update of these partitions' rows. If one of the rows is no longer ours, the update changes none. */
  async #fenced(
    connection: Connection,
    statement: Statements['settle'],
    values: readonly Value[],
    partitions: readonly number[],
  ): Promise<readonly Row[]> {
    const whole = [...fenceOf(this.#self, partitions, this.#places), partitions.length, ...values];
    const rows = await connection.query(statement, whole).catch((error: unknown) => {
      if (!toError(error).message.includes(PART_OF_LEASE)) throw error;
      return [];
    });
    const found = decodePlaces(rows);
    if (found.size === partitions.length && partitions.every((partition) => found.has(partition))) return rows;
    this.#clock.lose(
      'another relay has taken over the lease, the server has crashed since the claim, or the rows of the cursors were moved (VACUUM FULL, CLUSTER)',
    );
    throw this.#clock.lost.reason;
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
    // If only some of the partitions were updated, the lease on the others was not renewed.
    if (partitions.length === this.#places.size) this.#clock.renewed(sentAt);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    // Do not merge a later settlement into one that was requested before this change.
    this.#waiting = undefined;
    const change = this.#last.then(() => {
      this.lost.throwIfAborted();
      return work();
    });
    this.#last = change.catch((error: unknown) => {
      // It is unknown whether the change was committed, and where the rows are now. So no further change is safe.
      this.#clock.lose('a change of the cursor failed', error);
    });
    return change;
  }

  #transaction<T>(settings: readonly string[], work: (connection: Connection) => Promise<T>): Promise<T> {
    return this.#whileHeld(settings, (before, bounds) => this.#database.transaction(before, work, bounds));
  }

  /** Runs a transaction, but waits for it only while the lease is held. Rejects with the reason if it is lost. */
  async #whileHeld<T>(
    settings: readonly string[],
    run: (preamble: string, bounds: TransactionBounds) => Promise<T>,
  ): Promise<T> {
    const { timeout } = this.#options;
    try {
      return await run(locking(this.#options, ...settings), { timeout, signal: this.#clock.lost });
    } catch (error) {
      // When a frozen process resumes, it can learn of the end of its connection before its own timers fire.
      this.#clock.look(error);
      this.#clock.lost.throwIfAborted();
      throw error;
    }
  }

  #renewIfDue(): void {
    if (this.#clock.age < this.#options.lease / 3 || this.#clock.lost.aborted) return;
    this.change().catch(() => undefined);
  }

  /** Checks whether relays have started or stopped. A failed check has no effect on the lease. */
  async #lookAround(): Promise<void> {
    if (this.#options.relay === undefined || this.#looking || this.#clock.lost.aborted) return;
    this.#looking = true;
    const stirred = this.#stirred;
    try {
      const options = { ...this.#options, signal: this.#clock.lost };
      if (await isUnbalanced(this.#database, this.#statements, options, this.partitions)) stirred.abort();
    } catch {
      // The next check may succeed.
    } finally {
      this.#looking = false;
    }
  }
}

import { MessengerError } from '../../core/errors.js';
import { uuidv7 } from '../../core/uuid.js';
import { preamble, type Connection, type Database, type Row, type Value } from './database.js';
import type { Cursor } from './cursor.js';
import { assertRemembered } from './forget.js';
import { INDEX_SETTINGS, SETTLE_SETTINGS, type Statements } from './statements.js';

/** What a lease is claimed with. */
export interface ClaimOptions {
  readonly destination: string;
  /** How many partitions the store has. */
  readonly partitions: number;
  /** Milliseconds that the lease lasts from each renewal, by the database's clock. */
  readonly lease: number;
  /** Milliseconds for each transaction. */
  readonly timeout: number;
  /** Whether settling waits for the disk. */
  readonly synchronousSettle: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** A change of the cursor, and of the side table in the same transaction. */
export interface Settlement {
  readonly cursor: Cursor;
  readonly also?: (connection: Connection) => Promise<void>;
}

/**
 * One relay's hold on a destination: rows that it owns under an epoch, and where they are (`ctid`).
 * Everything that changes them, or the side table, selects from the fenced update of those rows, so
 * a relay that lost its lease changes nothing.
 */
export class Lease {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #options: ClaimOptions;
  readonly #owner: string;
  readonly #epoch: string;
  readonly #lost = new AbortController();
  #ctids: readonly string[];
  /** Changes are made one after another: each needs the place that the one before left the rows at. */
  #last: Promise<unknown> = Promise.resolve();
  #deadline: ReturnType<typeof setTimeout> | undefined;
  #heartbeat: ReturnType<typeof setInterval> | undefined;
  #renewedAt = 0;

  private constructor(
    database: Database,
    statements: Statements,
    options: ClaimOptions,
    held: { owner: string; epoch: string; ctids: readonly string[]; sentAt: number },
  ) {
    this.#database = database;
    this.#statements = statements;
    this.#options = options;
    this.#owner = held.owner;
    this.#epoch = held.epoch;
    this.#ctids = held.ctids;
    this.#renewed(held.sentAt);
    this.#heartbeat = setInterval(() => {
      this.#renewIfDue();
    }, options.lease / 6);
    this.#heartbeat.unref();
  }

  /**
   * Claims every partition of the destination under a new epoch, or resolves to `null` while another
   * relay holds them. The claim is committed synchronously.
   *
   * @throws MessengerError `SCHEMA_MISMATCH` when the cursor was not written by this cluster.
   */
  static async claim(
    database: Database,
    statements: Statements,
    options: ClaimOptions,
  ): Promise<{ lease: Lease; cursor: Cursor } | null> {
    const { destination, partitions, lease, timeout, signal } = options;
    const sentAt = performance.now();
    const claimed = await database.transaction(
      preamble(timeout, noLongerThan(lease, timeout), 'SET LOCAL synchronous_commit = on'),
      async (connection) => {
        // Looked at before they are locked: one that stands by must never hold up the owner.
        const seen = await connection.query(statements.cursors, [destination]);
        if (seen.some(isHeld)) return null;
        if (seen.length === 0) await connection.query(statements.createCursors, [destination, partitions]);
        const rows = await connection.query(statements.lockCursors, [destination]);
        assertClaimable(rows, options);
        await assertRemembered(connection, statements, destination);
        if (rows.some(isHeld)) return null;
        const owner = uuidv7();
        const epoch = String(Math.max(...rows.map((row) => Number(row[0]))) + 1);
        const places = await connection.query(statements.claim, [destination, owner, epoch, lease]);
        await connection.query(statements.token, [destination, epoch]);
        return {
          owner,
          epoch,
          ctids: places.map((row) => row[0] as string),
          sentAt,
          cursor: decodeCursor(rows[0] as Row),
        };
      },
      { timeout, signal },
    );
    return claimed && { lease: new Lease(database, statements, options, claimed), cursor: claimed.cursor };
  }

  /** Aborted when the lease is lost, or not renewed in time by this process's own clock. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Stores the cursor and renews the lease. @throws MessengerError `LEASE_LOST`. */
  settle({ cursor, also }: Settlement): Promise<void> {
    return this.#change(
      this.#statements.settle,
      [this.#options.lease, cursor.from, cursor.to, cursor.after, cursor.low, cursor.nextLow, cursor.high],
      // What is set aside must be as durable as the row that says so; both are in one transaction.
      also,
    );
  }

  /** Gives the partitions back. Never rejects: what could not be released expires. */
  async release(): Promise<void> {
    this.#stopTimers();
    const { timeout, lease } = this.#options;
    await this.#last.catch(() => undefined);
    if (this.#lost.signal.aborted) return;
    this.#lose('the lease was released');
    await this.#database
      .transaction(
        preamble(timeout, noLongerThan(lease, timeout), ...SETTLE_SETTINGS),
        (connection) => connection.query(this.#statements.release, this.#fence()),
        {
          timeout,
        },
      )
      .catch(() => undefined);
  }

  #fence(): Value[] {
    return [
      `{${this.#ctids.map((ctid) => `"${ctid}"`).join(',')}}`,
      this.#options.destination,
      this.#owner,
      this.#epoch,
    ];
  }

  #change(
    statement: Statements['settle'],
    values: readonly Value[],
    also?: (connection: Connection) => Promise<void>,
  ): Promise<void> {
    const change = this.#last.then(async () => {
      this.#lost.signal.throwIfAborted();
      const { timeout, lease, synchronousSettle } = this.#options;
      const sentAt = performance.now();
      const moved = await this.#transaction(
        preamble(
          timeout,
          noLongerThan(lease, timeout),
          ...(also ? INDEX_SETTINGS : SETTLE_SETTINGS),
          ...(synchronousSettle ? [] : ['SET LOCAL synchronous_commit = off']),
        ),
        async (connection) => {
          const rows = await connection.query(statement, [...this.#fence(), ...values]);
          if (rows.length !== this.#ctids.length) {
            this.#lose('another relay has taken the lease over, or the server has crashed since it was claimed');
            throw this.#lost.signal.reason;
          }
          await also?.(connection);
          return rows;
        },
      );
      this.#ctids = moved.map((row) => row[0] as string);
      this.#renewed(sentAt);
    });
    this.#last = change.catch((error: unknown) => {
      // Whether it was committed is unknown, and with it where the rows are: nothing more can be changed.
      this.#lose('a change of the cursor failed', error);
    });
    return change;
  }

  /** A transaction that is waited for while the lease is held; once it is lost, that is the error. */
  async #transaction<T>(settings: string, work: (connection: Connection) => Promise<T>): Promise<T> {
    const { timeout } = this.#options;
    try {
      return await this.#database.transaction(settings, work, { timeout, signal: this.#lost.signal });
    } catch (error) {
      this.#lost.signal.throwIfAborted();
      throw error;
    }
  }

  #renewIfDue(): void {
    if (performance.now() - this.#renewedAt < this.#options.lease / 3 || this.#lost.signal.aborted) return;
    this.#change(this.#statements.renew, [this.#options.lease]).catch(() => undefined);
  }

  /** The local deadline is earlier than the database's: it counts from before the request was sent. */
  #renewed(sentAt: number): void {
    this.#renewedAt = sentAt;
    clearTimeout(this.#deadline);
    const left = sentAt + this.#options.lease * 0.8 - performance.now();
    this.#deadline = setTimeout(
      () => {
        this.#lose('the lease was not renewed in time');
      },
      Math.max(0, left),
    );
    this.#deadline.unref();
  }

  #lose(why: string, cause?: unknown): void {
    this.#stopTimers();
    if (!this.#lost.signal.aborted) this.#lost.abort(new MessengerError('LEASE_LOST', why, { cause }));
  }

  #stopTimers(): void {
    clearTimeout(this.#deadline);
    clearInterval(this.#heartbeat);
  }
}

/**
 * A process that is frozen, or cut off, in a transaction that has locked the rows would keep everybody
 * else from claiming them until the server ends it: so that has to be with the lease, at the latest.
 */
function noLongerThan(lease: number, timeout: number): string {
  return `SET LOCAL idle_in_transaction_session_timeout = ${String(Math.ceil(Math.min(lease, timeout)))}`;
}

/** Whether a cursor's row has an owner whose lease has not expired. */
function isHeld(row: Row): boolean {
  return row[1] !== null && row[2] === 'true';
}

function assertClaimable(rows: readonly Row[], { destination, partitions }: ClaimOptions): void {
  if (rows.length !== partitions) {
    throw new MessengerError(
      'SCHEMA_MISMATCH',
      `destination ${JSON.stringify(destination)} has ${String(rows.length)} partitions, this store ${String(partitions)}`,
    );
  }
  if (rows.some((row) => row[3] !== 'true')) {
    throw new MessengerError(
      'SCHEMA_MISMATCH',
      `the cursor of destination ${JSON.stringify(destination)} was not written by this database cluster (a restored dump or a logical copy?): its transaction ids mean nothing here, and messages would be lost`,
    );
  }
  const [first] = rows;
  if (first && rows.some((row) => row.slice(4).join() !== first.slice(4).join())) {
    throw new MessengerError(
      'SCHEMA_MISMATCH',
      `the partitions of destination ${JSON.stringify(destination)} have different cursors`,
    );
  }
}

function decodeCursor(row: Row): Cursor {
  return {
    from: row[4] as string,
    to: row[5] as string | null,
    after: Number(row[6]),
    low: Number(row[7]),
    nextLow: Number(row[8]),
    high: Number(row[9]),
  };
}

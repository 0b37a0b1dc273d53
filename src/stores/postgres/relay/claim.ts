import { destinationForgotten } from '../../../core/contracts/admin-options.js';
import { MessengerError } from '../../../core/errors.js';
import type { Cursor } from './cursor.js';
import { uuidv7 } from '../../../core/util/uuid.js';
import { preamble, type Connection, type Database, type Row } from '../sql/database.js';
import { balance, type Balance } from './fair-share.js';
import { CURSOR_ROW, FORGOTTEN, PLACE } from './lease-statements.js';
import type { Statements } from './statements.js';
import { arrayText } from '../sql/statement.js';

/** The options for claiming a lease. */
export interface ClaimOptions {
  readonly destination: string;
  /**
   * The name under which this relay registers. If it has no name, the other relays do not give up partitions for it.
   */
  readonly relay?: string | undefined;
  /** Claim every partition, or none. */
  readonly whole?: boolean | undefined;
  /** How many partitions the store has. */
  readonly partitions: number;
  /** How many milliseconds the lease lasts from each renewal, by the database's clock. */
  readonly lease: number;
  /** The time limit for each transaction, in milliseconds. */
  readonly timeout: number;
  /** Whether settling waits for the disk. */
  readonly synchronousSettle: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** A row of the cursors table, as a relay read it. */
export interface CursorRow {
  readonly partition: number;
  readonly epoch: number;
  /** Whether any relay holds an unexpired lease on the row. */
  readonly held: boolean;
  readonly cursor: Cursor;
}

/** Registers this relay, reads the destination's cursor rows, and computes which partitions the relay should hold. */
export async function look(
  connection: Connection,
  statements: Statements,
  options: ClaimOptions,
  own: readonly number[],
): Promise<Balance & { rows: readonly CursorRow[] }> {
  const { destination, relay, lease, partitions } = options;
  if (relay !== undefined) await connection.query(statements.join, [destination, relay, lease]);
  let found = await connection.query(statements.cursors, [destination]);
  if (found.length === 0) {
    await connection.query(statements.lockDestination, [destination]);
    await connection.query(statements.createCursors, [destination, partitions]);
    found = await connection.query(statements.cursors, [destination]);
  }
  const rows = decodeCursorRows(found, options);
  if (rows.length !== partitions) {
    throw new MessengerError(
      'SCHEMA_MISMATCH',
      `destination ${JSON.stringify(destination)} has ${String(rows.length)} partitions, but this store has ${String(partitions)}`,
    );
  }
  const relays = await connection.query(statements.relays, [destination]);
  return { rows, ...balance({ relays: relays.map(([each]) => each as string), partitions: rows }, relay, own) };
}

/** Whether this relay holds more than its share, or holds less than its share while a partition is free. */
export async function isUnbalanced(
  database: Database,
  statements: Statements,
  options: ClaimOptions,
  own: readonly number[],
): Promise<boolean> {
  const { timeout, signal } = options;
  const { give, take } = await database.transaction(
    preamble(timeout, 'SET LOCAL synchronous_commit = off'),
    (connection) => look(connection, statements, options, own),
    { timeout, signal },
  );
  return give.length > 0 || take > 0;
}

/** The result of a claim: the current places (`ctid`) of the rows, and the cursors of the newly taken partitions. */
export interface Claimed {
  readonly epoch: string;
  readonly places: ReadonlyMap<number, string>;
  readonly taken: readonly CursorRow[];
}

/** A claimed share of the partitions, with its owner and the time when the claim was sent. */
export interface Held {
  /** A random value that is unique to this claim. No other claim has it, even with the same epoch. */
  readonly owner: string;
  readonly claimed: Claimed;
  readonly sentAt: number;
}

/**
 * Claims a relay's share of the destination under a new epoch. Resolves to `null` if there is no partition for the
 * relay.
 */
export async function claimShare(
  database: Database,
  statements: Statements,
  options: ClaimOptions,
): Promise<Held | null> {
  const { timeout, signal } = options;
  // Check before locking anything, because a standby relay must never delay a relay that holds partitions.
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
  return claimed.taken.length === 0 ? null : { owner, claimed, sentAt };
}

/**
 * Claims up to `take` free partitions, and claims the partitions in `kept` again, under one epoch that is higher than
 * any other. The transaction must already have locked the rows of `kept`. It must commit synchronously.
 */
export async function claimRows(
  connection: Connection,
  statements: Statements,
  options: ClaimOptions,
  { owner, kept, take, rows }: { owner: string; kept: readonly number[]; take: number; rows: readonly CursorRow[] },
): Promise<Claimed> {
  const { destination, lease } = options;
  const taken =
    take > 0 ? decodeCursorRows(await connection.query(statements.lockFree, [destination, take]), options) : [];
  // Check this in a statement after the lock, because a transaction that forgets a destination locks the same rows.
  await assertRemembered(connection, statements, destination);
  const epoch = String(Math.max(...[...rows, ...taken].map((row) => row.epoch)) + 1);
  const partitions = arrayText([...kept, ...taken.map(({ partition }) => partition)]);
  const places = await connection.query(statements.claim, [destination, owner, epoch, lease, partitions]);
  await connection.query(statements.token, [destination, epoch, partitions]);
  return { epoch, places: decodePlaces(places), taken };
}

/**
 * Returns the preamble of a transaction that locks rows. A process can freeze or lose its connection in such a
 * transaction. No other relay can then claim the rows until the server ends the transaction. So the server must end it
 * when the lease expires, at the latest.
 */
export function locking({ lease, timeout }: ClaimOptions, ...settings: readonly string[]): string {
  return preamble({ timeout, idle: Math.min(lease, timeout) }, ...settings);
}

/** Returns the `ctid` of each partition's row. */
export function decodePlaces(rows: readonly Row[]): Map<number, string> {
  const { at } = PLACE;
  return new Map(rows.map((row) => [Number(row[at.partition]), row[at.place] as string]));
}

/** @throws MessengerError `SCHEMA_MISMATCH` if a cursor was not written by this cluster. */
function decodeCursorRows(rows: readonly Row[], { destination }: ClaimOptions): CursorRow[] {
  const { at } = CURSOR_ROW;
  return rows.map((row) => {
    if (row[at.ours] !== 'true') {
      throw new MessengerError(
        'SCHEMA_MISMATCH',
        `the cursor of destination ${JSON.stringify(destination)} was not written by this database cluster (a restored dump or a logical copy?): its transaction ids mean nothing here, so messages would be lost. To continue from it, run \`messenger rebase\` or \`await store.admin.rebase()\``,
      );
    }
    return {
      partition: Number(row[at.partition]),
      epoch: Number(row[at.epoch]),
      held: row[at.held] === 'true',
      cursor: {
        from: row[at.from] as string,
        to: row[at.to] as string | null,
        after: Number(row[at.after]),
        low: Number(row[at.low]),
        nextLow: Number(row[at.nextLow]),
        high: Number(row[at.high]),
      },
    };
  });
}

/**
 * Call this in a claim, after the cursors are locked.
 *
 * @throws MessengerError `DESTINATION_FORGOTTEN` for a destination whose unpublished messages may have been cleaned
 *   away.
 */
async function assertRemembered(connection: Connection, statements: Statements, destination: string): Promise<void> {
  const [row] = await connection.query(statements.forgotten, [destination]);
  if (!row) return;
  const { at } = FORGOTTEN;
  const topics = row[at.topics];
  throw destinationForgotten(destination, String(row[at.at]), typeof topics === 'string' ? topics : undefined);
}

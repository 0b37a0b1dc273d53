import type { StoreCallOptions } from '../../../core/contracts/call-options.js';
import { assertConsumer, LONGEST_RETENTION } from '../../../core/contracts/inbox.js';
import { MessengerError } from '../../../core/errors.js';
import { numberOption } from '../../../core/util/options.js';
import type { OperationContext } from '../sql/transact.js';
import { preamble } from '../sql/database.js';
import type { Run } from '../drivers/driver.js';
import { textAfter } from '../write/marked.js';
import type { Names } from '../sql/names.js';
import { INDEX_SETTINGS, statement } from '../sql/statement.js';

const MARK = 'messenger-inbox:';

/** What an index of PostgreSQL takes of both, and some room. Bytes. */
const LONGEST_KEY = 2_000;

/** @throws MessengerError `INVALID_MESSAGE` for a consumer and an id that are too long together. */
export function assertKeepable(consumer: string, id: string): void {
  const bytes = Buffer.byteLength(consumer) + Buffer.byteLength(id);
  if (bytes <= LONGEST_KEY) return;
  throw new MessengerError(
    'INVALID_MESSAGE',
    `message id and consumer must have ${String(LONGEST_KEY)} bytes together at most to be received once, got ${String(bytes)}`,
  );
}

/** How many rows one transaction deletes: it holds their locks, and nothing else, for some milliseconds. */
const BATCH = 1_000;

/**
 * Records that a consumer has had a message, and resolves to whether it is the first time. Where another transaction
 * has recorded it and is open, PostgreSQL has the insertion wait for its end. The server refuses it outside of a transaction.
 */
export async function receive(
  { receiveInTransaction }: Names,
  run: Run,
  consumer: string,
  id: string,
): Promise<boolean> {
  const text = `CALL ${receiveInTransaction}($1::text, $2::text, NULL)`;
  return textAfter(MARK, await run(text, [consumer, id])) === '1';
}

/**
 * Deletes what a consumer has received longer ago than `expiration` milliseconds. What somebody else deletes at the moment is
 * left to them.
 *
 * @returns how many.
 */
export async function forgetReceived(
  { database, names, timeout }: OperationContext,
  consumer: string,
  expiration: number,
  { signal }: StoreCallOptions = {},
): Promise<number> {
  assertConsumer(consumer);
  numberOption('expiration', expiration, expiration, { min: 0, max: LONGEST_RETENTION });
  // Not clock_timestamp(): it changes while the statement runs, and could not be looked up in the index.
  const old = `SELECT ctid FROM ${names.inbox} WHERE consumer = $1::text AND received_at <= statement_timestamp() - $2::double precision * interval '1 ms'
    ORDER BY consumer, received_at LIMIT ${String(BATCH)} FOR UPDATE SKIP LOCKED`;
  const text = `WITH gone AS (DELETE FROM ${names.inbox} WHERE ctid = ANY (ARRAY(${old})) RETURNING 1) SELECT count(*)::text FROM gone`;
  const forget = statement('forget_received', text);
  const bounds = { timeout, signal };
  let total = 0;
  for (;;) {
    signal?.throwIfAborted();
    const [row] = await database.once(preamble(timeout, ...INDEX_SETTINGS), forget, [consumer, expiration], bounds);
    const count = Number(row?.[0]);
    total += count;
    if (count < BATCH) return total;
  }
}

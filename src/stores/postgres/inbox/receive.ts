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

/**
 * The largest combined size of a message id and a consumer name, in bytes. It fits in an entry of a PostgreSQL index,
 * with some room to spare.
 */
const LONGEST_KEY = 2_000;

/** @throws MessengerError `INVALID_MESSAGE` for a consumer and an id that together are too long. */
export function assertKeepable(consumer: string, id: string): void {
  const bytes = Buffer.byteLength(consumer) + Buffer.byteLength(id);
  if (bytes <= LONGEST_KEY) return;
  throw new MessengerError(
    'INVALID_MESSAGE',
    `a message id and its consumer must together have at most ${String(LONGEST_KEY)} bytes to be received once, got ${String(bytes)}`,
  );
}

/** How many rows one transaction deletes. The transaction locks only these rows, for a few milliseconds. */
const BATCH = 1_000;

/**
 * Records that a consumer has received a message. Resolves to true if this is the first time. If another open
 * transaction has recorded the same message, PostgreSQL makes the insert wait until that transaction ends. The server
 * rejects the call outside a transaction.
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
 * Deletes the records of messages that a consumer received more than `expiration` milliseconds ago. It skips rows that
 * another transaction is deleting.
 *
 * @returns how many rows it deleted.
 */
export async function deleteReceived(
  { database, names, timeout }: OperationContext,
  consumer: string,
  expiration: number,
  { signal }: StoreCallOptions = {},
): Promise<number> {
  assertConsumer(consumer);
  numberOption('expiration', expiration, expiration, { min: 0, max: LONGEST_RETENTION });
  // Do not use clock_timestamp(). Its value changes while the statement runs, so PostgreSQL could not use the index.
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

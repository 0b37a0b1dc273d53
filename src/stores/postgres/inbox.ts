import type { StoreCallOptions } from '../../core/call.js';
import { MessengerError } from '../../core/errors.js';
import { transact, type Admin } from './admin.js';
import { marked, NO_ANSWER } from './marked.js';
import type { Names } from './names.js';
import { INDEX_SETTINGS, statement } from './statements.js';

const MARK = 'messenger-received:';

/** How many rows one transaction forgets: it is to be over soon. */
const FORGOTTEN_AT_ONCE = 1_000;

/**
 * $1 consumer, $2 id of a message: keeps that it was received, and returns, as one text, whether it had not been. Waits
 * for another transaction that has done so and is open.
 */
export function receivingText({ inbox }: Names): string {
  return `WITH received AS (INSERT INTO ${inbox} (consumer, id) VALUES ($1::text, $2::text) ON CONFLICT DO NOTHING RETURNING true)
SELECT '${MARK}' || count(*)::text AS received FROM received`;
}

/** What a library made of the answer. @throws MessengerError `UNSUPPORTED` where it gives no rows. */
export function decodeReceiving(result: unknown): boolean {
  const count = marked(result, MARK);
  if (count === undefined) throw new MessengerError('UNSUPPORTED', NO_ANSWER);
  return count === '1';
}

/** Forgets what was received longer than `expiration` milliseconds ago. @returns how many. */
export async function forgetReceived(
  admin: Admin,
  expiration: number,
  { signal }: StoreCallOptions = {},
): Promise<number> {
  const { inbox } = admin.names;
  const text = `DELETE FROM ${inbox} i USING (
    SELECT consumer, id FROM ${inbox} WHERE received_at <= clock_timestamp() - $1::double precision * interval '1 millisecond'
    ORDER BY received_at LIMIT ${String(FORGOTTEN_AT_ONCE)}) old
  WHERE i.consumer = old.consumer AND i.id = old.id RETURNING true::text`;
  for (let forgotten = 0; ;) {
    signal?.throwIfAborted();
    const rows = await transact(
      admin,
      { signal },
      (connection) => connection.query(statement('forget_received', text), [expiration]),
      { settings: INDEX_SETTINGS },
    );
    forgotten += rows.length;
    if (rows.length < FORGOTTEN_AT_ONCE) return forgotten;
  }
}

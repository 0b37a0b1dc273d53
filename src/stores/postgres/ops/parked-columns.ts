import { columnsOf, timeOf } from '../sql/columns.js';
import type { Row } from '../sql/database.js';
import { fieldsUpTo, messageBytes, MOST_READ } from '../sql/size.js';
import { milliseconds } from '../sql/statement.js';
import { MESSAGE, messageColumns, StoredMessage } from '../sql/stored-message.js';

/** The columns of a parked message. `tooLarge` is the size of the message in bytes, if it is too large to read. */
const PARKED = columnsOf(
  ...MESSAGE.names,
  ...([
    'error',
    'reason',
    'attempts',
    'storedAt',
    'firstFailedAt',
    'lastFailedAt',
    'time',
    'state',
    'tooLarge',
  ] as const),
);

/**
 * Returns the columns to select for `decodeParked`, from the side table `p`. The caller passes SQL expressions for the
 * time and the state.
 */
export function parkedColumns(jsonPayload: boolean, state: string, time: string): string {
  const size = `(${messageBytes('p', jsonPayload)})`;
  return PARKED.list({
    ...messageColumns('p', jsonPayload, fieldsUpTo('p', size)),
    error: 'p.error',
    reason: 'p.reason',
    attempts: 'p.attempts::text',
    storedAt: milliseconds('p.stored_at'),
    firstFailedAt: milliseconds('p.first_failed_at'),
    lastFailedAt: milliseconds('p.last_failed_at'),
    time: milliseconds(time),
    state,
    tooLarge: `CASE WHEN ${size} > ${String(MOST_READ)} THEN ${size}::text END`,
  });
}

/** Decodes a parked message, with the time and the state that were passed to `parkedColumns`. */
export function decodeParked(row: Row) {
  const { at } = PARKED;
  const message = new StoredMessage(row, row[at.tooLarge] as string | null);
  return {
    seq: message.seq,
    message,
    error: row[at.error] as string | null,
    reason: row[at.reason] as string | null,
    attempts: Number(row[at.attempts]),
    storedAt: timeOf(row[at.storedAt]) as Date,
    firstFailedAt: timeOf(row[at.firstFailedAt]),
    lastFailedAt: timeOf(row[at.lastFailedAt]),
    time: timeOf(row[at.time]),
    state: row[at.state] as string,
  };
}

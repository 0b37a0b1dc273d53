import type { StoreCallOptions } from './call-options.js';
import { MessengerError } from '../errors.js';
import { describe } from '../util/describe.js';

/** A store that records which consumer has received which message. `createInbox` uses it. */
export interface InboxStore<Tx> {
  /**
   * Records, in the application's transaction, that a consumer has received the message with this id. The record stays
   * only if that transaction commits. If another open transaction has recorded the same message for this consumer, the
   * call waits until that transaction ends.
   *
   * @returns whether the consumer receives this message for the first time.
   * @throws MessengerError `INVALID_TRANSACTION` if the handle is not an open transaction; `INVALID_OPTION` for a
   *   consumer, and `INVALID_MESSAGE` for an id, that is empty or that the store cannot keep.
   */
  receive(transaction: Tx, consumer: string, id: string): Promise<boolean>;
  /**
   * Deletes the records of messages that a consumer received more than `expiration` milliseconds ago, by the store's
   * clock. It deletes them in small parts.
   *
   * @returns how many records were deleted.
   */
  deleteReceived(consumer: string, expiration: number, options?: StoreCallOptions): Promise<number>;
}

/** The longest retention of the records of received messages, in milliseconds: ten years. */
export const LONGEST_RETENTION = 3_650 * 86_400_000;

/** @throws MessengerError `INVALID_OPTION` if the value cannot be the name of a consumer. */
export function assertConsumer(consumer: unknown): asserts consumer is string {
  if (isKeepable(consumer)) return;
  throw new MessengerError(
    'INVALID_OPTION',
    `consumer must be a non-empty string of well-formed Unicode without U+0000, got ${describe(consumer)}`,
  );
}

/** @throws MessengerError `INVALID_MESSAGE` if the value cannot be the id of a message. */
export function assertReceivedId(id: unknown): asserts id is string {
  if (isKeepable(id)) return;
  throw new MessengerError(
    'INVALID_MESSAGE',
    `message id must be a non-empty string of well-formed Unicode without U+0000, got ${describe(id)}`,
  );
}

function isKeepable(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && !value.includes('\u0000') && !/\p{Surrogate}/u.test(value);
}

import type { StoreCallOptions } from './call-options.js';
import { MessengerError } from '../errors.js';
import { describe } from '../util/describe.js';

/** A store that records which messages each consumer has received. `createInbox` uses it. */
export interface InboxStore<Tx> {
  /**
   * Records, in the application's transaction, that a consumer has received the message with this id. The record is
   * kept only if that transaction commits. If another open transaction has recorded the same message for this consumer,
   * the call waits until that transaction ends.
   *
   * @returns whether this is the first time that the consumer has received this message.
   * @throws MessengerError `INVALID_TRANSACTION` if the handle is not an open transaction; `INVALID_OPTION` if the
   *   consumer is empty or the store cannot keep it; `INVALID_MESSAGE` if the id is empty or the store cannot keep it.
   */
  receive(transaction: Tx, consumer: string, id: string): Promise<boolean>;
  /**
   * Deletes a consumer's records of messages received more than `expiration` milliseconds ago, by the store's clock. It
   * deletes the records in small batches.
   *
   * @returns how many records were deleted.
   */
  deleteReceived(consumer: string, expiration: number, options?: StoreCallOptions): Promise<number>;
}

/** The longest retention for records of received messages, in milliseconds: ten years. */
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

import type { StoreCallOptions } from './call-options.js';
import { MessengerError } from '../errors.js';
import { describe } from '../util/describe.js';

/** A store that keeps which consumer has had which message: what `createInbox` works on. */
export interface InboxStore<Tx> {
  /**
   * Records, in a transaction of the application, that a consumer has had the message of this id. It holds exactly
   * when that transaction commits. While another one that has recorded the same is open, this waits for its end.
   *
   * @returns whether it is the first time.
   * @throws MessengerError `INVALID_TRANSACTION` for what is no transaction; `INVALID_OPTION`, `INVALID_MESSAGE` for a
   *   consumer or an id that is empty or cannot be kept.
   */
  receive(transaction: Tx, consumer: string, id: string): Promise<boolean>;
  /**
   * Deletes what a consumer has received longer ago than `expiration` milliseconds, by the store's clock, in small parts.
   *
   * @returns how many.
   */
  forgetReceived(consumer: string, expiration: number, options?: StoreCallOptions): Promise<number>;
}

/** The longest retention of what was received, in milliseconds: ten years. */
export const LONGEST_RETENTION = 3_650 * 86_400_000;

/** @throws MessengerError `INVALID_OPTION` for what cannot be the name of a consumer. */
export function assertConsumer(consumer: unknown): asserts consumer is string {
  if (isKeepable(consumer)) return;
  throw new MessengerError(
    'INVALID_OPTION',
    `consumer must be a non-empty string of well-formed Unicode without U+0000, got ${describe(consumer)}`,
  );
}

/** @throws MessengerError `INVALID_MESSAGE` for what cannot be the id of a message. */
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

import { textOf } from '../../../core/util/error-text.js';
import { PublishError } from '../../../core/errors.js';
import type { ErrorLogger } from '../../../core/contracts/logger.js';
import { backoff } from '../../../core/publish/retry-policy.js';
import { sleep } from '../../../core/util/async.js';
import { BatchedCalls } from './calls.js';

/** A change of a message's visibility. The message stays hidden for `seconds` from now on. */
export interface VisibilityChange {
  readonly receipt: string;
  readonly seconds: number;
}

/** The two batch calls on receipts. Each resolves to the error of each item, or `undefined`, in order. */
export interface ReceiptCalls {
  remove(receipts: readonly string[]): Promise<readonly (Error | undefined)[]>;
  changeVisibility(changes: readonly VisibilityChange[]): Promise<readonly (Error | undefined)[]>;
}

/** The calls that a subscriber makes for received messages. Neither method rejects. */
export interface Receipts {
  /** Deletes the message, which acknowledges it. Makes up to 5 attempts over about 1 second, and logs failures. */
  remove(receipt: string, id: string): Promise<void>;
  /**
   * Sets when the message is delivered again. If that fails, resolves to the error, and the timeout does not change.
   */
  changeVisibility(receipt: string, seconds: number): Promise<Error | undefined>;
}

const REMOVE_ATTEMPTS = 5;
const REMOVE_BACKOFF = { minDelay: 100, maxDelay: 2_000 };

/** @param parallel How many requests of each kind may be in flight at once. */
export function receiptsOf(calls: ReceiptCalls, parallel: number, logger: ErrorLogger): Receipts {
  const removals = new BatchedCalls<string>((receipts) => calls.remove(receipts), parallel);
  const changes = new BatchedCalls<VisibilityChange>((some) => calls.changeVisibility(some), parallel);
  return {
    async remove(receipt, id) {
      for (let attempt = 1; ; attempt++) {
        const error = await removals.run(receipt);
        if (error === undefined) return;
        logger.error(
          failure(
            `message ${id} was handled but not deleted (attempt ${attemptOf(attempt)}): it may be delivered again`,
            error,
          ),
        );
        if (attempt === REMOVE_ATTEMPTS) return;
        await sleep(backoff(attempt, REMOVE_BACKOFF));
      }
    },
    changeVisibility: (receipt, seconds) => changes.run({ receipt, seconds }),
  };
}

function attemptOf(attempt: number): string {
  return `${String(attempt)} of ${String(REMOVE_ATTEMPTS)}`;
}

function failure(text: string, cause: Error): PublishError {
  return new PublishError(`${text}: ${textOf(cause)}`, { kind: 'retryable', cause });
}

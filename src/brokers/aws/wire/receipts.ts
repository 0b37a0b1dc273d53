import { textOf } from '../../../core/util/error-text.js';
import { PublishError } from '../../../core/errors.js';
import type { ErrorLogger } from '../../../core/contracts/logger.js';
import { backoff } from '../../../core/publish/retry-policy.js';
import { sleep } from '../../../core/util/async.js';
import { BatchedCalls } from './calls.js';

/** A change of a message's visibility: seconds from now. */
export interface VisibilityChange {
  readonly receipt: string;
  readonly seconds: number;
}

/** The two batch calls on receipts; the error of each, or `undefined`, in order. */
export interface ReceiptCalls {
  remove(receipts: readonly string[]): Promise<readonly (Error | undefined)[]>;
  changeVisibility(changes: readonly VisibilityChange[]): Promise<readonly (Error | undefined)[]>;
}

/** What a subscriber does with received messages; none of it rejects. */
export interface Receipts {
  /** Deletes the message: the acknowledgement. Tried up to 5 times over about 1 second; failures are logged. */
  remove(receipt: string, id: string): Promise<void>;
  /** Sets when the message comes again. Resolves with the error if that failed: then its timeout stays. */
  changeVisibility(receipt: string, seconds: number): Promise<Error | undefined>;
}

const REMOVE_ATTEMPTS = 5;
const REMOVE_BACKOFF = { minDelay: 100, maxDelay: 2_000 };

/** @param parallel Requests of each sort in flight at once. */
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
            `message ${id} was handled but not deleted (attempt ${attemptOf(attempt)}): it may come again`,
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

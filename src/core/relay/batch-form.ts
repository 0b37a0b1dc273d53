import type { Calls } from '../publish/calls.js';
import type { Clock } from '../util/clock.js';
import type { FailureKind } from '../errors.js';
import { asBatchPublisher } from '../publish/single-publisher.js';
import { isBatchPublisher, type BatchPublisher, type Publisher } from '../contracts/publisher.js';
import { ANSWER_GRACE } from './stopping.js';
import { withDeadline } from '../util/async.js';

/** The longest delay that `setTimeout` supports, in milliseconds. */
const MAX_TIMEOUT = 2_147_483_647;

/**
 * Returns the publisher's own batch form. If the publisher has none, returns a batch form that sends messages with the
 * same key one at a time, and gives each message its own deadline.
 */
export function batchForm(
  publisher: Publisher,
  options: {
    concurrency: number;
    publishTimeout: number;
    pageSize: number;
    kindOf: (error: Error) => FailureKind;
    clock: Clock;
    calls: Calls;
  },
): { publisher: BatchPublisher; publishTimeout: number; watchesCalls: boolean } {
  const { concurrency, publishTimeout, pageSize, kindOf, clock, calls } = options;
  if (isBatchPublisher(publisher)) return { publisher, publishTimeout, watchesCalls: false };
  const bounded: Publisher = {
    async publish(message, options) {
      const signal = options?.signal;
      signal?.throwIfAborted();
      const call = calls.begin();
      let isAcknowledged = false;
      try {
        await withDeadline(
          publishTimeout,
          undefined,
          () => calls.tooLate(call, publishTimeout),
          async (own) =>
            publisher.publish(message, {
              get signal() {
                return own();
              },
            }),
          clock,
          // After the abort, the publisher can still report what happened to the message. The page waits no longer than
          // this grace.
          signal && { signal, grace: ANSWER_GRACE },
        );
        isAcknowledged = true;
      } finally {
        calls.end(call, isAcknowledged);
      }
    },
  };
  // All messages in a page can have the same key. The page then takes as long as all their calls together.
  return {
    publisher: asBatchPublisher(bounded, concurrency, kindOf),
    publishTimeout: Math.min(publishTimeout * (pageSize + 1), MAX_TIMEOUT),
    watchesCalls: true,
  };
}

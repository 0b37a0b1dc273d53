import type { FailureKind } from '../errors.js';
import { failureKind } from './failure-kinds.js';
import type { Message } from '../contracts/message.js';
import type { CallOptions } from './pace.js';
import { ACKNOWLEDGED, type BatchPublisher, type Publisher } from '../contracts/publisher.js';
import { Room, sendInLanes } from './lanes.js';

/** A batch form that detects a slow call for each message individually. */
export interface PacedPublisher extends BatchPublisher {
  readonly isPaced: true;
}

export function isPaced(publisher: BatchPublisher): publisher is PacedPublisher {
  return (publisher as Partial<PacedPublisher>).isPaced === true;
}

/**
 * Creates a batch form for a publisher that has none. It sends messages with the same key one at a time. Across all its
 * calls, up to `concurrency` messages are in flight at once. After a failure, later messages with that key in the same
 * call are not sent, and fail as retryable. So the batch form keeps key order.
 */
export function asBatchPublisher(
  publisher: Publisher,
  concurrency: number,
  kindOf: (error: Error) => FailureKind = failureKind,
): PacedPublisher {
  const room = new Room(concurrency);
  return {
    isPaced: true,
    batchKeepsKeyOrder: true,
    publish: (message, options) => publisher.publish(message, options),
    publishBatch: (messages, options: CallOptions = {}) =>
      sendInLanes<Message>(messages, {
        laneOf: (message) => message.key,
        send: async ([message]) => {
          if (message !== undefined) await publisher.publish(message, options);
          return [ACKNOWLEDGED];
        },
        room,
        maxItems: 1,
        call: options,
        kindOf,
        pace: options.pace,
      }),
  };
}

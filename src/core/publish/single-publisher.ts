import type { FailureKind } from '../errors.js';
import { failureKind } from './failure-kinds.js';
import type { Message } from '../contracts/message.js';
import type { CallOptions } from './pace.js';
import { ACKNOWLEDGED, type BatchPublisher, type Publisher } from '../contracts/publisher.js';
import { Room, sendInLanes } from './lanes.js';

/** A batch form that knows for each message whether its call is slow. */
export interface PacedPublisher extends BatchPublisher {
  readonly isPaced: true;
}

export function isPaced(publisher: BatchPublisher): publisher is PacedPublisher {
  return (publisher as Partial<PacedPublisher>).isPaced === true;
}

/**
 * Creates a batch form for a publisher that has none. It sends a key's messages one at a time. It sends up to
 * `concurrency` messages with different keys at once, in all calls together. After a failure, the later messages of
 * that key in the call are not sent and fail as retryable. So the publisher keeps key order.
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

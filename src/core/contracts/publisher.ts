import type { Message } from './message.js';

/** The options for a relay's call to a publisher. */
export interface PublishOptions {
  /**
   * Aborts when the relay no longer waits for the call. The reason is a timeout, a lost lease, or a stop that has
   * lasted `stopTimeout`. After such a stop, an answer within half a second still counts. A publisher that sends
   * several requests must read `options.signal` again before each of them, because reading it checks the lease by the
   * clock. A process that was frozen would otherwise learn too late that it has lost the lease.
   */
  readonly signal?: AbortSignal | undefined;
  /**
   * Aborts when the relay must stop, or must give partitions to another relay. The relay still waits for requests that
   * were sent. In a stop, it waits for up to `stopTimeout`. From then on, `publishBatch` can leave the rest of its
   * messages unsent. The errors of these messages must have the reason of the signal as their `cause`.
   */
  readonly stop?: AbortSignal | undefined;
}

/** Sends one message to a broker. */
export interface Publisher {
  /**
   * Resolves only when the broker has durably acknowledged the message.
   *
   * @throws any error if the broker has not. `failureKind` says what the relay does then.
   */
  publish(message: Message, options?: PublishOptions): Promise<void>;
}

/** A publisher as a plain function. If it throws an error synchronously, the error counts like a rejection. */
export type PublishFunction = (this: void, message: Message, options?: PublishOptions) => Promise<unknown>;

/** Turns a plain function into a publisher. Returns anything else unchanged. */
export function publisherOf(given: Publisher | PublishFunction): Publisher {
  // Some values are both a function and a publisher, such as a class with static methods.
  if (typeof given !== 'function' || 'publish' in given) return given as Publisher;
  return {
    async publish(message, options) {
      await given(message, options);
    },
  };
}

/** The result of publishing one message of a batch. */
export type PublishResult = { readonly acknowledged: true } | { readonly acknowledged: false; readonly error: Error };

/** The result that all acknowledged messages share. */
export const ACKNOWLEDGED: PublishResult = Object.freeze({ acknowledged: true });

/** A publisher that can send many messages in one call, and returns a result for each of them. */
export interface BatchPublisher extends Publisher {
  /**
   * Sends the messages, in as many requests as the broker needs. Resolves to one result for each message, in the order
   * of the messages. Rejects only if the result of every message is unknown.
   *
   * A relay makes up to `pipelineDepth` calls at once, but never two with messages of the same key.
   */
  publishBatch(messages: readonly Message[], options?: PublishOptions): Promise<readonly PublishResult[]>;
  /**
   * Whether one call can have several messages of the same key. If true, the publisher must send them in order. If one
   * of them fails, it must fail the later messages of the key in that call. If false, the relay never passes two
   * messages of the same key in one call.
   * @default false
   */
  readonly batchKeepsKeyOrder?: boolean;
}

/** Whether a publisher has `publishBatch`. */
export function isBatchPublisher(publisher: Publisher): publisher is BatchPublisher {
  return typeof (publisher as Partial<BatchPublisher>).publishBatch === 'function';
}

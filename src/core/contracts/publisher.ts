import type { Message } from './message.js';

/** The options for a relay's call to a publisher. */
export interface PublishOptions {
  /**
   * Aborts when the relay stops waiting for the call. That happens after a timeout, after the loss of the lease, or
   * when a stop has lasted `stopTimeout`. After such a stop, an answer within half a second still counts. A publisher
   * that sends several requests must read `options.signal` again before each of them, because reading it checks the
   * lease against the clock. Otherwise, a process that was frozen would learn too late that it has lost the lease.
   */
  readonly signal?: AbortSignal | undefined;
  /**
   * Aborts when the relay must stop, or must give partitions to another relay. Once this signal has aborted,
   * `publishBatch` can leave its remaining messages unsent. The errors for these messages must have this signal's
   * reason as their `cause`. The relay still waits for requests that were already sent. If the relay is stopping, it
   * waits for up to `stopTimeout`.
   */
  readonly stop?: AbortSignal | undefined;
}

/** Sends one message to a broker. */
export interface Publisher {
  /**
   * Resolves only when the broker has durably acknowledged the message.
   *
   * @throws any error if the broker has not acknowledged the message. `failureKind` determines how the relay treats the
   *   error.
   */
  publish(message: Message, options?: PublishOptions): Promise<void>;
}

/** A publisher as a plain function. An error that it throws synchronously counts as a rejection. */
export type PublishFunction = (this: void, message: Message, options?: PublishOptions) => Promise<unknown>;

/** Turns a plain function into a publisher. Returns anything else unchanged. */
export function publisherOf(given: Publisher | PublishFunction): Publisher {
  // A value can be both a function and a publisher, such as a class with a static `publish` method.
  if (typeof given !== 'function' || 'publish' in given) return given as Publisher;
  return {
    async publish(message, options) {
      await given(message, options);
    },
  };
}

/** The result for one message in a batch. */
export type PublishResult = { readonly acknowledged: true } | { readonly acknowledged: false; readonly error: Error };

/** The result that all acknowledged messages share. */
export const ACKNOWLEDGED: PublishResult = Object.freeze({ acknowledged: true });

/** A publisher that can send many messages in one call, and returns a result for each of them. */
export interface BatchPublisher extends Publisher {
  /**
   * Sends the messages, in as many requests as the broker needs. Resolves to one result for each message, in the same
   * order as the messages. Rejects only if the result is unknown for every message.
   *
   * A relay makes up to `pipelineDepth` calls at once, but two simultaneous calls never contain messages with the same
   * key.
   */
  publishBatch(messages: readonly Message[], options?: PublishOptions): Promise<readonly PublishResult[]>;
  /**
   * Whether one call can contain several messages with the same key. If true, the publisher must send them in order. If
   * one of them fails, the publisher must also fail the later messages with that key in the same call. If false, the
   * relay never passes two messages with the same key in one call.
   * @default false
   */
  readonly batchKeepsKeyOrder?: boolean;
}

/** Whether a publisher has `publishBatch`. */
export function isBatchPublisher(publisher: Publisher): publisher is BatchPublisher {
  return typeof (publisher as Partial<BatchPublisher>).publishBatch === 'function';
}

import type { Message } from './message.js';

/** What a relay tells a publisher with each call. */
export interface PublishOptions {
  /**
   * Aborted when the relay no longer waits: at its timeout, when its lease is lost, or when a stop has lasted
   * `stopTimeout`; then what is answered within half a second still counts. Whoever sends
   * several requests reads it from here anew before each: that asks for the lease by the clock, which a
   * process that was frozen would otherwise learn of too late.
   */
  readonly signal?: AbortSignal | undefined;
  /**
   * Aborted when the relay is to stop, or to make room for another: what was sent is still waited for, when it stops up
   * to `stopTimeout`. A batch form may leave the
   * rest of its messages unsent then; their errors have the signal's reason as `cause`.
   */
  readonly stop?: AbortSignal | undefined;
}

/** Sends one message to a broker. */
export interface Publisher {
  /**
   * Resolves when the broker has durably acknowledged the message, and not before.
   * @throws anything else: see `failureKind` for what the relay makes of it.
   */
  publish(message: Message, options?: PublishOptions): Promise<void>;
}

/** The same as a function alone: what a publisher is that needs nothing else. What it throws at once, it rejects with. */
export type PublishFunction = (this: void, message: Message, options?: PublishOptions) => Promise<unknown>;

/** A function as the publisher that it is; anything else as it is. */
export function publisherOf(given: Publisher | PublishFunction): Publisher {
  // Some are both, such as a class with static methods.
  if (typeof given !== 'function' || 'publish' in given) return given as Publisher;
  return {
    async publish(message, options) {
      await given(message, options);
    },
  };
}

/** What became of one message of a batch. */
export type PublishResult = { readonly acknowledged: true } | { readonly acknowledged: false; readonly error: Error };

/** The result of every message that was acknowledged. */
export const ACKNOWLEDGED: PublishResult = Object.freeze({ acknowledged: true });

/** A publisher that can send many messages at once and answers for each. */
export interface BatchPublisher extends Publisher {
  /**
   * Sends the messages, in as many requests as the broker needs, and resolves with one result per
   * message, in the order given. It rejects only when nothing can be said of any of them.
   *
   * Up to `pipelineDepth` calls are made at once, never two with messages of one key.
   */
  publishBatch(messages: readonly Message[], options?: PublishOptions): Promise<readonly PublishResult[]>;
  /**
   * Whether messages of one key may be handed over in one call: the publisher sends them in order,
   * and a failure fails the later messages of its key in that call. Without it, a call never holds
   * two messages of one key.
   * @default false
   */
  readonly batchKeepsKeyOrder?: boolean;
}

/** Whether a publisher offers the batch form. */
export function isBatchPublisher(publisher: Publisher): publisher is BatchPublisher {
  return typeof (publisher as Partial<BatchPublisher>).publishBatch === 'function';
}

import type { ErrorLogger } from './logger.js';
import type { Message } from './message.js';

/** What a handler is given beside the message. */
export interface HandlerContext {
  /** Aborted when the subscriber was told to stop and its grace has passed. */
  readonly signal: AbortSignal;
}

/** Does the work of one message. When it rejects, the message is not acknowledged and comes again. */
export type Handler = (message: Message, context: HandlerContext) => Promise<void> | void;

/** A name, for logs and errors, and the handler that works under it. */
export interface Subscription {
  readonly name: string;
  readonly handler: Handler;
}

/** What every subscriber can be told. */
export interface SubscriberOptions {
  /** Gets the errors of handlers and of the broker; work goes on. @default the console */
  errorLogger?: ErrorLogger;
}

/** Receives messages from a broker and hands them to subscriptions. */
export interface Subscriber {
  /**
   * Receives until the signal aborts, then stops receiving, waits for the handlers that run, and
   * resolves. A message is acknowledged to the broker after its handler succeeded, and not before.
   */
  subscribe(subscription: Subscription, options: { signal: AbortSignal }): Promise<void>;
}

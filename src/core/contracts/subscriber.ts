import type { ErrorLogger } from './logger.js';
import type { Message } from './message.js';

/** The context that a handler receives in addition to the message. */
export interface HandlerContext {
  /** Aborts when the subscriber is stopping and the time limit for running handlers has passed. */
  readonly signal: AbortSignal;
}

/** Handles one message. If the handler rejects, the message is not acknowledged, and will be delivered again. */
export type Handler = (message: Message, context: HandlerContext) => Promise<void> | void;

/** A handler, with its name for logs and errors. */
export interface Subscription {
  readonly name: string;
  readonly handler: Handler;
}

/** The options that every subscriber has. */
export interface SubscriberOptions {
  /** Receives the errors of handlers and of the broker. They do not end the subscriber. @default the console */
  errorLogger?: ErrorLogger;
}

/** Receives messages from a broker and passes them to subscriptions. */
export interface Subscriber {
  /**
   * Receives messages until the signal aborts. Then it stops receiving, waits for running handlers, and resolves. It
   * acknowledges a message to the broker only after the message's handler has succeeded.
   */
  subscribe(subscription: Subscription, options: { signal: AbortSignal }): Promise<void>;
}

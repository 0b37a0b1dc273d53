import { textOf } from '../util/error-text.js';
import type { FailureKind } from '../errors.js';
import type { ToPark } from './feed.js';
import type { ErrorLogger } from './logger.js';
import type { Message } from './message.js';
import type { CleanReport } from './store.js';

/** The properties of an event about a message that failed, or that is parked or given up. */
interface ParkedEvent {
  readonly destination: string;
  readonly message: Message;
  /** How often the message has failed so far. */
  readonly attempts: number;
}

/**
 * One thing that happened to messages, to a relay or to the store. `type` says which. You can turn events into logs,
 * metrics and traces. The events of one message come in the order in which things happened. Durations are in
 * milliseconds of a monotonic clock.
 */
export type MessengerEvent =
  /** The application has stored messages in a transaction. The transaction can still be rolled back. */
  | { readonly type: 'stored'; readonly messages: readonly Message[] }
  /** The relay has read a page: new messages or, if `retries` is true, parked messages that are due. */
  | {
      readonly type: 'claimed';
      readonly destination: string;
      readonly messages: readonly Message[];
      readonly retries: boolean;
    }
  /**
   * The broker has acknowledged messages from one of the relay's requests, which took `duration`. The messages are not
   * settled yet.
   */
  | {
      readonly type: 'published';
      readonly destination: string;
      readonly messages: readonly Message[];
      readonly duration: number;
    }
  /**
   * An attempt failed, so the message is parked or given up. An event `parked`, `dead` or `blocked` follows when the
   * message is settled.
   */
  | ({ readonly type: 'failed'; readonly error: Error; readonly kind: FailureKind } & ParkedEvent)
  /**
   * A message was parked and settled. It waits `retryIn` for its next attempt. Without `error`, it waits behind an
   * earlier message of its key, or for the answer to its slow call.
   */
  | ({ readonly type: 'parked'; readonly error?: Error; readonly retryIn?: number } & ParkedEvent)
  /** A message became a dead letter and was settled. Its key goes on. */
  | ({ readonly type: 'dead'; readonly error: Error } & ParkedEvent)
  /** A message was blocked and settled. It is not tried again, and its key waits behind it for an operator. */
  | ({ readonly type: 'blocked'; readonly error: Error } & ParkedEvent)
  /** The relay has gained these partitions. */
  | { readonly type: 'leased'; readonly destination: string; readonly partitions: readonly number[] }
  /** The relay no longer has these partitions. It gave them back or away or, with `error`, it lost them. */
  | {
      readonly type: 'lease-lost';
      readonly destination: string;
      readonly partitions: readonly number[];
      readonly error?: Error;
    }
  /**
   * The circuit is open. `broker`: the relay publishes nothing for `retryIn`, after `failures` failures in a row.
   * `limit`: too many messages of a topic wait to be tried again, and the relay publishes only retries until fewer
   * wait.
   */
  | {
      readonly type: 'paused';
      readonly destination: string;
      readonly reason: 'broker' | 'limit';
      readonly error: Error;
      readonly failures: number;
      readonly retryIn?: number;
    }
  /** The circuit is closed again. It was open for `pausedFor`. */
  | {
      readonly type: 'resumed';
      readonly destination: string;
      readonly reason: 'broker' | 'limit';
      readonly pausedFor: number;
    }
  /**
   * A cleaning has ended after `duration`. `report` comes from the store and says what was cleaned. `error` says why a
   * part was not cleaned.
   */
  | {
      readonly type: 'cleaned';
      readonly destination: string;
      readonly duration: number;
      readonly report?: CleanReport;
      readonly error?: Error;
    };

/** Receives events. It should return quickly, because the relay waits until it returns. */
export type EventHandler = (event: MessengerEvent) => unknown;

/**
 * Wraps a handler, so that its errors change nothing. The logger receives the first error. Later errors are dropped,
 * because there could be one for each message.
 */
export function safeHandler(onEvent: EventHandler, errorLogger: ErrorLogger): EventHandler {
  let told = false;
  const tell = (thrown: unknown) => {
    if (told) return;
    told = true;
    errorLogger.error(new Error(`onEvent failed: ${textOf(thrown)} (reported only once)`, { cause: thrown }));
  };
  return (event) => {
    try {
      const handled = onEvent(event);
      // An asynchronous handler also fits the type. Its rejection would end the process.
      if (handled instanceof Promise) handled.catch(tell);
    } catch (thrown) {
      tell(thrown);
    }
  };
}

/** Returns the event for a message that was parked or given up, once it is settled. */
export function eventOf(toPark: ToPark, destination: string): MessengerEvent {
  const { message, attempts, error, retryIn, dead, blocked } = toPark;
  const common = { destination, message, attempts };
  if (error === undefined) return { type: 'parked', ...common };
  if (dead) return { type: 'dead', ...common, error };
  if (blocked === true) return { type: 'blocked', ...common, error };
  return { type: 'parked', ...common, error, ...(retryIn !== undefined && { retryIn }) };
}

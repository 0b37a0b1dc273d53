import { textOf } from '../util/error-text.js';
import type { FailureKind } from '../errors.js';
import type { ToPark } from './feed.js';
import type { ErrorLogger } from './logger.js';
import type { Message } from './message.js';
import type { CleanReport } from './store.js';

/** The properties of an event about a message that failed, was parked, was blocked or became a dead letter. */
interface ParkedEvent {
  readonly destination: string;
  readonly message: Message;
  /** How many times the message has failed so far. */
  readonly attempts: number;
}

/**
 * Something that happened to messages, to a relay or to the store. `type` says what happened. You can turn events into
 * logs, metrics and traces. The events for one message arrive in the order in which they happened. Durations are in
 * milliseconds, measured with a monotonic clock.
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
   * An attempt to publish a message failed. When the message is settled, a `parked`, `dead` or `blocked` event follows.
   */
  | ({ readonly type: 'failed'; readonly error: Error; readonly kind: FailureKind } & ParkedEvent)
  /**
   * A message was parked and settled. Its next attempt is after `retryIn`. If `error` is absent, the message is waiting
   * behind an earlier message with the same key, or for the answer to its slow call.
   */
  | ({ readonly type: 'parked'; readonly error?: Error; readonly retryIn?: number } & ParkedEvent)
  /** A message became a dead letter and was settled. Later messages with the same key are still published. */
  | ({ readonly type: 'dead'; readonly error: Error } & ParkedEvent)
  /**
   * A message was blocked and settled. Neither it nor later messages with the same key are tried until an operator
   * acts.
   */
  | ({ readonly type: 'blocked'; readonly error: Error } & ParkedEvent)
  /** The relay has gained these partitions. */
  | { readonly type: 'leased'; readonly destination: string; readonly partitions: readonly number[] }
  /** The relay no longer has these partitions. If `error` is set, the relay lost them. Otherwise it released them. */
  | {
      readonly type: 'lease-lost';
      readonly destination: string;
      readonly partitions: readonly number[];
      readonly error?: Error;
    }
  /**
   * The circuit is open. The `reason` is one of these:
   *
   * - `broker`: after `failures` failures in a row, the relay publishes nothing for `retryIn`.
   * - `limit`: too many of a topic's messages are waiting for another attempt. The relay publishes only retries until
   *   fewer messages are waiting.
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
   * A cleaning has ended after `duration`. `report` is the store's report on what was cleaned. `error` says why a part
   * of the store was not cleaned.
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
 * Wraps a handler, so that an error in the handler does not affect the relay. The logger receives the first error.
 * Later errors are dropped, because there could be one for each message.
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
      // The type also allows an asynchronous handler. If its rejection were not handled, it would end the process.
      if (handled instanceof Promise) handled.catch(tell);
    } catch (thrown) {
      tell(thrown);
    }
  };
}

/** Returns the event for a message that was settled as parked, blocked or a dead letter. */
export function eventOf(toPark: ToPark, destination: string): MessengerEvent {
  const { message, attempts, error, retryIn, dead, blocked } = toPark;
  const common = { destination, message, attempts };
  if (error === undefined) return { type: 'parked', ...common };
  if (dead) return { type: 'dead', ...common, error };
  if (blocked === true) return { type: 'blocked', ...common, error };
  return { type: 'parked', ...common, error, ...(retryIn !== undefined && { retryIn }) };
}

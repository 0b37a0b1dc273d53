import { textOf } from '../util/error-text.js';
import type { FailureKind } from '../errors.js';
import type { ToPark } from './feed.js';
import type { ErrorLogger } from './logger.js';
import type { Message } from './message.js';
import type { CleanReport } from './store.js';

/** What an event tells of a message that is parked or given up. */
interface ParkedEvent {
  readonly destination: string;
  readonly message: Message;
  /** Failed attempts so far. */
  readonly attempts: number;
}

/**
 * What happens to messages, one event at a time, by `type`: logs, metrics and traces are made of it
 * elsewhere. Events of one message come in the order in which things happened. Durations are in
 * milliseconds of a monotonic clock.
 */
export type MessengerEvent =
  /** A store was given messages in a transaction, which may still be rolled back. */
  | { readonly type: 'stored'; readonly messages: readonly Message[] }
  /** A relay has read a page: new messages, or (`retries`) ones that were parked and are due. */
  | {
      readonly type: 'claimed';
      readonly destination: string;
      readonly messages: readonly Message[];
      readonly retries: boolean;
    }
  /** The broker has acknowledged messages, of one request of the relay, which took `duration`. They are not settled yet. */
  | {
      readonly type: 'published';
      readonly destination: string;
      readonly messages: readonly Message[];
      readonly duration: number;
    }
  /** An attempt failed by the message itself; `parked`, `dead` or `blocked` follows when that is settled. */
  | ({ readonly type: 'failed'; readonly error: Error; readonly kind: FailureKind } & ParkedEvent)
  /** Settled: it waits, for `retryIn` and its next attempt, or (without `error`) behind an earlier message of its key, or for the answer to its slow call. */
  | ({ readonly type: 'parked'; readonly error?: Error; readonly retryIn?: number } & ParkedEvent)
  /** Settled: it is a dead letter; its key goes on. */
  | ({ readonly type: 'dead'; readonly error: Error } & ParkedEvent)
  /** Settled: it will not be tried again, and its key waits behind it, for an operator. */
  | ({ readonly type: 'blocked'; readonly error: Error } & ParkedEvent)
  /** The relay has gained these partitions. */
  | { readonly type: 'leased'; readonly destination: string; readonly partitions: readonly number[] }
  /** The relay has no longer these partitions: given back, given away, or (with `error`) lost. */
  | {
      readonly type: 'lease-lost';
      readonly destination: string;
      readonly partitions: readonly number[];
      readonly error?: Error;
    }
  /**
   * The circuit is open: nothing is published for `retryIn`, after `failures` failures on end, or (`limit`:
   * too many messages of a topic wait) nothing but retries until fewer do.
   */
  | {
      readonly type: 'paused';
      readonly destination: string;
      readonly reason: 'broker' | 'limit';
      readonly error: Error;
      readonly failures: number;
      readonly retryIn?: number;
    }
  /** The circuit is closed again, after `pausedFor`. */
  | {
      readonly type: 'resumed';
      readonly destination: string;
      readonly reason: 'broker' | 'limit';
      readonly pausedFor: number;
    }
  /** Cleaning has ended, in `duration`; `report` is what the store tells that was done, and `error` why that is not all. */
  | {
      readonly type: 'cleaned';
      readonly destination: string;
      readonly duration: number;
      readonly report?: CleanReport;
      readonly error?: Error;
    };

/** Gets events. It should return at once: the relay waits for it. */
export type EventHandler = (event: MessengerEvent) => unknown;

/**
 * A handler whose own faults change nothing: the first of them is told to the logger, and no other,
 * since it would be one per message.
 */
export function safeHandler(onEvent: EventHandler, errorLogger: ErrorLogger): EventHandler {
  let told = false;
  const tell = (thrown: unknown) => {
    if (told) return;
    told = true;
    errorLogger.error(new Error(`onEvent failed: ${textOf(thrown)} (told once)`, { cause: thrown }));
  };
  return (event) => {
    try {
      const handled = onEvent(event);
      // An asynchronous one fits the type: what it rejects with would end the process.
      if (handled instanceof Promise) handled.catch(tell);
    } catch (thrown) {
      tell(thrown);
    }
  };
}

/** What a message that was parked or given up is told as, once that is settled. */
export function eventOf(toPark: ToPark, destination: string): MessengerEvent {
  const { message, attempts, error, retryIn, dead, blocked } = toPark;
  const common = { destination, message, attempts };
  if (error === undefined) return { type: 'parked', ...common };
  if (dead) return { type: 'dead', ...common, error };
  if (blocked === true) return { type: 'blocked', ...common, error };
  return { type: 'parked', ...common, error, ...(retryIn !== undefined && { retryIn }) };
}

import type { FailureKind } from '../errors.js';
import type { MessengerEvent } from '../contracts/events.js';
import type { ErrorLogger } from '../contracts/logger.js';

/** How a message that fails is tried again. All durations are in milliseconds. */
export interface RetryOptions {
  /** The longest that the first pause can be: 1 to 86,400,000. @default 500 */
  minDelay?: number;
  /** The longest that any pause can be: from `minDelay` to 86,400,000. @default 300_000 */
  maxDelay?: number;
  /**
   * Attempts before it is given up, the first included: 1 or more, or `Infinity`. A pause is at most
   * `minDelay` doubled with each failure, at most `maxDelay`, and random below that down to half of
   * `minDelay`: with the defaults 20 attempts take 27 minutes on average, and at most 54.
   * @default 20
   */
  maxAttempts?: number;
  /**
   * What becomes of a message then, or at once when the broker refuses it for ever: it becomes a
   * dead letter and its key goes on, or it blocks its key until an operator decides.
   * @default 'dead-letter'
   */
  onExhausted?: 'dead-letter' | 'block-key';
}

/** What differs for the messages of one topic. */
export interface TopicOptions {
  /** What is not given is as for every topic. */
  retry?: RetryOptions;
  /** How many of its messages may wait at a relay, failed or behind others. @default as for every topic */
  maxParked?: number;
}

/** How a `Messenger` is set up. All durations are in milliseconds. */
export interface MessengerOptions {
  /** How many messages are published and settled together: 1 to 10,000. @default 100 */
  publishBatchSize?: number;
  /**
   * How many bytes are handed to the publisher at once, roughly: payloads, metadata, ids, topics and keys.
   * A page is cut into as many calls as it takes; a larger message goes alone.
   * @default Infinity: publishers know the limits of their brokers
   */
  publishBatchBytes?: number;
  /**
   * How many pages are published at once, and how many times `publishBatchSize` messages may be published and
   * not settled: 1 to 100. When the process dies, at most these are published again. With 1, a page is
   * published, then settled, then the next one is published: a call that is slow then holds up all. Pages that are not full are settled together,
   * every 50 ms.
   * @default 4
   */
  pipelineDepth?: number;
  /** The longest pause of an idle relay; while there is work there is none. @default 1_000 */
  interval?: number;
  /**
   * Clean up: delete published messages that are older than this; `false` keeps them.
   *
   * @default `Messenger` and `drain` keep them; `outbox.relay` deletes them after seven days, or after the retention of
   *   the store's tables where that is shorter
   */
  cleanUp?: number | false;
  /**
   * Gets the errors that do not stop the relay, and no flood of them. An outage of the broker or the datastore is told
   * when it starts, once a minute while it lasts, at once when its reason changes, and, to `info`, when it is over. Of
   * failed attempts alike, whatever their messages, ten are told in a minute, and then how many more there were. A
   * message that is given up is always told. `onEvent` gets every attempt.
   * @default standard error: a line each, with the time
   */
  errorLogger?: ErrorLogger;
  /** Gets what happens: see `MessengerEvent`. What it throws changes nothing. @default nobody does */
  onEvent?: (event: MessengerEvent) => void;
  /** The named destination that this relay works for, of a store that has destinations. @default 'default' */
  destination?: string;
  /** How many messages, of different keys, are in flight at once through a publisher without a batch form: 1 to 1,000. @default 10 */
  concurrency?: number;
  /**
   * How long one call of the publisher may take before it counts as failed. A call that takes ten times as long as usual,
   * at least a second or half of this, is parked with its key while it is waited for, once one that was begun later
   * is acknowledged: it still counts to what is in flight, and to `concurrency`.
   * @default 30_000
   */
  publishTimeout?: number;
  /** How long a running relay puts up with a store that does not answer; 0 not at all. @default 30_000 */
  storeOutageLimit?: number;
  /**
   * How long a stop waits for the publisher: from 0 to 86,400,000. Then the signal of each call is aborted. What was
   * acknowledged is settled, and what was not is published again by the next relay. A stop ends within two seconds
   * after that, whatever does not answer.
   * @default 8_000
   */
  stopTimeout?: number;
  /** How a message that fails is tried again; its pauses, up to a minute, are also those of a broker that fails. */
  retry?: RetryOptions;
  /**
   * How many messages of one topic may wait to be tried again, 1 or more or `Infinity`: then nothing new
   * is published until they have drained to nine tenths. It may be exceeded by what is in flight then,
   * `publishBatchSize` times `pipelineDepth`.
   * @default 10_000
   */
  maxParked?: number;
  /** What differs by topic. @default nothing */
  topics?: Readonly<Record<string, TopicOptions>>;
  /**
   * What an error of the publisher means; `undefined` leaves it to what the error says of itself. For a
   * table see `classify` of `messenger-outbox/adapter`.
   */
  classify?: (error: Error) => FailureKind | undefined;
}

import type { FailureKind } from '../errors.js';
import type { MessengerEvent } from '../contracts/events.js';
import type { ErrorLogger } from '../contracts/logger.js';

/** How a message that fails is tried again. All durations are in milliseconds. */
export interface RetryOptions {
  /** The longest possible first pause: 1 to 86,400,000. @default 500 */
  minDelay?: number;
  /** The longest possible pause: from `minDelay` to 86,400,000. @default 300_000, or `minDelay` if that is more */
  maxDelay?: number;
  /**
   * How many attempts are made before a message is given up, including the first: 1 or more, or `Infinity`. The longest
   * possible pause is `minDelay`, doubled with each further failure, but not more than `maxDelay`. Each pause is
   * random, between half of `minDelay` and the longest possible pause. With the defaults, 20 attempts take 27 minutes
   * on average, and at most 54.
   * @default 20
   */
  maxAttempts?: number;
  /**
   * What becomes of a message after its last attempt, or at once if the broker refuses it for ever. Either it becomes a
   * dead letter and its key goes on, or it blocks its key until an operator decides.
   * @default 'dead-letter'
   */
  onExhausted?: 'dead-letter' | 'block-key';
}

/** The options that differ for the messages of one topic. */
export interface TopicOptions {
  /** How a message of the topic is tried again. Options that are not given are as for every topic. */
  retry?: RetryOptions;
  /**
   * How many messages of the topic may wait at a relay, because they failed or are behind others of their key.
   * @default as for every topic
   */
  maxParked?: number;
}

/** The options of a `Messenger`. All durations are in milliseconds. */
export interface MessengerOptions {
  /** How many messages are published and settled together: 1 to 10,000. @default 100 */
  publishBatchSize?: number;
  /**
   * Roughly how many bytes are handed to the publisher at once: payloads, metadata, ids, topics and keys. A page is
   * divided into as many calls as necessary. A larger message goes alone.
   * @default Infinity: publishers know the limits of their brokers
   */
  publishBatchBytes?: number;
  /**
   * How many pages are published at once: 1 to 100. It is also how many times `publishBatchSize` messages may be
   * published and not settled. If the process dies, at most these messages are published again. With 1, a page is
   * published, then settled, and only then the next page is published, so a slow call holds up everything. Pages that
   * are not full are settled together, every 50 ms.
   * @default 4
   */
  pipelineDepth?: number;
  /** The longest pause of an idle relay: 1 to 86,400,000. While there is work, there is no pause. @default 1_000 */
  interval?: number;
  /**
   * Deletes published messages that are older than this. `false` keeps them.
   *
   * @default `Messenger` and `drain` keep them; `outbox.relay` deletes them after seven days, or after the retention of
   *   the store's tables if that is shorter
   */
  cleanUp?: number | false;
  /**
   * Gets the errors that do not stop the relay, but no flood of them. An outage of the broker or the datastore is
   * reported when it starts, once a minute while it lasts, at once when its reason changes, and, to `info`, when it is
   * over. Of failed attempts that are alike, whatever their messages, ten are reported in a minute, and then how many
   * more there were. A message that is given up is always reported. `onEvent` gets every attempt.
   * @default standard error: one line for each error, with the time
   */
  errorLogger?: ErrorLogger;
  /** Called with each event: see `MessengerEvent`. An error that it throws changes nothing. @default none */
  onEvent?: (event: MessengerEvent) => void;
  /** The named destination for which this relay works, if the store has destinations. @default 'default' */
  destination?: string;
  /**
   * How many messages of different keys are in flight at once, if the publisher has no batch form: 1 to 1,000.
   * @default 10
   */
  concurrency?: number;
  /**
   * How long one call of the publisher may take before it counts as failed: 1 to 86,400,000. A call is slow if it takes
   * ten times as long as usual and at least a second, or if it takes half of this time. Once a call that began later is
   * acknowledged, the messages of a slow call are parked with their keys while their answer is waited for. The slow
   * call still counts towards what is in flight, and towards `concurrency`.
   * @default 30_000
   */
  publishTimeout?: number;
  /** How long a running relay tolerates a store that does not answer; 0 means not at all. @default 30_000 */
  storeOutageLimit?: number;
  /**
   * How long a stop waits for the publisher: 0 to 86,400,000. After that, the signal of each call is aborted. Messages
   * that were acknowledged are settled. The next relay publishes the others again. The stop ends within two seconds
   * after that, whatever does not answer.
   * @default 8_000
   */
  stopTimeout?: number;
  /** How a message that fails is tried again. The same pauses, up to a minute, apply when the broker fails. */
  retry?: RetryOptions;
  /**
   * How many messages of one topic may wait, to be tried again or behind others of their key: 1 or more, or `Infinity`.
   * Once so many wait, nothing new is published until they have drained to nine tenths. Messages that are in flight at
   * that moment may exceed the number, by `publishBatchSize` times `pipelineDepth`.
   * @default 10_000
   */
  maxParked?: number;
  /** The options that differ by topic. @default none */
  topics?: Readonly<Record<string, TopicOptions>>;
  /**
   * Says what an error of the publisher means. With `undefined`, the error itself decides. For tables of errors, see
   * `classify` of `messenger-outbox/adapter`.
   */
  classify?: (error: Error) => FailureKind | undefined;
}

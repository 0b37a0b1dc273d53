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
   * possible pause is `minDelay`, doubled with each further failure, but at most `maxDelay`. Each pause is random,
   * between half of `minDelay` and the longest possible pause. With the defaults, 20 attempts take 27 minutes on
   * average, and at most 54.
   * @default 20
   */
  maxAttempts?: number;
  /**
   * What happens to a message after its last attempt, or at once if the broker refuses it for ever. Either it becomes a
   * dead letter and its key goes on, or it blocks its key until an operator decides.
   * @default 'dead-letter'
   */
  onExhausted?: 'dead-letter' | 'block-key';
}

/** The options for the messages of one topic, where they differ. */
export interface TopicOptions {
  /** How a message of the topic is tried again. Missing options have the same values as for every topic. */
  retry?: RetryOptions;
  /**
   * How many messages of the topic can wait at a relay, because they failed or are behind others of their key.
   * @default the same as for every topic
   */
  maxParked?: number;
}

/** The options of a `Messenger`. All durations are in milliseconds. */
export interface MessengerOptions {
  /** How many messages are published and settled together: 1 to 10,000. @default 100 */
  publishBatchSize?: number;
  /**
   * Roughly how many bytes are handed to the publisher at once, including payloads, metadata, ids, topics and keys. A
   * page is divided into as many calls as necessary. A larger message goes alone.
   * @default Infinity: publishers know the limits of their brokers
   */
  publishBatchBytes?: number;
  /**
   * How many pages are published at once: 1 to 100. The messages that are published but not settled can fill as many
   * pages of `publishBatchSize`. If the process dies, at most these messages are published again. With 1, a page is
   * published and settled before the next page is published, so a slow call delays everything. Pages that are not full
   * are settled together, every 50 ms.
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
   * Receives the errors that do not stop the relay, but not too many of them. An outage of the broker or the datastore
   * is reported when it starts, once a minute while it lasts, and at once when its reason changes. When it is over,
   * `info` receives a line. For similar failed attempts, even of different messages, ten are reported in a minute, and
   * then how many more there were. A message that is given up is always reported. `onEvent` receives every attempt.
   * @default standard error: one line for each error, with the time
   */
  errorLogger?: ErrorLogger;
  /** Called with each event: see `MessengerEvent`. An error that it throws changes nothing. @default none */
  onEvent?: (event: MessengerEvent) => void;
  /** The destination for which this relay works, if the store has destinations. @default 'default' */
  destination?: string;
  /**
   * How many messages with different keys are in flight at once, if the publisher has no batch form: 1 to 1,000.
   * @default 10
   */
  concurrency?: number;
  /**
   * How long one call to the publisher can take before it counts as failed: 1 to 86,400,000. A call is slow if it takes
   * ten times as long as usual and at least a second, or if it takes half of this time. Once a call that began later is
   * acknowledged, the messages of a slow call are parked with their keys until the answer comes. The slow call still
   * counts as in flight, and towards `concurrency`.
   * @default 30_000
   */
  publishTimeout?: number;
  /** How long a running relay tolerates a store that does not answer; 0 means not at all. @default 30_000 */
  storeOutageLimit?: number;
  /**
   * How long a stop waits for the publisher: 0 to 86,400,000. After that, the signal of each call aborts. Messages that
   * were acknowledged are settled. The next relay publishes the others again. The stop ends within two seconds after
   * that, even if something does not answer.
   * @default 8_000
   */
  stopTimeout?: number;
  /** How a message that fails is tried again. The same pauses, up to a minute, apply when the broker fails. */
  retry?: RetryOptions;
  /**
   * How many messages of one topic can wait, to be tried again or behind others of their key: 1 or more, or `Infinity`.
   * Once this many wait, the relay publishes no new messages until the number has fallen to nine tenths. Messages that
   * are in flight at that moment can exceed the limit, by `publishBatchSize` times `pipelineDepth`.
   * @default 10_000
   */
  maxParked?: number;
  /** The options that differ by topic. @default none */
  topics?: Readonly<Record<string, TopicOptions>>;
  /**
   * Decides what an error from the publisher means. With `undefined`, the error itself decides. For tables of errors,
   * see `classify` in `messenger-outbox/adapter`.
   */
  classify?: (error: Error) => FailureKind | undefined;
}

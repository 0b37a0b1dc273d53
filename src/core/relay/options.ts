import type { FailureKind } from '../errors.js';
import type { MessengerEvent } from '../contracts/events.js';
import type { ErrorLogger } from '../contracts/logger.js';

/** How a failed message is retried. All durations are in milliseconds. */
export interface RetryOptions {
  /** The upper limit for the first pause: 1 to 86,400,000. @default 500 */
  minDelay?: number;
  /** The upper limit for any pause: from `minDelay` to 86,400,000. @default 300_000, or `minDelay` if that is more */
  maxDelay?: number;
  /**
   * The maximum number of attempts for a message, including the first: 1 or more, or `Infinity`. The pause after each
   * failure is random, between half of `minDelay` and an upper limit. That limit is `minDelay` for the first pause. It
   * doubles with each further failure, up to `maxDelay`. With the defaults, 20 attempts take 27 minutes on average, and
   * at most 54.
   * @default 20
   */
  maxAttempts?: number;
  /**
   * What happens to a message after its last attempt, or at once if the broker rejects it permanently. With
   * `'dead-letter'`, it becomes a dead letter, and later messages with its key are still published. With `'block-key'`,
   * later messages with its key wait until an operator decides.
   * @default 'dead-letter'
   */
  onExhausted?: 'dead-letter' | 'block-key';
}

/** The options that can differ for one topic. */
export interface TopicOptions {
  /** How the topic's failed messages are retried. Options that are left out have the same values as for all topics. */
  retry?: RetryOptions;
  /**
   * How many of the topic's messages can wait for another attempt or behind earlier messages with the same key.
   * @default the same as for all topics
   */
  maxParked?: number;
}

/** The options of a `Messenger`. All durations are in milliseconds. */
export interface MessengerOptions {
  /** How many messages are published and settled together: 1 to 10,000. @default 100 */
  publishBatchSize?: number;
  /**
   * Roughly how many bytes are passed to the publisher in one call, including payloads, metadata, ids, topics and keys.
   * A page is split into as many calls as necessary. A message that is larger than this is sent in a call of its own.
   * @default Infinity: publishers already respect their brokers' limits
   */
  publishBatchBytes?: number;
  /**
   * How many pages are published at once: 1 to 100. At any time, at most `pipelineDepth` times `publishBatchSize`
   * messages are being published or settled. If the process dies, at most these messages are published again. With 1,
   * each page is settled before the next page is published, so a slow call delays all other messages. Pages that are
   * not full are settled together, every 50 ms.
   * @default 4
   */
  pipelineDepth?: number;
  /** The longest pause of an idle relay: 1 to 86,400,000. A relay with work does not pause. @default 1_000 */
  interval?: number;
  /**
   * Deletes published messages that are older than this. `false` keeps them.
   *
   * @default `Messenger` and `drain` keep them; `outbox.relay` deletes them after seven days, or after the retention of
   *   the store's tables if that is shorter
   */
  cleanUp?: number | false;
  /**
   * Receives the errors that do not stop the relay, at a limited rate. A broker or datastore outage is reported when it
   * starts, once a minute while it lasts, and at once when its reason changes. When it is over, `info` receives a line.
   * Of similar failed attempts, even for different messages, only ten are reported within a minute, followed by the
   * number of the others. When a message becomes a dead letter or is blocked, that is always reported. `onEvent`
   * receives every failed attempt.
   * @default standard error: one line for each error, with the time
   */
  errorLogger?: ErrorLogger;
  /** Called with each event: see `MessengerEvent`. An error that it throws does not affect the relay. @default none */
  onEvent?: (event: MessengerEvent) => void;
  /** The destination that this relay serves, if the store has destinations. @default 'default' */
  destination?: string;
  /**
   * How many messages are in flight at once if the publisher has no `publishBatch`: 1 to 1,000. They all have different
   * keys, or no key.
   * @default 10
   */
  concurrency?: number;
  /**
   * How long one call to the publisher can take before it counts as failed: 1 to 86,400,000. A call is slow if it takes
   * ten times as long as usual and at least a second, or if it takes half of this time. Once a call that began later is
   * acknowledged, the messages in the slow call are parked until it is answered, and later messages with the same keys
   * wait. The slow call still counts as in flight, and towards `concurrency`.
   * @default 30_000
   */
  publishTimeout?: number;
  /** How long a running relay tolerates a store outage. With 0, the first failure ends the relay. @default 30_000 */
  storeOutageLimit?: number;
  /**
   * How long a stopping relay waits for the publisher: 0 to 86,400,000. After that, the signal of each call aborts.
   * Acknowledged messages are settled, and the next relay publishes the others again. The relay then ends within two
   * seconds, even if the publisher or the store does not answer.
   * @default 8_000
   */
  stopTimeout?: number;
  /**
   * How failed messages are retried. During a broker outage, the relay makes the same pauses, but none longer than a
   * minute.
   */
  retry?: RetryOptions;
  /**
   * How many of a topic's messages can wait for another attempt or behind earlier messages with the same key: 1 or
   * more, or `Infinity`. Once this many are waiting, the relay publishes no new messages until the number has fallen to
   * nine tenths of the limit. Messages that are in flight at that moment can push the number above the limit, by at
   * most `publishBatchSize` times `pipelineDepth`.
   * @default 10_000
   */
  maxParked?: number;
  /** Options for individual topics, keyed by topic. @default none */
  topics?: Readonly<Record<string, TopicOptions>>;
  /**
   * Returns the kind of failure for an error from the publisher. If it returns `undefined`, the relay classifies the
   * error itself. To classify errors with a table, see `classify` in `messenger-outbox/adapter`.
   */
  classify?: (error: Error) => FailureKind | undefined;
}

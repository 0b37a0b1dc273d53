import { Circuit, type CircuitListener } from './circuit.js';
import { systemClock, type Clock } from './clock.js';
import { MessengerError, PublishError, toError, type FailureKind } from './errors.js';
import { safeHandler, type EventHandler, type MessengerEvent } from './events.js';
import { failureKind, isFailureKind } from './failures.js';
import { consoleErrorLogger, safeLogger, type ErrorLogger } from './logger.js';
import { describe } from './message.js';
import { checkKeys, limitOption, numberOption } from './options.js';
import { oneAtATime } from './plain-feed.js';
import { Pace } from './pace.js';
import { asBatchPublisher } from './plain-publisher.js';
import { isBatchPublisher, type BatchPublisher, type Publisher } from './publisher.js';
import type { RelayOptions } from './relay-options.js';
import type { PolicyOf, TopicPolicy } from './retry.js';
import { isFeedStore, type Store } from './store.js';
import { Suspicion } from './suspicion.js';
import { withDeadline } from './wait.js';

/** The destination of whoever names none. */
export const DEFAULT_DESTINATION = 'default';

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
  /** Clean up: delete published messages that are older than this. @default no clean-up */
  cleanUp?: number;
  /** Gets the errors that do not stop the relay. @default standard error */
  errorLogger?: ErrorLogger;
  /** Gets what happens: see `MessengerEvent`. What it throws changes nothing. @default nobody does */
  onEvent?: (event: MessengerEvent) => void;
  /** The named destination that this relay works for, of a store that has destinations. @default 'default' */
  destination?: string;
  /** How many messages, of different keys, are in flight at once through a publisher without a batch form: 1 to 1,000. @default 10 */
  concurrency?: number;
  /**
   * How long one call of the publisher may take before it counts as failed. A call that takes ten times as long as usual,
   * at least a second or half of this, is set aside with its key while it is waited for, once one that was begun later
   * is acknowledged: it still counts to what is in flight, and to `concurrency`.
   * @default 30_000
   */
  publishTimeout?: number;
  /** How long a running relay puts up with a store that does not answer; 0 not at all. @default 30_000 */
  storeOutageLimit?: number;
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
   * table see `classify`.
   */
  classify?: (error: Error) => FailureKind | undefined;
}

const KEYS = [
  ...(['publishBatchSize', 'publishBatchBytes', 'pipelineDepth', 'interval', 'cleanUp', 'errorLogger'] as const),
  ...(['onEvent', 'destination', 'concurrency', 'publishTimeout', 'storeOutageLimit', 'retry'] as const),
  ...(['maxParked', 'topics', 'classify'] as const),
] satisfies (keyof MessengerOptions)[];

const DAY = 86_400_000;

/** The longest delay that `setTimeout` takes, in milliseconds. */
const MAX_TIMEOUT = 2_147_483_647;

/** The longest pause of a broker that fails: what recovers is noticed within it, and trying costs little. */
const MAX_PAUSE = 60_000;

/**
 * What a relay works with, of what its user gave.
 *
 * @throws MessengerError `INVALID_OPTION` that names the option, its range and the value.
 */
export function relayOptions(
  store: Store,
  publisher: Publisher,
  options: MessengerOptions,
  clock: Clock = systemClock,
): Omit<RelayOptions, 'relay'> {
  assertMethods(store, 'store', 'messages', 'published', 'deletePublishedByExpiration');
  assertMethods(publisher, 'publisher', 'publish');
  checkKeys(options, KEYS);
  const { errorLogger: logger = consoleErrorLogger, destination = DEFAULT_DESTINATION, onEvent } = options;
  assertMethods(logger, 'errorLogger', 'error');
  assertFunction('onEvent', onEvent);
  assertFunction('classify', options.classify);
  if (typeof destination !== 'string' || destination === '') {
    throw new MessengerError('INVALID_OPTION', `destination must be a non-empty string, got ${describe(destination)}`);
  }
  const errorLogger = safeLogger(logger);
  const handler = onEvent && safeHandler(onEvent, errorLogger);
  const pageSize = numberOption('publishBatchSize', options.publishBatchSize, 100, {
    min: 1,
    max: 10_000,
    integer: true,
  });
  const publishTimeout = numberOption('publishTimeout', options.publishTimeout, 30_000, { min: 1, max: DAY });
  const concurrency = numberOption('concurrency', options.concurrency, 10, { min: 1, max: 1_000, integer: true });
  const kindOf = kindsBy(options.classify, errorLogger);
  const policyOf = policies(options);
  const { minDelay, maxDelay } = policyOf(undefined);
  return {
    store: isFeedStore(store) ? store : oneAtATime(store),
    ...batchForm(publisher, { concurrency, publishTimeout, pageSize, kindOf, clock }),
    destination,
    pageSize,
    pipelineDepth: numberOption('pipelineDepth', options.pipelineDepth, 4, { min: 1, max: 100, integer: true }),
    batchBytes: limitOption('publishBatchBytes', options.publishBatchBytes, Infinity),
    interval: numberOption('interval', options.interval, 1_000, { min: 1, max: DAY }),
    storeOutageLimit: numberOption('storeOutageLimit', options.storeOutageLimit, 30_000, {
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
    }),
    policyOf,
    kindOf,
    circuit: new Circuit({
      clock,
      backoff: { minDelay, maxDelay: Math.max(minDelay, Math.min(maxDelay, MAX_PAUSE)) },
      listener: circuitListener(destination, errorLogger, handler),
    }),
    suspicion: new Suspicion(),
    pace: new Pace({ clock, timeout: publishTimeout }),
    cleanUp:
      options.cleanUp === undefined
        ? undefined
        : numberOption('cleanUp', options.cleanUp, 0, { min: 0, max: Number.MAX_SAFE_INTEGER }),
    errorLogger,
    onEvent: handler,
    clock,
  };
}

/** Tells of pauses: each to the logger, since somebody should know, and both ends of it as events. */
function circuitListener(
  destination: string,
  errorLogger: ErrorLogger,
  onEvent: EventHandler | undefined,
): CircuitListener {
  return {
    paused(reason, error, failures, retryIn) {
      const text = `publishing is paused: ${error.message}`;
      errorLogger.error(
        reason === 'limit'
          ? new MessengerError('PARKING_LIMIT', text, { cause: error })
          : new PublishError(text, { kind: 'connection', cause: error }),
      );
      onEvent?.({ type: 'paused', destination, reason, error, failures, ...(retryIn !== undefined && { retryIn }) });
    },
    resumed(reason, pausedFor) {
      onEvent?.({ type: 'resumed', destination, reason, pausedFor });
    },
  };
}

/** The policy of each topic. */
function policies(options: MessengerOptions): PolicyOf {
  const { retry = {}, maxParked, topics = {} } = options;
  const common = policyOf('', retry, maxParked);
  if (typeof topics !== 'object' || (topics as unknown) === null) {
    throw new MessengerError('INVALID_OPTION', `topics must be an object of options by topic, got ${describe(topics)}`);
  }
  const special = new Map(
    Object.entries(topics).map(([topic, own]): [string, TopicPolicy] => {
      const prefix = `topics[${JSON.stringify(topic)}].`;
      checkKeys(own, ['retry', 'maxParked'] satisfies (keyof TopicOptions)[]);
      checkKeys(own.retry ?? {}, RETRY_KEYS);
      return [topic, policyOf(prefix, { ...retry, ...own.retry }, own.maxParked ?? maxParked)];
    }),
  );
  return (topic) => (topic === undefined ? undefined : special.get(topic)) ?? common;
}

const RETRY_KEYS = ['minDelay', 'maxDelay', 'maxAttempts', 'onExhausted'] satisfies (keyof RetryOptions)[];

/** What becomes of failures, checked. `prefix` names the options in errors. @throws MessengerError `INVALID_OPTION`. */
export function policyOf(prefix: string, retry: RetryOptions, maxParked: number | undefined): TopicPolicy {
  checkKeys(retry, RETRY_KEYS, `${prefix}retry`);
  const { onExhausted = 'dead-letter' } = retry;
  if (!['dead-letter', 'block-key'].includes(onExhausted)) {
    throw new MessengerError(
      'INVALID_OPTION',
      `${prefix}retry.onExhausted must be "dead-letter" or "block-key", got ${describe(onExhausted)}`,
    );
  }
  const minDelay = numberOption(`${prefix}retry.minDelay`, retry.minDelay, 500, { min: 1, max: DAY });
  return {
    minDelay,
    maxDelay: numberOption(`${prefix}retry.maxDelay`, retry.maxDelay, Math.max(minDelay, 300_000), {
      min: minDelay,
      max: DAY,
    }),
    maxAttempts: limitOption(`${prefix}retry.maxAttempts`, retry.maxAttempts, 20),
    onExhausted,
    maxParked: limitOption(`${prefix}maxParked`, maxParked, 10_000),
  };
}

/** The user's classification where it has one; what it throws, or what it should not return, is told and ignored. */
function kindsBy(classify: MessengerOptions['classify'], errorLogger: ErrorLogger): (error: Error) => FailureKind {
  if (classify === undefined) return failureKind;
  return (error) => {
    let kind: unknown;
    try {
      kind = classify(error);
      if (kind === undefined || isFailureKind(kind)) return kind ?? failureKind(error);
      errorLogger.error(new MessengerError('INVALID_OPTION', `classify returned ${describe(kind)}: it is ignored`));
    } catch (thrown) {
      errorLogger.error(new Error(`classify failed: ${toError(thrown).message}`, { cause: thrown }));
    }
    return failureKind(error);
  };
}

/** The publisher's own batch form, or one message at a time within a key, each with a deadline of its own. */
function batchForm(
  publisher: Publisher,
  options: {
    concurrency: number;
    publishTimeout: number;
    pageSize: number;
    kindOf: (error: Error) => FailureKind;
    clock: Clock;
  },
): { publisher: BatchPublisher; publishTimeout: number } {
  const { concurrency, publishTimeout, pageSize, kindOf, clock } = options;
  if (isBatchPublisher(publisher)) return { publisher, publishTimeout };
  const tooLate = () =>
    new PublishError(`the publisher did not answer within ${String(publishTimeout)} ms`, { kind: 'retryable' });
  const bounded: Publisher = {
    publish: (message, options) =>
      withDeadline(
        publishTimeout,
        options?.signal,
        tooLate,
        async (signal) =>
          publisher.publish(message, {
            get signal() {
              return signal();
            },
          }),
        clock,
      ),
  };
  // A whole page may be of one key, and then takes as long as its messages together.
  return {
    publisher: asBatchPublisher(bounded, concurrency, kindOf),
    publishTimeout: Math.min(publishTimeout * (pageSize + 1), MAX_TIMEOUT),
  };
}

function assertMethods(value: unknown, option: string, ...methods: readonly string[]): void {
  const missing = methods.filter(
    (method) => typeof (value as Record<string, unknown> | null | undefined)?.[method] !== 'function',
  );
  if (missing.length > 0) {
    throw new MessengerError(
      'INVALID_OPTION',
      `${option} must have the methods ${methods.join(', ')}; ${missing.join(', ')} is missing in ${describe(value)}`,
    );
  }
}

function assertFunction(option: string, value: unknown): void {
  if (value === undefined || typeof value === 'function') return;
  throw new MessengerError('INVALID_OPTION', `${option} must be a function, got ${describe(value)}`);
}

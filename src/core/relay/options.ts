import { Calls } from '../publish/calls.js';
import { Circuit, type CircuitListener } from '../publish/circuit-breaker.js';
import { systemClock, type Clock } from '../util/clock.js';
import { textOf } from '../util/error-text.js';
import { MessengerError, type FailureKind } from '../errors.js';
import { safeHandler, type EventHandler, type MessengerEvent } from '../contracts/events.js';
import { failureKind, isFailureKind } from '../publish/failure-kinds.js';
import { consoleErrorLogger, consoleLogger, safeLogger, type ErrorLogger } from '../contracts/logger.js';
import { describe } from '../util/describe.js';
import { checkKeys, limitOption, numberOption } from '../util/options.js';
import { oneAtATime } from './open-feed.js';
import { Pace } from '../publish/pace.js';
import { asBatchPublisher } from '../publish/single-publisher.js';
import {
  isBatchPublisher,
  publisherOf,
  type BatchPublisher,
  type Publisher,
  type PublishFunction,
} from '../contracts/publisher.js';
import type { RelaySettings } from './settings.js';
import type { PolicyOf, TopicPolicy } from '../publish/retry-policy.js';
import { ANSWER_GRACE } from './stopping.js';
import { isFeedStore, type Store } from '../contracts/store.js';
import { Suspicion } from '../publish/outage-detector.js';
import { Alike, Outages } from './outages.js';
import { withDeadline } from '../util/async.js';

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
   * at least a second or half of this, is set aside with its key while it is waited for, once one that was begun later
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
   * table see `classify`.
   */
  classify?: (error: Error) => FailureKind | undefined;
}

const KEYS = [
  ...(['publishBatchSize', 'publishBatchBytes', 'pipelineDepth', 'interval', 'cleanUp', 'errorLogger'] as const),
  ...(['onEvent', 'destination', 'concurrency', 'publishTimeout', 'storeOutageLimit'] as const),
  ...(['stopTimeout', 'retry'] as const),
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
  given: Publisher | PublishFunction,
  options: MessengerOptions,
  clock: Clock = systemClock,
): RelaySettings {
  assertMethods(store, 'store', 'messages', 'published', 'deletePublishedByExpiration');
  const publisher = publisherOf(given);
  assertMethods(publisher, 'publisher', 'publish');
  checkKeys(options, KEYS);
  const { errorLogger: logger = consoleErrorLogger, destination = DEFAULT_DESTINATION, onEvent } = options;
  assertMethods(logger, 'errorLogger', 'error');
  assertFunction('onEvent', onEvent);
  assertFunction('classify', options.classify);
  if (typeof destination !== 'string' || destination === '') {
    throw new MessengerError('INVALID_OPTION', `destination must be a non-empty string, got ${describe(destination)}`);
  }
  const isConsole = logger === consoleErrorLogger && destination !== DEFAULT_DESTINATION;
  const errorLogger = safeLogger(isConsole ? consoleLogger(destination) : logger);
  const alike = new Alike(errorLogger, clock);
  const calls = new Calls(clock);
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
    ...batchForm(publisher, { concurrency, publishTimeout, pageSize, kindOf, clock, calls }),
    calls,
    destination,
    pageSize,
    pipelineDepth: numberOption('pipelineDepth', options.pipelineDepth, 4, { min: 1, max: 100, integer: true }),
    batchBytes: limitOption('publishBatchBytes', options.publishBatchBytes, Infinity),
    interval: numberOption('interval', options.interval, 1_000, { min: 1, max: DAY }),
    storeOutageLimit: numberOption('storeOutageLimit', options.storeOutageLimit, 30_000, {
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
    }),
    stopTimeout: numberOption('stopTimeout', options.stopTimeout, 8_000, { min: 0, max: DAY }),
    policyOf,
    kindOf,
    circuit: new Circuit({
      clock,
      backoff: { minDelay, maxDelay: Math.max(minDelay, Math.min(maxDelay, MAX_PAUSE)) },
      listener: circuitListener(destination, { outages: new Outages('broker', errorLogger, clock), alike }, handler),
    }),
    suspicion: new Suspicion(),
    pace: new Pace({ clock, timeout: publishTimeout }),
    cleanUp:
      options.cleanUp === undefined
        ? undefined
        : numberOption('cleanUp', options.cleanUp, 0, { min: 0, max: Number.MAX_SAFE_INTEGER }),
    errorLogger,
    alike,
    outages: new Outages('datastore', errorLogger, clock),
    onEvent: handler,
    clock,
  };
}

/** Tells of pauses: to the logger, since somebody should know, and each beginning and end of one as an event. */
function circuitListener(
  destination: string,
  { outages, alike }: { readonly outages: Outages; readonly alike: Alike },
  onEvent: EventHandler | undefined,
): CircuitListener {
  return {
    paused(reason, error, failures, retryIn) {
      if (reason === 'broker') outages.failed(error, retryIn);
      else {
        const text = `publishing is paused: ${textOf(error)}`;
        alike.tellError(new MessengerError('PARKING_LIMIT', text, { cause: error }));
      }
      onEvent?.({ type: 'paused', destination, reason, error, failures, ...(retryIn !== undefined && { retryIn }) });
    },
    resumed(reason, pausedFor) {
      if (reason === 'broker') outages.over();
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
      errorLogger.error(new Error(`classify failed: ${textOf(thrown)}`, { cause: thrown }));
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
    calls: Calls;
  },
): { publisher: BatchPublisher; publishTimeout: number; watchesCalls: boolean } {
  const { concurrency, publishTimeout, pageSize, kindOf, clock, calls } = options;
  if (isBatchPublisher(publisher)) return { publisher, publishTimeout, watchesCalls: false };
  const bounded: Publisher = {
    async publish(message, options) {
      const signal = options?.signal;
      signal?.throwIfAborted();
      const call = calls.begin();
      let isAcknowledged = false;
      try {
        await withDeadline(
          publishTimeout,
          undefined,
          () => calls.tooLate(call, publishTimeout),
          async (own) =>
            publisher.publish(message, {
              get signal() {
                return own();
              },
            }),
          clock,
          // Told to end, it may still say what became of the message. The page waits no longer than it has to.
          signal && { signal, grace: ANSWER_GRACE },
        );
        isAcknowledged = true;
      } finally {
        calls.end(call, isAcknowledged);
      }
    },
  };
  // A whole page may be of one key, and then takes as long as its messages together.
  return {
    publisher: asBatchPublisher(bounded, concurrency, kindOf),
    publishTimeout: Math.min(publishTimeout * (pageSize + 1), MAX_TIMEOUT),
    watchesCalls: true,
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

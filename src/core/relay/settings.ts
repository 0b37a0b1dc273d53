import { batchForm } from './batch-form.js';
import { Calls } from '../publish/calls.js';
import { Circuit, type CircuitListener } from '../publish/circuit-breaker.js';
import { systemClock, type Clock } from '../util/clock.js';
import { textOf } from '../util/error-text.js';
import { MessengerError, type FailureKind } from '../errors.js';
import { safeHandler, type EventHandler } from '../contracts/events.js';
import { failureKind, isFailureKind } from '../publish/failure-kinds.js';
import { consoleErrorLogger, consoleLogger, safeLogger, type ErrorLogger } from '../contracts/logger.js';
import { describe } from '../util/describe.js';
import { checkKeys, DAY, limitOption, numberOption, type KeysOf } from '../util/options.js';
import { oneAtATime } from './open-feed.js';
import { DEFAULT_DESTINATION } from '../contracts/feed.js';
import type { MessengerOptions } from './options.js';
import { Pace } from '../publish/pace.js';
import { policies } from './policies.js';
import { publisherOf, type BatchPublisher, type Publisher, type PublishFunction } from '../contracts/publisher.js';
import type { PolicyOf } from '../publish/retry-policy.js';
import { isFeedStore, type Store } from '../contracts/store.js';
import { OutageDetector } from '../publish/outage-detector.js';
import { Alike, Outages } from './outages.js';

/**
 * How many milliseconds old a published message must be to be cleaned. `by retention` stands for seven days, or for the
 * store's retention if that is shorter.
 */
export type CleanUp = number | 'by retention';

/** All settings for publishing and cleaning. `relaySettings` creates them once. Durations are in milliseconds. */
export interface RelaySettings {
  readonly store: Store;
  readonly publisher: BatchPublisher;
  readonly destination: string;
  readonly pageSize: number;
  readonly pipelineDepth: number;
  /** The maximum size of one call to the publisher in bytes. Can be `Infinity`. */
  readonly batchBytes: number;
  readonly interval: number;
  readonly publishTimeout: number;
  readonly storeOutageLimit: number;
  readonly stopTimeout: number;
  readonly policyOf: PolicyOf;
  readonly kindOf: (error: Error) => FailureKind;
  readonly circuit: Circuit;
  readonly outageDetector: OutageDetector;
  /** The calls to the publisher that are in flight. */
  readonly calls: Calls;
  /** Whether the publisher's batch form itself records a call in `calls` for each message. */
  readonly watchesCalls: boolean;
  readonly pace: Pace;
  readonly errorLogger: ErrorLogger;
  /** Logs frequent errors. */
  readonly alike: Alike;
  /** Logs the outages of the datastore. */
  readonly outages: Outages;
  readonly onEvent: EventHandler | undefined;
  /** If `undefined`, published messages are kept. */
  readonly cleanUp: CleanUp | undefined;
  readonly clock: Clock;
}

/** The settings of a relay that keeps running. */
export interface RelayOptions extends RelaySettings {
  /** The name that identifies this relay to the destination's other relays: see `FeedOptions`. */
  readonly relay: string;
}

const KEYS = {
  publishBatchSize: true,
  publishBatchBytes: true,
  pipelineDepth: true,
  interval: true,
  cleanUp: true,
  errorLogger: true,
  onEvent: true,
  destination: true,
  concurrency: true,
  publishTimeout: true,
  storeOutageLimit: true,
  stopTimeout: true,
  retry: true,
  maxParked: true,
  topics: true,
  classify: true,
} satisfies KeysOf<MessengerOptions>;

/**
 * The longest pause during a broker outage, in milliseconds. The pause must be short, so that the relay soon notices
 * that the broker is back. A probe costs little.
 */
const MAX_PAUSE = 60_000;

/**
 * Creates a relay's settings from the user's options.
 *
 * @throws MessengerError `INVALID_OPTION` that names the option, its range and the value.
 */
export function relaySettings(
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
    outageDetector: new OutageDetector(),
    pace: new Pace({ clock, timeout: publishTimeout }),
    cleanUp:
      options.cleanUp === undefined || options.cleanUp === false
        ? undefined
        : numberOption('cleanUp', options.cleanUp, 0, { min: 0, max: Number.MAX_SAFE_INTEGER }),
    errorLogger,
    alike,
    outages: new Outages('datastore', errorLogger, clock),
    onEvent: handler,
    clock,
  };
}

/** Returns a listener that logs pauses, and emits an event at the beginning and at the end of each pause. */
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

/**
 * Returns a function that classifies errors with the user's `classify`, or else with `failureKind`. If `classify`
 * throws or returns an invalid value, that is logged and ignored.
 */
function kindsBy(classify: MessengerOptions['classify'], errorLogger: ErrorLogger): (error: Error) => FailureKind {
  if (classify === undefined) return failureKind;
  return (error) => {
    let kind: unknown;
    try {
      kind = classify(error);
      if (kind === undefined || isFailureKind(kind)) return kind ?? failureKind(error);
      errorLogger.error(
        new MessengerError(
          'INVALID_OPTION',
          `classify returned ${describe(kind)}, which is ignored: return 'retryable', 'permanent', 'connection' or undefined`,
        ),
      );
    } catch (thrown) {
      errorLogger.error(new Error(`classify failed: ${textOf(thrown)}`, { cause: thrown }));
    }
    return failureKind(error);
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

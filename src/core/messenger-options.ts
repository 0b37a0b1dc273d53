import { systemClock, type Clock } from './clock.js';
import { MessengerError, PublishError } from './errors.js';
import { consoleErrorLogger, safeLogger, type ErrorLogger } from './logger.js';
import { describe } from './message.js';
import { checkKeys, numberOption } from './options.js';
import { oneAtATime } from './plain-feed.js';
import { asBatchPublisher } from './plain-publisher.js';
import { isBatchPublisher, type BatchPublisher, type Publisher } from './publisher.js';
import type { RelayOptions } from './relay.js';
import { isFeedStore, type Store } from './store.js';
import { withDeadline } from './wait.js';

/** How a `Messenger` is set up. All durations are in milliseconds. */
export interface MessengerOptions {
  /** How many messages are published and settled together: 1 to 10,000. @default 100 */
  publishBatchSize?: number;
  /** The longest pause of an idle relay; while there is work there is none. @default 1_000 */
  interval?: number;
  /** Clean up: delete published messages that are older than this. @default no clean-up */
  cleanUp?: number;
  /** Gets the errors that do not stop the relay. @default standard error */
  errorLogger?: ErrorLogger;
  /** The named destination that this relay works for, of a store that has destinations. @default 'default' */
  destination?: string;
  /** How many messages, of different keys, are in flight at once through a publisher without a batch form: 1 to 1,000. @default 10 */
  concurrency?: number;
  /** How long one call of the publisher may take before it counts as failed. @default 30_000 */
  publishTimeout?: number;
  /** How long a running relay puts up with a store that does not answer; 0 not at all. @default 30_000 */
  storeOutageLimit?: number;
  /** The first and the longest pause before a message that failed is tried again. @default { minDelay: 500, maxDelay: 300_000 } */
  retry?: { minDelay?: number; maxDelay?: number };
}

const KEYS = [
  ...(['publishBatchSize', 'interval', 'cleanUp', 'errorLogger', 'destination'] as const),
  ...(['concurrency', 'publishTimeout', 'storeOutageLimit', 'retry'] as const),
] satisfies (keyof MessengerOptions)[];

const DAY = 86_400_000;

/** The longest delay that `setTimeout` takes, in milliseconds. */
const MAX_TIMEOUT = 2_147_483_647;

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
  const { errorLogger = consoleErrorLogger, destination = 'default', retry = {} } = options;
  checkKeys(retry, ['minDelay', 'maxDelay'] satisfies (keyof typeof retry)[]);
  assertMethods(errorLogger, 'errorLogger', 'error');
  if (typeof destination !== 'string' || destination === '') {
    throw new MessengerError('INVALID_OPTION', `destination must be a non-empty string, got ${describe(destination)}`);
  }
  const pageSize = numberOption('publishBatchSize', options.publishBatchSize, 100, {
    min: 1,
    max: 10_000,
    integer: true,
  });
  const publishTimeout = numberOption('publishTimeout', options.publishTimeout, 30_000, { min: 1, max: DAY });
  const concurrency = numberOption('concurrency', options.concurrency, 10, { min: 1, max: 1_000, integer: true });
  const minDelay = numberOption('retry.minDelay', retry.minDelay, 500, { min: 1, max: DAY });
  return {
    store: isFeedStore(store) ? store : oneAtATime(store),
    ...batchForm(publisher, { concurrency, publishTimeout, pageSize, clock }),
    destination,
    pageSize,
    interval: numberOption('interval', options.interval, 1_000, { min: 1, max: DAY }),
    storeOutageLimit: numberOption('storeOutageLimit', options.storeOutageLimit, 30_000, {
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
    }),
    retry: {
      minDelay,
      maxDelay: numberOption('retry.maxDelay', retry.maxDelay, Math.max(minDelay, 300_000), {
        min: minDelay,
        max: DAY,
      }),
    },
    cleanUp:
      options.cleanUp === undefined
        ? undefined
        : numberOption('cleanUp', options.cleanUp, 0, { min: 0, max: Number.MAX_SAFE_INTEGER }),
    errorLogger: safeLogger(errorLogger),
    clock,
  };
}

/** The publisher's own batch form, or one message at a time within a key, each with a deadline of its own. */
function batchForm(
  publisher: Publisher,
  {
    concurrency,
    publishTimeout,
    pageSize,
    clock,
  }: { concurrency: number; publishTimeout: number; pageSize: number; clock: Clock },
): { publisher: BatchPublisher; publishTimeout: number } {
  if (isBatchPublisher(publisher)) return { publisher, publishTimeout };
  const tooLate = () =>
    new PublishError(`the publisher did not answer within ${String(publishTimeout)} ms`, { kind: 'retryable' });
  const bounded: Publisher = {
    publish: (message, options) =>
      withDeadline(
        publishTimeout,
        options?.signal,
        tooLate,
        async (signal) => publisher.publish(message, { signal }),
        clock,
      ),
  };
  // A whole page may be of one key, and then takes as long as its messages together.
  return {
    publisher: asBatchPublisher(bounded, concurrency),
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
